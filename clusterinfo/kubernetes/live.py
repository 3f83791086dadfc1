"""How one kind within one reach is followed: a table of states and events. Pure: no I/O, no clock, no environment.

Theory of operation. A kind is listed, and as soon as the list's first page has come, a watch is opened at the list's
version and read beside the list (`LISTING`). When the list is sent whole, what the watch has read is sent, and the kind
is followed (`WATCHING`). A connection that ends is opened again at the version it had come to, without a list
(`RECONNECTING`). Only when the server cannot continue from there, or says what cannot be (`Event.EXPIRED`), is it said
that the kind is not followed any more, and it is listed again at once, or after a pause if that happens time and again
(`EXPIRED`). From time to time a list beside the running watch proves everything again (`RESYNCING`); whatever comes of
that list, it ends nothing.

A watch that has not worked for two minutes by the time of the next run is given up (`Event.OVERDUE`): the kind is
listed, and another one tried. What cannot be followed is listed every COLLECT_INTERVAL: what may not be listed
(`FORBIDDEN`), what cannot be watched, is ordered by the clock, or could not be listed (`POLLING`). Each of these lists
tries to open a watch again, unless the kind is ordered by the clock. A kind that discovery does not name any more is
left alone until it does (`GONE`); once the program is to stop, or another collector leads, nothing is begun any more
(`DRAINED`).

A list that completes with a watch beside it ends with `LISTED`, one without with `LISTED_ALONE`: that proves what there
was, and no more. What was said of a watch is taken back by `Action.END` (`watch.ended`); of one that nothing was sent
of, by its `Action.CLOSE`. Events of a list or a watch that was given up meanwhile are not told to the table.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple


class State(Enum):
    """Where a kind stands."""

    LISTING = "a list is under way, a watch may be open beside it; it is not followed"
    WATCHING = "followed"
    RECONNECTING = "followed; the watch is being opened again"
    EXPIRED = "the watch cannot be continued: a list is about to begin"
    FORBIDDEN = "may not be listed: tried every COLLECT_INTERVAL"
    POLLING = "cannot be followed: listed every COLLECT_INTERVAL"
    RESYNCING = "followed; a list is under way beside the watch"
    GONE = "not served any more"
    DRAINED = "the program stops"


class Event(Enum):
    """What can happen."""

    TICK = "COLLECT_INTERVAL is over, and discovery names the kind"
    OVERDUE = "COLLECT_INTERVAL is over, and the watch has not worked for two minutes, nor after that"
    RESYNC_DUE = "RESYNC_INTERVAL is over"
    PAUSE_OVER = "the pause after the watch expired is over"
    LISTED = "the list completed, and said that a watch follows it"
    LISTED_ALONE = "the list completed without a watch"
    LIST_FAILED = "the list failed"
    LIST_FORBIDDEN = "the list was refused with 403"
    OPENED = "the watch was answered 200"
    CLOSED = "the watch came to its end in order"
    BROKEN = "the watch broke off, was silent, or could not be opened now (5xx, 429)"
    EXPIRED = "the watch cannot go on from its version: 410, a future version, or what no server in order would say"
    WATCH_FORBIDDEN = "the watch was refused with 403"
    UNWATCHABLE = "the watch was refused for good otherwise: 404, 405"
    CLOCK = "the kind turned out to be ordered by the clock"
    REMOVED = "a complete discovery does not name the kind"
    SESSION_LOST = "what was numbered under the session is void: a new one begins"
    STAND_DOWN = "this collector does not lead any more"
    STOP = "the program is asked to stop"


class Action(Enum):
    """What is to be done, in the order given."""

    LIST = auto()
    """Begin a list; once its first page has come, open a watch, unless one is open or there cannot be one."""
    CANCEL_LIST = auto()
    START = auto()
    """Send what the watch has read, and what it will read."""
    REOPEN = auto()
    """Open the watch again where it stands: at once if it ended in order, else after a pause that grows."""
    END = auto()
    """Say `watch.ended`, after what was read, and close the watch."""
    CLOSE = auto()
    """Close the watch, if there is one; nothing of it was sent, or what was sent is void."""
    PAUSE = auto()
    """Have `PAUSE_OVER` happen: at once, or later if this comes soon after the last time."""
    SCHEDULE_RESYNC = auto()
    """Have `RESYNC_DUE` happen when RESYNC_INTERVAL is over."""
    RETRY_RESYNC = auto()
    """Have `RESYNC_DUE` happen again soon."""
    DISCOVER = auto()
    """Have what the cluster serves looked up again."""


class Step(NamedTuple):
    """Where an event leads, and what is to be done."""

    state: State
    actions: tuple[Action, ...] = ()


S, E, A = State, Event, Action

_FOLLOWED: Final = {
    E.REMOVED: Step(S.GONE, (A.END,)),
    E.CLOCK: Step(S.POLLING, (A.END,)),
    E.UNWATCHABLE: Step(S.POLLING, (A.END, A.DISCOVER)),
    E.WATCH_FORBIDDEN: Step(S.LISTING, (A.END, A.LIST)),
    E.EXPIRED: Step(S.EXPIRED, (A.END, A.PAUSE)),
    E.SESSION_LOST: Step(S.LISTING, (A.CLOSE, A.LIST)),
    E.STAND_DOWN: Step(S.DRAINED, (A.END,)),
    E.STOP: Step(S.DRAINED, (A.CLOSE,)),
}
_POLLED: Final = {
    E.TICK: Step(S.LISTING, (A.LIST,)),
    E.REMOVED: Step(S.GONE),
    E.STAND_DOWN: Step(S.DRAINED),
    E.STOP: Step(S.DRAINED),
}

TABLE: Final[dict[State, dict[Event, Step]]] = {
    S.LISTING: {
        E.LISTED: Step(S.WATCHING, (A.START, A.SCHEDULE_RESYNC)),
        E.LISTED_ALONE: Step(S.POLLING, (A.CLOSE,)),
        E.LIST_FAILED: Step(S.POLLING, (A.CLOSE,)),
        E.LIST_FORBIDDEN: Step(S.FORBIDDEN, (A.CLOSE,)),
        E.CLOSED: Step(S.LISTING, (A.REOPEN,)),
        E.BROKEN: Step(S.LISTING, (A.REOPEN,)),
        E.EXPIRED: Step(S.LISTING, (A.CLOSE,)),
        E.WATCH_FORBIDDEN: Step(S.LISTING, (A.CLOSE,)),
        E.UNWATCHABLE: Step(S.LISTING, (A.CLOSE,)),
        E.CLOCK: Step(S.LISTING, (A.CLOSE,)),
        E.REMOVED: Step(S.GONE, (A.CANCEL_LIST, A.CLOSE)),
        E.SESSION_LOST: Step(S.LISTING, (A.CANCEL_LIST, A.CLOSE, A.LIST)),
        E.STAND_DOWN: Step(S.DRAINED, (A.CANCEL_LIST, A.CLOSE)),
        E.STOP: Step(S.DRAINED, (A.CANCEL_LIST, A.CLOSE)),
    },
    S.WATCHING: _FOLLOWED
    | {
        E.OVERDUE: Step(S.LISTING, (A.END, A.LIST)),
        E.RESYNC_DUE: Step(S.RESYNCING, (A.LIST,)),
        E.CLOSED: Step(S.RECONNECTING, (A.REOPEN,)),
        E.BROKEN: Step(S.RECONNECTING, (A.REOPEN,)),
    },
    S.RECONNECTING: _FOLLOWED
    | {
        E.OVERDUE: Step(S.LISTING, (A.END, A.LIST)),
        E.RESYNC_DUE: Step(S.RECONNECTING, (A.RETRY_RESYNC,)),
        E.OPENED: Step(S.WATCHING),
        E.CLOSED: Step(S.RECONNECTING, (A.REOPEN,)),
        E.BROKEN: Step(S.RECONNECTING, (A.REOPEN,)),
    },
    S.RESYNCING: {event: Step(to, (A.CANCEL_LIST, *actions)) for event, (to, actions) in _FOLLOWED.items()}
    | {
        E.LISTED: Step(S.WATCHING, (A.SCHEDULE_RESYNC,)),
        E.LISTED_ALONE: Step(S.WATCHING, (A.RETRY_RESYNC,)),
        E.LIST_FAILED: Step(S.WATCHING, (A.RETRY_RESYNC,)),
        E.LIST_FORBIDDEN: Step(S.WATCHING, (A.RETRY_RESYNC,)),
        E.CLOSED: Step(S.RESYNCING, (A.REOPEN,)),
        E.BROKEN: Step(S.RESYNCING, (A.REOPEN,)),
    },
    S.EXPIRED: {
        E.PAUSE_OVER: Step(S.LISTING, (A.LIST,)),
        E.REMOVED: Step(S.GONE),
        E.STAND_DOWN: Step(S.DRAINED),
        E.STOP: Step(S.DRAINED),
    },
    S.FORBIDDEN: _POLLED,
    S.POLLING: _POLLED,
    S.GONE: {
        E.TICK: Step(S.LISTING, (A.LIST,)),
        E.STAND_DOWN: Step(S.DRAINED),
        E.STOP: Step(S.DRAINED),
    },
    S.DRAINED: {},
}
"""What is not named changes nothing: `advance` knows every pair."""

FOLLOWED: Final = frozenset({S.WATCHING, S.RECONNECTING, S.RESYNCING})
"""States in which what is watched is sent."""


def advance(state: State, event: Event) -> Step:
    """Where `event` leads from `state`. Total: an event that means nothing there leads nowhere and asks for nothing."""
    return TABLE[state].get(event, Step(state))
