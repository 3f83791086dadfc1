"""By what a kind is ordered, and what is remembered of its lists."""

from __future__ import annotations

import pytest

from clusterinfo.kubernetes.ordering import ListMemory
from clusterinfo.model import CLOCK, ListLane, Unit
from clusterinfo.statements import ListCompleted

PODS = ListLane(Unit("c", "", "pods"))
IN_SHOP = ListLane(PODS.unit, "shop")
SERVICES = ListLane(Unit("c", "", "services"))
ONE, OTHER = ListCompleted(1, "0a"), ListCompleted(1, "0b")


def test_a_kind_is_ordered_by_version_until_something_speaks_against_it() -> None:
    memory = ListMemory()
    assert memory.remember(PODS, "7", "", ONE) == ""
    assert memory.ordering(PODS.unit) == ""


def test_what_is_said_to_be_ordered_by_the_clock_is_so_in_every_reach_and_for_good() -> None:
    memory = ListMemory()
    memory.order_by_clock([PODS.unit])
    assert memory.remember(IN_SHOP, "7", CLOCK, ONE) == ""
    memory.order_by_clock([])
    assert (memory.ordering(PODS.unit), memory.ordering(SERVICES.unit)) == (CLOCK, "")


@pytest.mark.parametrize("completed", [ONE, None], ids=["completed", "failed"])
def test_a_list_whose_version_is_none_decides_for_its_kind(completed: ListCompleted | None) -> None:
    memory = ListMemory()
    assert memory.remember(IN_SHOP, "", CLOCK, completed) == ""
    assert memory.ordering(PODS.unit) == CLOCK


@pytest.mark.parametrize("differs", [OTHER, ListCompleted(2, "0a")], ids=["digest", "count"])
def test_two_lists_of_one_version_that_differ_are_noticed_once(differs: ListCompleted) -> None:
    memory = ListMemory()
    assert memory.remember(PODS, "7", "", ONE) == memory.remember(PODS, "7", "", ONE) == ""
    assert memory.remember(PODS, "7", "", differs) == "two of its lists are of resourceVersion 7 and differ"
    assert memory.ordering(PODS.unit) == CLOCK
    assert memory.remember(PODS, "7", CLOCK, ONE) == ""


def test_only_completed_lists_of_one_lane_and_version_are_compared() -> None:
    memory = ListMemory()
    memory.remember(PODS, "7", "", ONE)
    assert memory.remember(PODS, "7", "", None) == "", "it failed"
    assert memory.remember(IN_SHOP, "7", "", OTHER) == "", "it has another reach"
    assert memory.remember(SERVICES, "7", "", OTHER) == ""
    assert memory.remember(PODS, "8", "", OTHER) == ""
    assert memory.ordering(PODS.unit) == memory.ordering(SERVICES.unit) == ""


def test_the_newest_version_is_that_of_lists_that_were_whole() -> None:
    memory = ListMemory()
    assert memory.newest(PODS) == 0
    memory.remember(PODS, "9", "", None)
    assert memory.newest(PODS) == 0
    memory.remember(PODS, "9", "", ONE)
    memory.remember(PODS, "10", "", ONE)
    memory.remember(PODS, "8", "", OTHER)  # begun before the other had ended
    assert (memory.newest(PODS), memory.newest(IN_SHOP)) == (10, 0)


def test_what_is_ordered_by_the_clock_cannot_run_backwards() -> None:
    memory = ListMemory()
    memory.remember(PODS, "10", "", ONE)
    memory.order_by_clock([PODS.unit])
    assert memory.newest(PODS) == 0
