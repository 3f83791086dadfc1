"""What a list says of the watch beside it, and what progress says of all watches."""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from clusterinfo.kubernetes import following
from clusterinfo.kubernetes.following import PROGRESS_S, Follower, progress_of
from clusterinfo.kubernetes.live import State
from clusterinfo.kubernetes.watch import WatchSource
from clusterinfo.model import GroupVersionResource, ListLane, Unit
from clusterinfo.statements import ListCompleted, WatchedUnit

SEEN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW = SEEN + dt.timedelta(minutes=3)
SESSION = "019ab000-0000-7000-8000-000000000000"
WIDGETS = GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", namespaced=True, verbs=("watch",))
PLAIN = ListCompleted(3, "0f")


def watch(**given: Any) -> Mock:
    """One that runs."""
    given = {"is_over": False, "version": 10, "reaches": AsyncMock(return_value=True), "tried": AsyncMock()} | given
    return Mock(spec=WatchSource, **given)


def beside(state: State = State.LISTING, running: Mock | None = None) -> tuple[following._BesideList, Mock]:
    """A list, and the follower that it belongs to: its session had number 5 due when it began, and has 9 now."""
    follower = Mock(spec=Follower, state=state, watch=running, is_overdue=False, is_said=False, list_from=5)
    follower.session, follower.may_be_watched, follower.health = SESSION, True, Mock(error="refused")
    follower.next_number.return_value = 9

    def opened(version: int, seen: dt.datetime) -> Mock:
        follower.watch = one = watch(version=version)
        return one

    follower.open_watch.side_effect = opened
    return following._BesideList(follower), follower


@pytest.mark.parametrize("is_resync", [True, False])
async def test_from_which_number_a_list_counts(*, is_resync: bool) -> None:
    """Of what a watch said while its first list was sent, all is in that list; beside a list, it may not be."""
    one, _ = beside(State.RESYNCING, watch()) if is_resync else beside()
    await one.began("7", SEEN)
    assert one.complete(PLAIN).from_ == (5 if is_resync else 9)


async def test_a_list_says_when_its_first_page_had_come() -> None:
    one, follower = beside()
    await one.began("7", SEEN)
    follower.open_watch.assert_called_once_with(7, SEEN)
    said = one.complete(PLAIN)
    assert (said.count, said.session, said.seen) == (3, SESSION, SEEN)
    assert one.is_named


@pytest.mark.parametrize("how", ["over", "replaced", "none"])
async def test_a_list_whose_watch_is_gone_names_no_session(how: str) -> None:
    one, follower = beside(State.RESYNCING, watch())
    await one.began("7", SEEN)
    follower.watch = {"over": follower.watch, "replaced": watch(), "none": None}[how]
    if how == "over":
        follower.watch.is_over = True
    said = one.complete(PLAIN)
    assert (said.session, said.from_, said.seen, said.unfollowed) == ("", 0, None, "refused")
    assert not one.is_named


async def test_a_list_that_overtakes_its_watch_says_nothing_of_it() -> None:
    one, _ = beside(State.RESYNCING, watch(reaches=AsyncMock(return_value=False)))
    await one.began("7", SEEN)
    assert one.complete(PLAIN).session == ""


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_list_is_not_below_what_was_watched(*, is_open: bool) -> None:
    """Else the cluster was restored from a backup."""
    shared = Mock(session=SESSION)
    follower = Follower(ListLane(Unit("c", WIDGETS.group, WIDGETS.resource)), WIDGETS, shared)
    follower.watch = running = watch(version=70)
    follower._beside = following._BesideList(follower)
    if not is_open:
        follower._drop(running)
    follower._open_list(follower.lane, WIDGETS, "")
    assert shared.open_list.call_args.args[-1] == 70


def test_progress_claims_what_was_heard_and_not_the_present() -> None:
    since = WatchedUnit("shop.example.com", "widgets", SEEN - dt.timedelta(minutes=9))
    behind = watch(is_behind=lambda now: now == NOW, told=lambda heard: since, heard=since.since)
    heard = [watch(is_behind=lambda _: False, heard=SEEN + dt.timedelta(seconds=s)) for s in (20, 10, 30)]
    said = progress_of([behind, *heard], NOW, 15)
    assert (said.heard, said.behind) == (SEEN + dt.timedelta(seconds=10), [since])
    assert progress_of([behind], NOW, 15).heard == since.since


def test_progress_is_said_in_one_place_a_second() -> None:
    assert following._progress_s(range(3)) == PROGRESS_S
    assert following._progress_s(range(80)) == 80
