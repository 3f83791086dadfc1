"""UnitLister: what one unit sends within one reach: pumps one after another, each for a list in a lane of its own.

First the list that was asked for. A list of all namespaces whose continue tokens expired has failed, and reports so;
what can be proven still is proven namespace by namespace: each a list of its own reach, with an id and a completion of
its own, so that absence is proven within it and nowhere else. Rows of namespaces that are gone by then are not proven
absent by any of them: they stay, as the failed list of all reports, until a whole list completes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clusterinfo.kubernetes.list_source import ListResult, ListSource
from clusterinfo.model import Batch, GroupVersionResource, Lane, ListLane, Outcome, Position, Receipt, Unit
from clusterinfo.observations import Observe
from clusterinfo.pump import Sink, pump
from clusterinfo.settings import LIST_TIMEOUT_S

NAMESPACES = GroupVersionResource("", "v1", "namespaces", "Namespace", namespaced=False)
SEVERITY = [Outcome.COMPLETED, Outcome.FORBIDDEN, Outcome.FAILED]
"""From best to worst."""

OpenList = Callable[[ListLane, GroupVersionResource, str], ListSource]
"""Makes the source of one list; the text, if any, is why there is nothing to list (see `ListSource`)."""
EndList = Callable[[ListLane, ListResult], object]
"""Takes note of how a list fared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """How a unit fared: the worst of its lists' outcomes, the objects they sent, the first of their errors ("": none).

    `count` is what its completed lists stated, `size_bytes` all that was downloaded, also of a list of all namespaces
    that was given up.
    """

    outcome: Outcome
    objects: int
    count: int
    size_bytes: int
    error: str = ""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of all together; there is at least one."""
    return max(outcomes, key=SEVERITY.index)


class UnitLister:
    """One unit within one reach; `run` is its task."""

    def __init__(
        self,
        lane: ListLane,
        gvr: GroupVersionResource,
        sink: Sink,
        *,
        open_list: OpenList,
        end_list: EndList,
        observe: Observe,
        within_s: float = LIST_TIMEOUT_S,
    ) -> None:
        """`within_s`: how long its namespaces may take together, once they are listed one by one."""
        self.lane = lane
        self.gvr = gvr
        self._sink = sink
        self._open_list = open_list
        self._end_list = end_list
        self._observe = observe
        self._within_s = within_s

    async def run(self) -> UnitResult:
        """List it into the sink. Raises FatalError and ConfigError; cancelled, it abandons the open list."""
        first = await self._list(self.lane, self.gvr, self._sink)
        if not (first.is_too_slow and self.gvr.namespaced and not self.lane.reach):
            return _together([first])
        return _together(await self._by_namespace(), given_up_bytes=first.size_bytes)

    async def _by_namespace(self) -> list[ListResult]:
        """The list of each namespace; if they cannot be listed either, the unit's last statement reports why."""
        names = _Names()
        lane = ListLane(Unit(self.lane.unit.cluster, NAMESPACES.group, NAMESPACES.resource))
        found = await self._list(lane, NAMESPACES, names)
        if found.outcome is Outcome.COMPLETED and names.names:
            return await self._each(names.names)
        why = found.error or "there are none"
        failure = f"the continue token expired, and the namespaces cannot be listed: {why}; set NAMESPACES"
        return [await self._list(self.lane, self.gvr, self._sink, failure)]

    async def _each(self, namespaces: list[str]) -> list[ListResult]:
        """The list of each; once their time is up, the unit's last statement reports so instead."""
        lists: list[ListResult] = []
        until_s = time.monotonic() + self._within_s
        for name in namespaces:
            if time.monotonic() > until_s:
                done = f"{len(lists)} of {len(namespaces)} namespaces were listed within {self._within_s:g} s"
                lists.append(await self._list(self.lane, self.gvr, self._sink, f"only {done} (LIST_TIMEOUT)"))
                break
            lists.append(await self._list(ListLane(self.lane.unit, name), self.gvr, self._sink))
        return lists

    async def _list(self, lane: ListLane, gvr: GroupVersionResource, sink: Sink, failure: str = "") -> ListResult:
        """One list, from its first page to its end, by a pump of its own."""
        source = self._open_list(lane, gvr, failure)
        await pump(source, sink, lane, self._observe)
        self._end_list(lane, source.result)
        return source.result


def _together(lists: list[ListResult], given_up_bytes: int = 0) -> UnitResult:
    return UnitResult(
        outcome=worst(one.outcome for one in lists),
        objects=sum(one.objects for one in lists),
        count=sum(one.completed.count for one in lists if one.completed),
        size_bytes=given_up_bytes + sum(one.size_bytes for one in lists),
        error=next((one.error for one in lists if one.error), ""),
    )


class _Names:
    """A sink that stores the names of what is listed, of the newest attempt to list it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def open(self, lane: Lane) -> Position:
        """From the beginning."""
        del lane
        return None

    async def write(self, batch: Batch) -> Receipt:
        """A first page begins a new list; what is written again is there already."""
        known = self.names if batch.start else []
        listed = (record.name for record in batch.records if record.is_object)
        self.names = list(dict.fromkeys([*known, *listed]))
        return Receipt(lane=batch.lane, position=batch.end)
