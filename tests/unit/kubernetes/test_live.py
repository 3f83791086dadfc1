"""The table of states: every pair of state and event, and what must hold of all of them."""

from itertools import product

import pytest

from clusterinfo.kubernetes.live import FOLLOWED, TABLE, Action, Event, State, Step, advance

LISTS = frozenset({State.LISTING, State.RESYNCING})
"""States in which a list is under way."""
WATCHED = FOLLOWED | {State.LISTING}
"""States in which a watch may be open."""
SAID = frozenset(
    {Event.REMOVED, Event.CLOCK, Event.UNWATCHABLE, Event.WATCH_FORBIDDEN, Event.EXPIRED, Event.STAND_DOWN}
)
"""Events after which nobody may think any longer that the kind is followed."""


def run(*events: Event, state: State = State.GONE) -> tuple[State, list[Action]]:
    """Where events lead, one after another, and all that was to be done."""
    done: list[Action] = []
    for event in events:
        state, actions = advance(state, event)
        done += actions
    return state, done


def test_every_state_has_its_events() -> None:
    assert set(TABLE) == set(State)


@pytest.mark.parametrize("state", State)
def test_a_list_is_begun_and_given_up_exactly_where_one_is_under_way(state: State) -> None:
    for event in Event:
        to, actions = advance(state, event)
        ended = event in {Event.LISTED, Event.LISTED_ALONE, Event.LIST_FAILED, Event.LIST_FORBIDDEN}
        runs = state in LISTS and not ended
        for action in actions:
            if action is Action.CANCEL_LIST:
                assert runs, event
                runs = False
            if action is Action.LIST:
                assert not runs, event
                runs = True
        assert runs == (to in LISTS), event


@pytest.mark.parametrize("state", State)
def test_who_is_not_followed_any_more_is_said_to_be_so(state: State) -> None:
    for event in Event:
        to, actions = advance(state, event)
        leaves = state in FOLLOWED and to not in FOLLOWED
        is_void = event in {Event.SESSION_LOST, Event.STOP}
        assert (Action.END in actions) == (leaves and not is_void), event
        if leaves and is_void:
            assert Action.CLOSE in actions, event
        if state in FOLLOWED and event in SAID:
            assert leaves, event


@pytest.mark.parametrize("state", State)
def test_no_watch_is_left_open_where_nobody_reads_it(state: State) -> None:
    for event in Event:
        to, actions = advance(state, event)
        if state in WATCHED and to not in WATCHED:
            assert Action.CLOSE in actions or Action.END in actions, event
        if Action.REOPEN in actions:
            assert to in WATCHED, event


@pytest.mark.parametrize("state", State)
def test_what_is_watched_is_sent_only_once_its_list_is(state: State) -> None:
    for event in Event:
        to, actions = advance(state, event)
        begins = state not in FOLLOWED and to in FOLLOWED
        assert (Action.START in actions) == begins, event
        if begins:
            assert event is Event.LISTED, event


@pytest.mark.parametrize(("state", "by"), list(product(State, [Event.STOP, Event.STAND_DOWN])))
def test_stopping_ends_everything_and_nothing_begins_again(state: State, by: Event) -> None:
    assert advance(state, by).state is State.DRAINED
    for event in Event:
        assert advance(State.DRAINED, event) == Step(State.DRAINED)


@pytest.mark.parametrize(
    "state", sorted(set(State) - FOLLOWED - {State.LISTING, State.DRAINED, State.EXPIRED}, key=str)
)
def test_what_is_not_followed_is_listed_at_the_next_interval(state: State) -> None:
    assert advance(state, Event.TICK) == Step(State.LISTING, (Action.LIST,))


@pytest.mark.parametrize("state", sorted(FOLLOWED, key=str))
def test_what_is_followed_is_not_listed_at_the_interval(state: State) -> None:
    assert advance(state, Event.TICK) == Step(state)


def test_a_quiet_life() -> None:
    assert run(Event.TICK, Event.OPENED, Event.LISTED) == (
        State.WATCHING,
        [Action.LIST, Action.START, Action.SCHEDULE_RESYNC],
    )
    assert run(Event.CLOSED, Event.OPENED, state=State.WATCHING) == (State.WATCHING, [Action.REOPEN])
    assert run(Event.RESYNC_DUE, Event.CLOSED, Event.OPENED, Event.LISTED, state=State.WATCHING) == (
        State.WATCHING,
        [Action.LIST, Action.REOPEN, Action.SCHEDULE_RESYNC],
    )


def test_an_expired_watch_is_said_and_listed_again() -> None:
    events = Event.BROKEN, Event.EXPIRED, Event.PAUSE_OVER, Event.OPENED, Event.LISTED
    state, done = run(*events, state=State.WATCHING)
    assert state is State.WATCHING
    assert done == [Action.REOPEN, Action.END, Action.PAUSE, Action.LIST, Action.START, Action.SCHEDULE_RESYNC]


def test_a_resync_that_fails_ends_nothing() -> None:
    for event in Event.LIST_FAILED, Event.LISTED_ALONE, Event.LIST_FORBIDDEN:
        assert run(Event.RESYNC_DUE, event, state=State.WATCHING) == (
            State.WATCHING,
            [Action.LIST, Action.RETRY_RESYNC],
        )


def test_a_role_that_is_taken_away_and_given_back() -> None:
    state, done = run(Event.WATCH_FORBIDDEN, Event.LIST_FORBIDDEN, state=State.WATCHING)
    assert (state, done) == (State.FORBIDDEN, [Action.END, Action.LIST, Action.CLOSE])
    assert run(Event.TICK, Event.LISTED, state=state)[0] is State.WATCHING


def test_an_unwatchable_kind_is_polled() -> None:
    state, done = run(Event.TICK, Event.UNWATCHABLE, Event.LISTED_ALONE)
    assert (state, done) == (State.POLLING, [Action.LIST, Action.CLOSE, Action.CLOSE])
