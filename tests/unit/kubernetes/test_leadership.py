"""Candidates for one Lease, on a loop whose time is its own: minutes pass at once, however busy the machine is."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from clusterinfo.errors import ConfigError, FatalError, TransientError
from clusterinfo.kubernetes import credentials
from clusterinfo.kubernetes.election import LEASE_S, RENEW_WITHIN_S, RETRY_S, LeaseName
from clusterinfo.kubernetes.errors import ApiStatusError
from clusterinfo.kubernetes.leadership import HANDOVER_WITHIN_S, UNWANTED_S, Clocks, Leadership, lease_name
from clusterinfo.kubernetes.watch import ON_ITS_WAY_S
from clusterinfo.observations import LeadershipGivenUp, LeadershipLost, Leads, Observation, Retrying, StandsBy
from clusterinfo.settings import load

NAME = LeaseName("ns", "lead")
PATH = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LOOK_S = RETRY_S * 1.2 + 0.1
"""In which every candidate has looked."""


class OwnTime(asyncio.SelectorEventLoop):
    """Its time moves to what is due next as soon as nothing else is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 1000.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # asyncio.base_events
        if not self._ready:  # type: ignore[attr-defined]
            self._now_s = max([self._now_s, *sorted(one.when() for one in scheduled if not one.cancelled())[:1]])
        super()._run_once()  # type: ignore[misc]


class Api:
    """One Lease; refuses a write of another version than the present one, as the API does."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        """Called with the candidate and GET, POST or PUT."""
        self.asked: list[tuple[str, str]] = []

    def of(self, me: str) -> OneApi:
        return OneApi(self, me)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"].get("holderIdentity", "")) if self.lease else ""


class OneApi:
    """The API as one candidate reaches it."""

    def __init__(self, api: Api, me: str) -> None:
        self.api = api
        self.me = me
        self.is_away = False
        self.hangs = False
        self.loses_answers = False

    async def _reach(self, method: str) -> None:
        self.api.asked.append((self.me, method))
        await asyncio.sleep(0.01)
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            raise TransientError("away")
        if self.api.before:
            await self.api.before(self.me, method)

    async def get(self, path: str) -> bytes:
        assert path == f"{PATH}/lead"
        await self._reach("GET")
        if self.api.lease is None:
            raise ApiStatusError(404, "NotFound", "no Lease")
        return json.dumps(self.api.lease).encode()

    async def write(self, method: str, path: str, body: dict[str, Any]) -> bytes:
        await self._reach(method)
        api = self.api
        present = api.lease and api.lease["metadata"]["resourceVersion"]
        assert (method, path) == (("PUT", f"{PATH}/lead") if "resourceVersion" in body["metadata"] else ("POST", PATH))
        if body["metadata"].get("resourceVersion") != present:
            raise ApiStatusError(409, "Conflict", "somebody was first")
        api.version += 1
        api.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(api.version)}}
        if self.loses_answers:
            raise TransientError("the answer was lost")
        return json.dumps(api.lease).encode()


class Candidate:
    """A Leadership with work that can be told to fail, to take its time, or to be done."""

    def __init__(self, api: Api, me: str, *, is_handed_over: bool = True) -> None:
        self.api = api.of(me)
        self.me = me
        self.seen: list[Observation] = []
        self.stopping = asyncio.Event()
        self.works = False
        self.follows = False
        self.periods: list[list[float]] = []
        """From when to when it worked."""
        self.error: Exception | None = None
        self.fails = asyncio.Event()
        loop = asyncio.get_running_loop()
        clocks = Clocks(monotonic=loop.time, now=lambda: START + dt.timedelta(seconds=loop.time()))
        self.leadership = Leadership(self.api, NAME, self.seen.append, cluster="c", me=me, clocks=clocks)
        is_done = (lambda: self.follows) if is_handed_over else None
        self.task = asyncio.create_task(self.leadership.run(self._work, self.stopping, is_done))

    async def _work(self, ending: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        self.works = True
        self.periods.append([loop.time()])
        try:
            waiting = [asyncio.ensure_future(one.wait()) for one in (ending, self.fails)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            if self.error:
                raise self.error
        finally:
            self.periods[-1].append(loop.time())
            self.works = self.follows = False

    def kill(self) -> None:
        """As SIGKILL would: nothing more is said or written."""
        self.api.hangs = True
        self.task.cancel()

    async def stop(self) -> None:
        self.stopping.set()
        await self.task

    def saw(self, *kinds: type[Observation]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kinds)]


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[Api], Awaitable[None]]], None]]:
    with asyncio.Runner(loop_factory=OwnTime) as runner:
        yield lambda test: runner.run(_timed(test))


async def _timed(test: Callable[[Api], Awaitable[None]]) -> None:
    async with asyncio.timeout(3600):
        await test(Api())


Run = Callable[[Callable[[Api], Awaitable[None]]], None]


def test_one_of_three_works_and_the_others_say_once_that_they_stand_by(run: Run) -> None:
    async def test(api: Api) -> None:
        several = [Candidate(api, name) for name in "abc"]
        await asyncio.sleep(300)
        assert [one.me for one in several if one.works] == [api.holder]
        for one in several:
            assert len(one.saw(Leads, StandsBy)) == 1
            assert one.saw(Retrying, LeadershipLost) == []
        standing_by = [one for other in several for one in other.saw(StandsBy)]
        assert standing_by == [StandsBy(cluster="c", lease="ns/lead", holder=api.holder)] * 2
        leader = api.holder
        assert {method for who, method in api.asked[-60:] if who == leader} == {"PUT"}
        for one in several:
            await one.stop()

    run(test)


def test_a_lease_that_is_given_up_is_taken_with_the_next_look_and_nobody_looks_away_meanwhile(run: Run) -> None:
    async def test(api: Api) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        second = Candidate(api, "second")
        await asyncio.sleep(20)
        first.follows = True
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(LOOK_S)
        assert (api.holder, second.works, first.works) == ("second", True, True)
        await asyncio.sleep(5)
        assert first.works, "the second one is still listing"
        second.follows = True
        await asyncio.sleep(ON_ITS_WAY_S)
        assert first.works, "what it has heard of lately does not count yet"
        await asyncio.sleep(3)
        assert not first.works
        assert stopping.done()
        assert first.saw(LeadershipGivenUp)
        assert first.saw(LeadershipLost) == []
        await second.stop()

    run(test)


def test_a_leader_that_is_to_stop_does_not_wait_for_ever_for_the_next_one(run: Run) -> None:
    async def test(api: Api) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        second = Candidate(api, "second")
        await asyncio.sleep(20)
        began = asyncio.get_running_loop().time()
        await first.stop()
        waited = asyncio.get_running_loop().time() - began
        assert HANDOVER_WITHIN_S <= waited < HANDOVER_WITHIN_S + 2
        began = asyncio.get_running_loop().time()
        await second.stop()  # nobody is left to take it
        assert UNWANTED_S <= asyncio.get_running_loop().time() - began < UNWANTED_S + 2
        assert api.holder == ""

    run(test)


def test_without_a_handover_it_stops_at_once_and_the_lease_is_given_up(run: Run) -> None:
    async def test(api: Api) -> None:
        only = Candidate(api, "only", is_handed_over=False)
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await only.stop()
        assert asyncio.get_running_loop().time() - began < 1
        assert api.holder == ""

    run(test)


def test_the_lease_of_one_that_was_killed_is_taken_within_its_duration(run: Run) -> None:
    async def test(api: Api) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        second = Candidate(api, "second")
        await asyncio.sleep(20)
        first.kill()
        await asyncio.sleep(LEASE_S - LOOK_S)
        assert not second.works
        await asyncio.sleep(2 * LOOK_S)
        assert second.works
        await second.stop()

    run(test)


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_a_leader_that_does_not_reach_the_api_stops_before_another_leads_and_stands_by_again(
    run: Run, how: str
) -> None:
    async def test(api: Api) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        second = Candidate(api, "second")
        await asyncio.sleep(20)
        setattr(first.api, "is_away" if how == "away" else how, True)
        await asyncio.sleep(RENEW_WITHIN_S + 0.1)
        assert not first.works
        assert not second.works
        [lost] = first.saw(LeadershipLost)
        assert lost.reason.startswith("it could not be renewed: ")
        await asyncio.sleep(LEASE_S)
        assert second.works
        first.api.is_away = first.api.hangs = False
        await asyncio.sleep(60)
        assert [first.works, second.works] == [False, True]
        assert first.saw(StandsBy) == [StandsBy(cluster="c", lease="ns/lead")]
        assert first.periods[0][1] <= second.periods[0][0]
        await second.stop()
        assert first.works
        assert len(first.periods) == 2
        await first.stop()

    run(test)


def test_a_leader_alone_that_comes_back_leads_again(run: Run) -> None:
    async def test(api: Api) -> None:
        only = Candidate(api, "only")
        await asyncio.sleep(20)
        only.api.is_away = True
        await asyncio.sleep(60)
        assert not only.works
        only.api.is_away = False
        await asyncio.sleep(20)
        assert only.works
        assert api.lease is not None
        assert api.lease["spec"]["leaseTransitions"] == 0
        await only.stop()

    run(test)


def test_an_outage_that_is_shorter_than_the_deadline_changes_nothing(run: Run) -> None:
    async def test(api: Api) -> None:
        only = Candidate(api, "only")
        await asyncio.sleep(20)
        only.api.is_away = True
        await asyncio.sleep(RENEW_WITHIN_S - 2 * RETRY_S - 1)
        only.api.is_away = False
        await asyncio.sleep(20)
        assert only.saw(Retrying)
        assert len(only.periods) == 1
        await only.stop()

    run(test)


def test_a_write_whose_answer_was_lost_is_found(run: Run) -> None:
    async def test(api: Api) -> None:
        only = Candidate(api, "only")
        only.api.loses_answers = True
        await asyncio.sleep(1)
        assert not only.works
        only.api.loses_answers = False
        await asyncio.sleep(LOOK_S)
        assert only.works
        only.api.loses_answers = True
        await asyncio.sleep(RETRY_S + 1)
        only.api.loses_answers = False
        await asyncio.sleep(20)
        assert len(only.periods) == 1
        await only.stop()

    run(test)


def test_a_leader_whose_lease_another_took_stops_with_its_next_look(run: Run) -> None:
    """As after somebody edited it; nobody takes it who follows the rules."""

    async def test(api: Api) -> None:
        only = Candidate(api, "only")
        await asyncio.sleep(20)
        assert api.lease is not None
        api.lease["metadata"]["resourceVersion"] = "edited"
        api.lease["spec"]["holderIdentity"] = "somebody"
        await asyncio.sleep(2 * LOOK_S)
        assert not only.works
        assert only.saw(LeadershipLost) == [LeadershipLost(cluster="c", lease="ns/lead", reason="somebody has it")]
        await only.stop()
        assert api.holder == "somebody"

    run(test)


def test_what_ends_the_work_ends_the_program_and_gives_the_lease_up(run: Run) -> None:
    async def test(api: Api) -> None:
        only = Candidate(api, "only")
        await asyncio.sleep(20)
        only.error = FatalError("no good")
        only.fails.set()
        with pytest.raises(FatalError, match="no good"):
            await only.task
        assert api.holder == ""

    run(test)


def test_a_lease_that_may_not_be_used_is_an_error_at_the_start_and_may_pass_later(run: Run) -> None:
    async def test(api: Api) -> None:
        async def refuse(me: str, method: str) -> None:
            if method != "GET":
                raise ApiStatusError(403, "Forbidden", "may not")

        api.before = refuse
        with pytest.raises(ConfigError, match=r"ns/lead cannot be used .*rbac --leader-election"):
            await Candidate(api, "refused").task
        api.before = None
        only = Candidate(api, "only")
        await asyncio.sleep(20)
        api.before = refuse
        await asyncio.sleep(60)
        assert not only.works
        api.before = None
        await asyncio.sleep(20)
        assert only.works
        await only.stop()

    run(test)


def test_what_is_no_lease_is_tried_again(run: Run) -> None:
    async def test(api: Api) -> None:
        only = Candidate(api, "only")

        async def garbage(path: str) -> bytes:
            return b"<html>"

        found, only.api.get = only.api.get, garbage  # type: ignore[method-assign]
        await asyncio.sleep(10)
        assert not only.works
        only.api.get = found  # type: ignore[method-assign]
        await asyncio.sleep(30)
        assert only.works
        await only.stop()

    run(test)


def test_the_lease_is_the_one_that_is_named_or_in_the_pods_namespace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert lease_name(load({"LEADER_ELECTION_LEASE": "ops/one.of-ours"})) == LeaseName("ops", "one.of-ours")
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", tmp_path)
    with pytest.raises(ConfigError, match="LEADER_ELECTION_LEASE"):
        lease_name(load({}))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    (tmp_path / "token").write_text("t")
    with pytest.raises(ConfigError, match="LEADER_ELECTION_LEASE"):
        lease_name(load({}))
    (tmp_path / "namespace").write_text("here\n")
    assert lease_name(load({})) == LeaseName("here", "cluster-info-collector")
    with pytest.raises(ConfigError, match="LEADER_ELECTION_LEASE"):
        lease_name(load({"KUBECONFIG": "/another/cluster"}))
