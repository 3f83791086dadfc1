"""Leadership: one replica works while the others stand by; the Lease read and written, the work begun and ended.

The shell around `election.py`. It knows nothing of the work but that it runs until it is told to end, and whether it
has done by now what the next leader waits for. Two who believe that they lead do no harm: what they send is merged
whatever its order (docs/DESIGN.md, section 4). The Lease keeps the cost down to one, and nothing depends on it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from clusterinfo.errors import ConfigError, TransientError, one_line
from clusterinfo.kubernetes.client import resource_path
from clusterinfo.kubernetes.credentials import pod_namespace
from clusterinfo.kubernetes.election import DEFAULT_LEASE, JSON, RETRY_S, Election, LeaseName, named_lease
from clusterinfo.kubernetes.errors import ApiStatusError, PageTooLargeError
from clusterinfo.kubernetes.list_source import utc_now
from clusterinfo.kubernetes.watch import ON_ITS_WAY_S
from clusterinfo.model import GroupVersionResource
from clusterinfo.observations import LeadershipGivenUp, LeadershipLost, Leads, Observe, Recovered, Retrying, StandsBy
from clusterinfo.settings import Settings
from clusterinfo.waiting import Backoff, sleep_unless

LEASES = GroupVersionResource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
TRY_WITHIN_S = 4.0
"""To read and to write the Lease: two tries fit into what a leader has to renew it."""
LEAST_PAUSE_S = 0.01
MOST_PAUSE_S = 15.0
"""Between two looks of who stands by while the API does not answer."""
HANDOVER_WITHIN_S = 15.0
"""For the next one to take the Lease and to list everything once; SHUTDOWN_GRACE_S has to be longer."""
OVERLAP_S = ON_ITS_WAY_S + 1.0
"""What a watch is said to have heard ends so much before its end, and the next one's begins with its lists."""
UNWANTED_S = 3 * RETRY_S
"""A Lease that was given up and is not taken for so long has nobody who waits for it."""
LOOK_S = 0.5
GRANT = "its namespace has to exist, and `clusterinfo rbac --leader-election` prints the role for it"


class LeaseApi(Protocol):
    """What is needed of `KubernetesClient`; see there for the errors."""

    async def get(self, path: str) -> bytes:
        """The body of a GET."""

    async def write(self, method: str, path: str, body: JSON) -> bytes:
        """What the API has after a POST or PUT."""


Work = Callable[[asyncio.Event], Awaitable[object]]
"""What a leader does, until the event is set."""


def lease_name(settings: Settings) -> LeaseName:
    """LEADER_ELECTION_LEASE, or else one in the Pod's own namespace. Raises ConfigError where there is neither."""
    if lease := named_lease(settings):
        return lease
    if namespace := pod_namespace(settings):
        return LeaseName(namespace, DEFAULT_LEASE)
    raise ConfigError(
        "LEADER_ELECTION is true, and this is no Pod that reads its own cluster: set LEADER_ELECTION_LEASE to the "
        f"NAMESPACE/NAME of the Lease to use there, such as cluster-info/{DEFAULT_LEASE}"
    )


def candidate_name() -> str:
    """A name that no other process has, and that tells a person which one it is: as client-go's."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


@dataclass(slots=True, kw_only=True)
class Clocks:
    """Seconds of a monotonic clock, and the time of day."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], dt.datetime] = utc_now


class Leadership:
    """One candidate for a Lease."""

    def __init__(
        self,
        api: LeaseApi,
        lease: LeaseName,
        observe: Observe,
        *,
        cluster: str,
        me: str = "",
        clocks: Clocks | None = None,
    ) -> None:
        self._api = api
        self._election = Election(lease, me or candidate_name())
        self._observe = observe
        self._clocks = clocks or Clocks()
        self._told = {"cluster": cluster, "lease": str(lease)}
        """What every observation says."""
        self._path = resource_path(LEASES, lease.namespace)
        self._failures = 0
        self._error = ""
        """Why the last try failed, "" if it did not."""
        self._was_allowed = False
        """Once the Lease could be read or written, a refusal may pass; before, it is for somebody to correct."""

    async def run(self, work: Work, stopping: asyncio.Event, is_done: Callable[[], bool] | None = None) -> None:
        """Work whenever this one leads, until `stopping` is set.

        `is_done`: whether the work has come to where a predecessor may end; without it nobody waits for the next one.
        Raises what `work` raises, ConfigError if the Lease may not be used, FatalError.
        """
        self._is_done = is_done or (lambda: False)
        self._waits = is_done is not None
        try:
            await self._try(self._renew)
            while not stopping.is_set():
                if not self._leads:
                    await self._stand_by(stopping)
                else:
                    await self._lead(work, stopping)
        finally:
            await self._give_up()

    @property
    def _leads(self) -> bool:
        return self._clocks.monotonic() < self._election.leads_until_s

    async def _stand_by(self, stopping: asyncio.Event) -> None:
        """Wait until this one leads."""
        holder = self._election.holder if self._election.holder != self._election.me else ""
        self._observe(StandsBy(**self._told, holder=holder))
        backoff = Backoff(RETRY_S, MOST_PAUSE_S)
        while not self._leads:
            if not self._error:
                backoff.reset()
            pause_s = backoff.next_s() if self._error else RETRY_S * random.uniform(1.0, 1.2)  # noqa: S311
            left_s = self._election.free_at_s - self._clocks.monotonic()
            pause_s = max(LEAST_PAUSE_S, left_s) if 0.0 < left_s < pause_s else pause_s
            if await sleep_unless(stopping, pause_s):
                return
            await self._try(self._renew)

    async def _lead(self, work: Work, stopping: asyncio.Event) -> None:
        self._observe(Leads(**self._told, holder=self._election.me))
        ending = asyncio.Event()
        working = asyncio.ensure_future(work(ending))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await self._hold(working, stopped)
            if stopping.is_set():
                await self._hand_over(working)
            elif not working.done():
                self._observe(LeadershipLost(**self._told, reason=self._reason))
            ending.set()
            await working
        finally:
            stopped.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait([working])

    @property
    def _reason(self) -> str:
        """Why this one does not lead any more."""
        if (holder := self._election.holder) != self._election.me:
            return f"{holder} has it" if holder else "it was given up"
        return f"it could not be renewed: {self._error or 'this process stood still'}"

    async def _hold(self, *others: asyncio.Future[Any]) -> None:
        """Renew the Lease until one of `others` is done, or this one leads no more."""
        while self._leads:
            left_s = self._election.leads_until_s - self._clocks.monotonic()
            pause_s = max(LEAST_PAUSE_S, min(RETRY_S, left_s))
            done, _ = await asyncio.wait(others, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            left_s = self._election.leads_until_s - self._clocks.monotonic()
            await self._try(self._renew, min(TRY_WITHIN_S, max(0.0, left_s)))

    async def _hand_over(self, working: asyncio.Future[Any]) -> None:
        """Give the Lease up, and work on until whoever takes it has caught up, so that somebody looks at any time."""
        self._observe(LeadershipGivenUp(**self._told))
        await self._give_up()
        began_s, election = self._clocks.monotonic(), self._election
        until_s = began_s + HANDOVER_WITHIN_S
        while self._waits and not working.done() and election.holder != election.me:
            now_s = self._clocks.monotonic()
            if now_s > (until_s if election.holder else began_s + UNWANTED_S):
                return
            if election.is_followed:
                until_s = min(until_s, now_s + OVERLAP_S)
            await asyncio.wait([working], timeout=LOOK_S)
            await self._try(self._read)

    # --- the Lease ---------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Take the Lease, or renew it, unless another holds it."""
        if not self._election.is_present:
            await self._read()
        now_s = self._clocks.monotonic()
        if wanted := self._election.wanted(now_s, self._clocks.now(), follows=self._is_done()):
            await self._write(wanted)

    async def _give_up(self) -> None:
        if released := self._election.released(self._clocks.now()):
            await self._try(lambda: self._write(released))

    async def _read(self) -> None:
        name = self._election.lease.name
        try:
            found: JSON | None = msgspec.json.decode(await self._api.get(f"{self._path}/{name}"), type=JSON)
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            found = None
        self._election.read(found, self._clocks.monotonic())

    async def _write(self, lease: JSON) -> None:
        """Or, if somebody was first, find out who; that is nothing wrong."""
        sent_s = self._clocks.monotonic()
        is_there = "resourceVersion" in lease["metadata"]
        method, path = ("PUT", f"{self._path}/{self._election.lease.name}") if is_there else ("POST", self._path)
        self._election.failed()
        try:
            written = await self._api.write(method, path, lease)
        except ApiStatusError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            await self._read()
        else:
            self._election.written(msgspec.json.decode(written, type=JSON), sent_s)

    async def _try(self, step: Callable[[], Awaitable[None]], within_s: float = TRY_WITHIN_S) -> None:
        """One try; what goes wrong is observed, and is tried again later."""
        try:
            async with asyncio.timeout(within_s):
                await step()
        except TimeoutError:
            self._error = f"no answer within {within_s:.1f} s"
        except ApiStatusError as error:
            self._error = one_line(error)
            if not self._was_allowed:
                raise ConfigError(
                    f"the Lease {self._election.lease} cannot be used ({self._error}): {GRANT}"
                ) from error
        except (TransientError, PageTooLargeError, msgspec.MsgspecError) as error:
            self._error = one_line(error)
        else:
            self._error, self._was_allowed = "", True
        self._report()

    def _report(self) -> None:
        lane = f"lease {self._election.lease}"
        if self._error:
            self._failures += 1
            self._observe(Retrying(lane=lane, step="renew", error=self._error, wait_s=RETRY_S))
        elif self._failures:
            self._observe(Recovered(lane=lane, step="renew", attempts=self._failures + 1))
            self._failures = 0
