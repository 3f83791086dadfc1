"""KindSource: a kind's list of all namespaces and, if its server forgets faster than it is read, one of each instead.

A list of all whose continue token expired twice has failed, and says so. What can be proven still is proven namespace
by namespace: each a list of its own reach, with an id and a completion of its own, so that absence is proven within it
and nowhere else. Rows of namespaces that are gone by then are not proven absent by any of them: they stay, as the
failed list of all says, until a whole list completes.
"""

from __future__ import annotations

from collections.abc import Callable

from clusterinfo.kubernetes.list_source import ListSource
from clusterinfo.model import Batch, GroupVersionResource, Lane, ListLane, Outcome, Position, Receipt, Unit

NAMESPACES = GroupVersionResource("", "v1", "namespaces", "Namespace", namespaced=False)
SEVERITY = [Outcome.COMPLETED, Outcome.FORBIDDEN, Outcome.FAILED]
"""From best to worst."""

OpenList = Callable[[ListLane, GroupVersionResource], ListSource]
"""Makes the source of one list."""


class KindSource:
    """The batches of one kind, of all namespaces or of one after the other: a `pump.Source` for the lane of all.

    `outcome` (None before the end) is that of the list of all or, once it was given up, the worst of the namespaces'
    lists: COMPLETED says that all there is was listed. `objects` and `error` are theirs, `size_bytes` those of all.
    """

    def __init__(self, lane: ListLane, gvr: GroupVersionResource, open_list: OpenList) -> None:
        self.lane = lane
        self.gvr = gvr
        self._open_list = open_list
        self._current = open_list(lane, gvr)
        self._lists = [self._current]
        """Those that count."""
        self._given_up_bytes = 0
        self._waiting: list[ListLane] | None = None
        """Namespaces yet to be listed, the next one last; None: it has not come to that."""
        self._namespaces: ListSource | None = None
        self._names: list[str] = []

    # --- pump.Source -------------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Begin, or go on with the list that is open."""
        await self._current.open(self._current.lane if lane == self.lane else lane, position)

    async def read(self) -> Batch | None:
        """The next batch of whichever list is open. Raises TransientError, FatalError."""
        while (batch := await self._current.read()) is None:
            if not await self._turn_to_next():
                return None
        return batch

    async def ack(self, receipt: Receipt) -> None:
        """The batch is stored."""
        await self._current.ack(receipt)

    async def restart(self) -> None:
        """Begin the open list again under a new id; lists that completed before it stay completed."""
        await self._current.restart()

    async def close(self) -> None:
        """Let go of everything. Safe to call twice."""
        await self._current.close()
        if self._namespaces is not None:
            await self._namespaces.close()

    # --- how it fared ------------------------------------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome | None:
        """How the kind fared; None before the end."""
        outcomes = [one.outcome for one in self._lists]
        if self._waiting or None in outcomes or (self._waiting is None and self._current.is_too_slow):
            return None
        return max((one for one in outcomes if one), key=SEVERITY.index)

    @property
    def objects(self) -> int:
        """Objects sent."""
        return sum(one.objects for one in self._lists)

    @property
    def size_bytes(self) -> int:
        """Bytes downloaded."""
        return self._given_up_bytes + sum(one.size_bytes for one in self._lists)

    @property
    def error(self) -> str:
        """Of the first list that failed; "" if none did."""
        return next((one.error for one in self._lists if one.error), "")

    # --- namespace by namespace --------------------------------------------------------------------------------------

    async def _turn_to_next(self) -> bool:
        """Open the next list; False if there is none."""
        if self._waiting is None:
            if not self._current.is_too_slow:
                return False
            await self._give_up_the_list_of_all()
        elif self._waiting:
            await self._begin(self._waiting.pop())
        else:
            return False
        return True

    async def _give_up_the_list_of_all(self) -> None:
        """Turn to the first namespace; if the namespaces cannot be listed either, to the kind's last word on that."""
        error = await self._find_namespaces()
        self._given_up_bytes = self._current.size_bytes
        self._lists.clear()
        if error or not self._names:
            self._waiting = []
            await self._begin(self.lane)
            reason = f"the continue token expired, and the namespaces cannot be listed: {error or 'there are none'}"
            self._current.give_up(f"{reason}; set NAMESPACES")
        else:
            self._waiting = [ListLane(self.lane.unit, name) for name in reversed(self._names)]
            await self._begin(self._waiting.pop())

    async def _begin(self, lane: ListLane) -> None:
        self._current = self._open_list(lane, self.gvr)
        self._lists.append(self._current)
        await self._current.open(lane, None)

    async def _find_namespaces(self) -> str:
        """Note the names of a list that completed; return why there is none, else "". Raises TransientError."""
        if self._namespaces is None:
            lane = ListLane(Unit(self.lane.unit.cluster, NAMESPACES.group, NAMESPACES.resource))
            self._namespaces = self._open_list(lane, NAMESPACES)
            await self._namespaces.open(lane, None)
        while (batch := await self._namespaces.read()) is not None:
            known = self._names if batch.start else []  # a batch 0 begins a list anew
            self._names = [*known, *(record.name for record in batch.records if record.is_object)]
            receipt = Receipt(lane=batch.lane, position=batch.end)
            await self._namespaces.ack(receipt)
        return "" if self._namespaces.outcome is Outcome.COMPLETED else self._namespaces.error
