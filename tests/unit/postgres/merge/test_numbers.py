"""The numbers of a session: what came, what is missing, and what a batch comes to."""

from __future__ import annotations

import datetime as dt
import json

from hypothesis import given
from hypothesis import strategies as st

from clusterinfo.model import Record, RecordType
from clusterinfo.postgres.merge.numbers import MAX_GAPS, Cut, Ended, Named, Progressed, Said, Session, Speaking, listen
from clusterinfo.statements import ListCompleted, WatchedUnit, WatchEnded, WatchProgress
from tests.support.records import CLUSTER, NOON, SESSION, Listing, watched

NOW = NOON + dt.timedelta(hours=1)
KEY = (CLUSTER, SESSION)
LISTING = Listing("100")


def event(number: int) -> Said:
    return watched(LISTING.item("a", "7"), number), None


def progress(number: int, heard: dt.datetime = NOON, *behind: WatchedUnit) -> Said:
    statement = WatchProgress(heard, list(behind), 30)
    return LISTING.watch(RecordType.WATCH_PROGRESS, number, statement), statement


def ended(number: int, *units: WatchedUnit) -> Said:
    statement = WatchEnded(list(units), "410 Gone")
    return LISTING.watch(RecordType.WATCH_ENDED, number, statement), statement


def completed(from_: int) -> Said:
    statement = ListCompleted(1, "0f", SESSION, from_, NOON)
    return LISTING.completed(from_), statement


@given(st.lists(st.integers(1, 60), max_size=200))
def test_whatever_order_numbers_come_in_those_are_missing_that_have_not(numbers: list[int]) -> None:
    session, came = Session(1), set[int]()
    for number in numbers:
        assert session.is_first(number) is (number not in came)
        assert session.leaves_a_hole(number) is (number > max(came, default=0) + 1)
        session = session.take(number)
        came.add(number)
    missing = {number for start, end in session.missing for number in range(start, end)}
    assert session.next_number == max(came, default=0) + 1
    assert missing == set(range(1, session.next_number)) - came
    assert list(session.missing) == sorted(session.missing)


def test_of_gaps_that_are_too_many_the_oldest_become_one() -> None:
    session = Session(1)
    for number in range(2, 4 * MAX_GAPS, 2):
        session = session.take(number)
    assert len(session.missing) == MAX_GAPS
    assert session.missing[0] == (1, session.missing[1][0] - 1)
    assert session.missing[-1] == (session.next_number - 2, session.next_number - 1)


def test_a_progress_that_comes_late_says_nothing_new() -> None:
    later = NOON + dt.timedelta(minutes=1)
    session = Session(1).progressed(5, WatchProgress(later), NOW).progressed(4, WatchProgress(NOON), NOW)
    assert (session.heard, session.heard_number) == (later, 5)


def test_what_is_heard_or_behind_is_not_after_the_present() -> None:
    far = NOW + dt.timedelta(days=1)
    session = Session(1).progressed(5, WatchProgress(far, [WatchedUnit("apps\0", "jobs", far, "ns")]), NOW)
    assert session.heard == NOW
    assert json.loads(session.behind) == [
        {"group": "apps\ufffd", "resource": "jobs", "reach": "ns", "since": NOW.isoformat()}
    ]


def test_the_last_end_of_a_watch_is_kept() -> None:
    unit = WatchedUnit("apps", "jobs", NOON)
    session = Session(1).without(7, [unit]).without(5, [unit, WatchedUnit("", "pods", NOON, "shop")])
    assert session.ended == {"apps/jobs/": 7, "/pods/shop": 5}


def test_what_a_batch_says_is_taken_in_its_order() -> None:
    pods = WatchedUnit("", "pods", NOON)
    said = [event(1), completed(1), progress(2), event(5), ended(6, pods), completed(3), event(3), progress(7)]

    heard = listen(said, {KEY: Session(9, is_unverified=True)}, NOW)

    session = heard.sessions[KEY]
    assert (session.next_number, session.missing, session.is_unverified, session.cut_number) == (8, ((4, 5),), False, 4)
    assert heard.named == {LISTING.id: Named(9, 3, 7, NOON)}
    assert [type(event) for event in heard.events] == [Progressed, Cut, Ended, Progressed]
    cut = heard.events[1]
    assert (cut.session.next_number, cut.session.missing, cut.session.heard_number) == (3, (), 2)
    assert heard.first == {id(record): 9 for record, statement in said if not isinstance(statement, ListCompleted)}


def test_what_comes_again_is_not_the_first() -> None:
    said = [event(1), event(1), progress(1)]
    heard = listen(said, {KEY: Session(9)}, NOW)
    assert heard.first == {id(said[0][0]): 9}
    assert [type(event) for event in heard.events] == [Progressed]


def test_what_came_too_late_is_kept_by_its_number() -> None:
    heard = listen([event(1), event(2)], {KEY: Session(9)}, NOW)
    for number in (2, 1):
        record: Record = event(number)[0]
        heard.cut(record)
    assert heard.sessions[KEY].cut_number == 2


@given(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_session_goes_on_where_it_is_locked_if_what_is_due_comes_first(due: int, numbers: list[int]) -> None:
    session = Session(1, next_number=due, is_unverified=True)
    moved = Speaking.of(("kafka", "topic", 0), [event(number) for number in numbers]).moved({KEY: session})
    assert moved.keys() == ({1} if numbers[0] == due else set())
    assert not any(of_key.is_unverified for of_key in moved.values())


@given(st.integers(1, 9), st.integers(1, 9))
def test_nothing_is_left_to_be_written_of_a_session_whose_numbers_come_as_they_are_due(due: int, count: int) -> None:
    said, sessions = [event(number) for number in range(due, due + count)], {KEY: Session(1, due, is_unverified=True)}
    assert Speaking.of(("kafka", "topic", 0), said).moved(sessions) == {1: listen(said, sessions, NOW).sessions[KEY]}


def test_a_list_that_names_a_session_does_not_move_it() -> None:
    speaking = Speaking.of(("kafka", "topic", 0), [completed(1)])
    assert speaking.runs == {KEY: (0, 0)}
    assert speaking.moved({KEY: Session(1)}) == {}
