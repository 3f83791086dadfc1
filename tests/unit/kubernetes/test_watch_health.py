"""What is told of watches that do not work, and when they are believed to work again."""

from __future__ import annotations

import pytest

from clusterinfo.kubernetes.watch_health import FAILING_AFTER_S, WatchHealth
from clusterinfo.observations import Observation, WatchFailing, WatchInterrupted, WatchLost, WatchRecovered


class Kept(WatchHealth):
    """One whose clock stands, and what it told."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.told: list[Observation] = []
        super().__init__("pods", "", self._tell, lambda: self.now_s)

    def _tell(self, observation: Observation) -> None:
        if not isinstance(observation, WatchInterrupted):
            self.told.append(observation)

    def fail_for(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.interrupted("503 boom", 10)
            self.now_s += 10
        self.interrupted("503 boom", 10)


@pytest.fixture
def health() -> Kept:
    return Kept()


def test_what_fails_is_told_once_when_it_has_lasted_and_when_it_is_over(health: Kept) -> None:
    health.fail_for(FAILING_AFTER_S - 10)
    assert health.told == []
    health.fail_for(600)
    assert health.told == [WatchFailing(resource="pods", reach="", error="503 boom", seconds=FAILING_AFTER_S)]
    assert (health.is_failing, health.error, health.failing_s) == (True, "503 boom", FAILING_AFTER_S - 10 + 600)
    health.answered()
    assert health.told[1:] == [WatchRecovered(resource="pods", reach="", seconds=health.now_s - 1000)]
    assert (health.is_failing, health.error, health.failing_s) == (False, "", 0)


def test_an_hour_of_refusals_is_one_loss(health: Kept) -> None:
    for _ in range(12):
        health.lost("403 Forbidden")
        health.now_s += 300
    assert health.told == [WatchLost(resource="pods", reach="", reason="403 Forbidden")]
    assert health.failing_s == 3600
    health.answered()
    assert health.is_failing, "nothing has come yet"
    health.heard()
    assert health.told[1:] == [WatchRecovered(resource="pods", reach="", seconds=3600)]


def test_an_answer_of_which_nothing_comes_is_believed_once(health: Kept) -> None:
    health.answered()
    health.interrupted("cut", 1)
    health.now_s += 100
    health.answered()
    assert health.error == "cut"
    health.interrupted("cut", 1)
    assert [type(one) for one in health.told] == [WatchFailing]
    health.answered()
    assert health.error == "cut"
    health.heard()
    assert [type(one) for one in health.told] == [WatchFailing, WatchRecovered]
    health.interrupted("cut after a word", 1)
    health.answered()
    assert health.error == ""


def test_of_what_is_not_to_be_watched_nothing_is_amiss(health: Kept) -> None:
    health.lost("403 Forbidden")
    health.forget()
    assert (health.is_failing, health.failing_s) == (False, 0)
