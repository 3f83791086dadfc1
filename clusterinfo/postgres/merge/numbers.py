"""Numbers: what a session has said by watching, counted, and what that means for what it follows. Pure.

Theory of operation. A session (one collector in one life) numbers all that it says by watching on a partition: 1, 2,
3... The number that is due comes next; a lower one was here before; a higher one leaves a hole, which closes if the
missing ones come after all (sent again). What is stored of a kind is all there was, from a number on, as long as none
is missing since then: rows are a commutative merge, whichever order they come in.

A *progress* says up to when its watches were *heard*, all that they showed until then being numbered before it: where
no number is missing, what is stored is right as of then. An *end* names kinds whose watch is over. The history is not
commutative: what comes late may be older than what took its place, so that a hole *cuts* the interval of time in which
all changes are known; the next one begins with the next progress.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from clusterinfo.model import Record
from clusterinfo.postgres.merge.bodies import plain
from clusterinfo.statements import ListCompleted, WatchedUnit, WatchEnded, WatchProgress

MAX_GAPS = 64
"""Gaps of a session that are kept apart. Brokers that hiccup leave one or two."""

Gap = tuple[int, int]
"""The first number that is missing, and the next one that is not."""

SessionKey = tuple[str, str]
"""(Identity of the cluster, session)."""

Said = tuple[Record, ListCompleted | WatchProgress | WatchEnded | None]
"""A record that is numbered, or completes a list of a unit that is followed, with the statement that it is."""


class Session(msgspec.Struct, frozen=True):
    """A session on a partition: the numbers that came, and what its newest progress said."""

    id: int
    next_number: int = 1
    missing: tuple[Gap, ...] = ()
    heard: dt.datetime | None = None
    heard_number: int = 0
    """Of its newest progress."""
    behind: str = "[]"
    """JSON, as the column holds it."""
    ended: Mapping[str, int] = {}
    """Group/resource/reach of a watch -> the number under which it last ended."""
    interval_s: float = 0.0
    is_unverified: bool = False
    """True after messages of the partition were lost, until the next number shows whether any of this session were."""
    cut_number: int = 0
    """The highest that came out of order, or too late to be kept."""

    def leaves_a_hole(self, number: int) -> bool:
        """True if numbers before this one have not come."""
        return number > self.next_number

    def is_first(self, number: int) -> bool:
        """True if this number has not come before."""
        return number >= self.next_number or any(start <= number < end for start, end in self.missing)

    def take(self, number: int) -> Session:
        """After this number has come."""
        if number < self.next_number:
            return replace(self, missing=tuple(_without(self.missing, number)), is_unverified=False)
        gaps, cut_number = self.missing, self.cut_number
        if number > self.next_number:
            cut_number = number - 1
            gaps = (*gaps, (self.next_number, number))
            if len(gaps) > MAX_GAPS:
                gaps = ((gaps[0][0], gaps[1][1]), *gaps[2:])
        return replace(self, missing=gaps, next_number=number + 1, is_unverified=False, cut_number=cut_number)

    def progressed(self, number: int, progress: WatchProgress, now: dt.datetime) -> Session:
        """After a progress; one that comes late says nothing that is not known."""
        if number <= self.heard_number:
            return self
        return replace(
            self,
            heard=min(progress.heard, now),
            heard_number=number,
            behind=json.dumps([_shown(unit, now) for unit in progress.behind]),
            interval_s=progress.interval_s,
        )

    def without(self, number: int, units: Iterable[WatchedUnit]) -> Session:
        """After the watches of these units have ended."""
        names = [f"{plain(unit.group)}/{plain(unit.resource)}/{plain(unit.reach)}" for unit in units]
        return replace(self, ended={**self.ended, **{name: max(number, self.ended.get(name, 0)) for name in names}})


def _without(gaps: Iterable[Gap], number: int) -> Iterable[Gap]:
    for start, end in gaps:
        if start <= number < end:
            yield from (gap for gap in ((start, number), (number + 1, end)) if gap[0] < gap[1])
        else:
            yield start, end


def _shown(unit: WatchedUnit, now: dt.datetime) -> dict[str, str]:
    since = min(unit.since, now).isoformat()
    return {
        "group": plain(unit.group),
        "resource": plain(unit.resource),
        "reach": plain(unit.reach),
        "since": since,
    }


# --- a batch ---------------------------------------------------------------------------------------------------------


Place = tuple[str, str, int]
"""(Kafka cluster, topic, partition)."""


@dataclass(frozen=True, slots=True)
class Speaking:
    """The sessions that a batch names on a partition, and the numbers by which they may go on where they are locked."""

    place: Place
    runs: Mapping[SessionKey, tuple[int, int]]
    """In order, of each the first number it says, and the one after those that follow that; (0, 0): it says none."""

    @classmethod
    def of(cls, place: Place, said: Iterable[Said]) -> Speaking:
        """What a batch says there."""
        runs: dict[SessionKey, tuple[int, int]] = {}
        for record, statement in said:
            key, number = key_of(record, statement), record.number
            first, after = runs.get(key, (number, number))
            runs[key] = (first, after + 1) if number == after and number else (first, after)
        return cls(place, dict(sorted(runs.items())))

    def __bool__(self) -> bool:
        return bool(self.runs)

    def without(self, sessions: Collection[SessionKey]) -> Speaking:
        """The others."""
        return Speaking(self.place, {key: run for key, run in self.runs.items() if key not in sessions})

    def moved(self, sessions: Mapping[SessionKey, Session]) -> dict[int, Session]:
        """Those of these, as they were, whose first number was due: as they are stored since they were locked."""
        return {
            sessions[key].id: replace(sessions[key], next_number=after, is_unverified=False)
            for key, (first, after) in self.runs.items()
            if sessions[key].next_number == first
        }


@dataclass(frozen=True, slots=True)
class Cut:
    """A hole opens: the intervals of all that this session follows end with what it has said so far."""

    session: Session


@dataclass(frozen=True, slots=True)
class Ended:
    """Watches have ended, under this number; `session` as it is since."""

    session: Session
    number: int
    units: list[WatchedUnit]


@dataclass(frozen=True, slots=True)
class Progressed:
    """Intervals that were cut begin again, if nothing is missing up to this number."""

    session: Session
    number: int
    said_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Named:
    """A completed list names a session: which, from which number on, what was due, and when its first page had come."""

    session_id: int
    from_number: int
    place: int
    seen_at: dt.datetime


@dataclass(slots=True)
class Heard:
    """What a batch's numbers come to."""

    sessions: dict[SessionKey, Session]
    """As they are after the batch."""
    counted: set[SessionKey] = field(default_factory=set)
    """Those of which a number came; the others are named by lists."""
    first: dict[int, int] = field(default_factory=dict)
    """id() of a record that came for the first time -> id of its session's row."""
    events: list[Cut | Ended | Progressed] = field(default_factory=list)
    """In their order."""
    named: dict[str, Named] = field(default_factory=dict)
    """By list."""
    stored: dict[int, Session] = field(default_factory=dict)
    """By the id of its row what was written of a session since it was locked."""

    def cut(self, late: Record) -> None:
        """A record came too late to be kept: what is followed from its number on begins with a progress."""
        key = late.cluster, late.session
        session = self.sessions[key]
        self.sessions[key] = replace(session, cut_number=max(session.cut_number, late.number))

    def mark_unverified(self) -> None:
        """All sessions of the partition were, since messages are gone: a number that came proves its session again."""
        self.stored.clear()
        for key, session in self.sessions.items():
            if key not in self.counted:
                self.sessions[key] = replace(session, is_unverified=True)


def listen(said: Iterable[Said], sessions: Mapping[SessionKey, Session], now: dt.datetime) -> Heard:
    """Take in what a batch says, in order; `sessions` has all that it names, `now` is the database's present."""
    heard = Heard(dict(sessions))
    for record, statement in said:
        if isinstance(statement, ListCompleted):
            session = heard.sessions[record.cluster, statement.session]
            seen_at = min(statement.seen or now, now)
            heard.named[record.list] = Named(session.id, statement.from_, session.next_number, seen_at)
        else:
            _count(heard, record, statement, now)
    return heard


def _count(heard: Heard, record: Record, statement: WatchProgress | WatchEnded | None, now: dt.datetime) -> None:
    key, number = (record.cluster, record.session), record.number
    session = heard.sessions[key]
    heard.counted.add(key)
    if session.is_first(number):
        heard.first[id(record)] = session.id
    if session.leaves_a_hole(number):
        heard.events.append(Cut(session))
    session = session.take(number)
    if isinstance(statement, WatchProgress):
        before, session = session, session.progressed(number, statement, now)
        if session is not before:  # one that comes again was said before the holes that came since
            heard.events.append(Progressed(session, number, min(record.observed_at, now)))
    elif isinstance(statement, WatchEnded):
        units = [replace(unit, since=min(unit.since, now)) for unit in statement.units]
        session = session.without(number, units)
        heard.events.append(Ended(session, number, units))
    heard.sessions[key] = session


def key_of(record: Record, statement: ListCompleted | WatchProgress | WatchEnded | None) -> SessionKey:
    """The session that a record is about."""
    return record.cluster, statement.session if isinstance(statement, ListCompleted) else record.session
