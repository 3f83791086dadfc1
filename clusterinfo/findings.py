"""What `clusterinfo doctor` finds: a line for each check, with a remedy. Pure: who asks, and whom, is elsewhere.

An examination says which check it is at before it asks, so that whatever ends it has a name.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import StrEnum

from clusterinfo.durations import short_duration

CLOCK_WARNED_S = 30.0
CLOCK_FAILED_S = 300.0
"""What is dated further ahead of the database's present is not believed: `postgres/merge/admission.py`."""
CLOCK_REMEDY = "synchronize both clocks (NTP): dates order what is stored, and certificates and tokens have dates, too"


class State(StrEnum):
    """How a check came out; `UNKNOWN`: the other side does not tell."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `remedy`: what to do, "" where nothing is to be done."""

    check: str
    state: State
    found: str
    remedy: str = ""


@dataclass(slots=True)
class Findings:
    """The lines of one examination, in order. `check`: what it is at; `remedy`: what to do if that does not answer."""

    check: str = ""
    remedy: str = ""
    lines: list[Finding] = field(default_factory=list)

    def begin(self, check: str, remedy: str = "") -> None:
        """From here on it is about `check`."""
        self.check, self.remedy = check, remedy

    def note(self, state: State, found: str, remedy: str = "") -> None:
        """A line about the check."""
        self.lines.append(Finding(self.check, state, found, remedy))

    def ok(self, found: str) -> None:
        """The check passed."""
        self.note(State.OK, found)

    def fail(self, error: BaseException | str) -> None:
        """The check failed: with what an error of ours has behind its last semicolon as the remedy, or the check's."""
        found, semicolon, remedy = str(error).rpartition("; ")
        if semicolon:
            self.note(State.FAILED, found, remedy)
        else:
            self.note(State.FAILED, str(error), self.remedy)

    def compare_clock(self, theirs: dt.datetime, before: dt.datetime, after: dt.datetime, step_s: float = 0.0) -> None:
        """A line on their clock, read between `before` and `after` of ours. `step_s`: it shows only whole ones."""
        ahead_s = clock_ahead_s(theirs, before, after, step_s)
        if abs(ahead_s) < CLOCK_WARNED_S:
            self.ok("agrees with this machine's" if abs(ahead_s) < 1 else _apart(ahead_s))
        else:
            state = State.FAILED if abs(ahead_s) > CLOCK_FAILED_S else State.WARNING
            self.note(state, _apart(ahead_s), CLOCK_REMEDY)


def clock_ahead_s(theirs: dt.datetime, before: dt.datetime, after: dt.datetime, step_s: float = 0.0) -> float:
    """By how many seconds their clock is ahead of ours at least (negative: behind); 0 if it may be right."""
    if theirs > after:
        return (theirs - after).total_seconds()
    return min(0.0, (theirs - before).total_seconds() + step_s)


def _apart(ahead_s: float) -> str:
    return f"{short_duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
