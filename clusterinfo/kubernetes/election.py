"""Leader election by a Lease, as one candidate sees it. Pure: no I/O; times are passed in.

Theory of operation, that of client-go's leaderelection. Whoever is named in the Lease (coordination.k8s.io/v1) leads,
and renews it every RETRY_S; the others look at it as often. Who sees a Lease unchanged for as long as it says it lasts,
by the own clock from when it was first seen so, takes it: no time that stands in it is compared with any clock, so
that clocks need not agree. A write names the version that was read, so of two that take it one is refused.

A leader that has renewed nothing for RENEW_WITHIN_S, counted from when the last renewal was sent, leads no more: before
anybody else may take the Lease, who counts from when that renewal was seen. One that is to stop gives the Lease up, and
the next one has it with its next look. An annotation names the leader once it has done what it leads for; who gave the
Lease up goes on until then.
"""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any, Final, NamedTuple

from clusterinfo.settings import Settings

JSON = dict[str, Any]

LEASE_S = 15.0
RENEW_WITHIN_S = 10.0
RETRY_S = 2.0
"""client-go's recommended values: k8s.io/component-base/config, LeaderElectionConfiguration."""
RELEASED_S = 1
"""What client-go writes into a Lease that it gives up: the field may not be 0."""
FOLLOWING: Final = "clusterinfo.io/following"
"""The annotation."""


class LeaseName(NamedTuple):
    """Which Lease."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


DEFAULT_LEASE = "cluster-info-collector"
"""Its name, in the namespace of the Pod."""


def named_lease(settings: Settings) -> LeaseName | None:
    """LEADER_ELECTION_LEASE, if it is set."""
    return LeaseName(*settings.leader_election_lease.split("/")) if settings.leader_election_lease else None


class Election:
    """What the candidate `me` (a name that no other has) knows of a Lease. Seconds are those of a monotonic clock."""

    def __init__(self, lease: LeaseName, me: str) -> None:
        self.lease = lease
        self.me = me
        self.is_present = False
        """True as long as what is known of the Lease is what was last written: it need not be read before a renewal."""
        self._known: JSON | None = None
        self._changed_s = float("-inf")
        """When it was first seen as it is known."""
        self._renewed_s = float("-inf")

    # --- what is known -----------------------------------------------------------------------------------------------

    @property
    def holder(self) -> str:
        """Who leads, or did last; "" for nobody."""
        return str(self._spec.get("holderIdentity") or "")

    @property
    def leads_until_s(self) -> float:
        """Until when this candidate leads, unless it renews the Lease; in the past if it does not."""
        return self._renewed_s + RENEW_WITHIN_S if self.holder == self.me else float("-inf")

    @property
    def free_at_s(self) -> float:
        """When the Lease of another may be taken, unless it is renewed."""
        return self._changed_s + self._lasts_s

    @property
    def is_followed(self) -> bool:
        """True if the holder says that it follows the cluster."""
        annotations = (self._known or {}).get("metadata", {}).get("annotations") or {}
        return bool(self.holder) and annotations.get(FOLLOWING) == self.holder

    @property
    def _spec(self) -> JSON:
        return (self._known or {}).get("spec") or {}

    # --- what happens ------------------------------------------------------------------------------------------------

    def read(self, lease: JSON | None, now_s: float) -> None:
        """The Lease was read; None: there is none."""
        before = self._known and self._spec
        self._known = lease
        if lease is None or self._spec != before:
            self._changed_s = now_s

    def written(self, lease: JSON, sent_s: float) -> None:
        """What was wanted, and sent at `sent_s`, was written; `lease`: what the API has now."""
        self._known, self._changed_s, self._renewed_s, self.is_present = lease, sent_s, sent_s, True

    def failed(self) -> None:
        """A write was refused, or nobody knows what became of it."""
        self.is_present = False

    # --- what to write -----------------------------------------------------------------------------------------------

    def wanted(self, now_s: float, now: dt.datetime, *, follows: bool) -> JSON | None:
        """The Lease to write, to create it, to take it or to renew it; None while another holds it."""
        if self.holder not in ("", self.me) and now_s < self.free_at_s:
            return None
        return self._with(
            holderIdentity=self.me,
            leaseDurationSeconds=int(LEASE_S),
            acquireTime=self._spec.get("acquireTime") if self.holder == self.me else _micro_time(now),
            renewTime=_micro_time(now),
            leaseTransitions=self._transitions,
            annotation=self.me if follows else None,
        )

    def released(self, now: dt.datetime) -> JSON | None:
        """The Lease to write so that the next one takes it at once; None unless this candidate holds it."""
        if self.holder != self.me:
            return None
        return self._with(holderIdentity=None, leaseDurationSeconds=RELEASED_S, renewTime=_micro_time(now))

    @property
    def _lasts_s(self) -> float:
        """As its holder wrote, which may be another version of this program."""
        seconds = self._spec.get("leaseDurationSeconds")
        return float(seconds) if isinstance(seconds, int) and seconds > 0 else LEASE_S

    @property
    def _transitions(self) -> int:
        """How often it went from one holder to another."""
        known = self._spec.get("leaseTransitions")
        count = known if isinstance(known, int) else 0
        return count if self._known is None or self.holder == self.me else count + 1

    def _with(self, *, annotation: str | None = None, **spec: Any) -> JSON:
        """The Lease as it is known, labels and resourceVersion included, but for these; None takes one out."""
        lease = copy.deepcopy(self._known) or {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        metadata = lease.setdefault("metadata", {})
        metadata |= {"namespace": self.lease.namespace, "name": self.lease.name}
        metadata["annotations"] = _changed(metadata.get("annotations") or {}, {FOLLOWING: annotation})
        lease["spec"] = _changed(lease.get("spec") or {}, spec)
        return lease


def _changed(known: JSON, changes: JSON) -> JSON:
    return {key: value for key, value in (known | changes).items() if value is not None}


def _micro_time(at: dt.datetime) -> str:
    """As Kubernetes writes a MicroTime."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
