"""Guards of following in Python: a condition, an order, a bound in a function, what comes instead, and who misses it.

Each way in which a claim about a followed cluster could be false is held off by some guard. Those in the merge's SQL
stand in `missed.py`; these are in Python, in the collector as well. A guard is known by its words within a function.
Without it the function runs with other words in their place: in this process, for whoever has imported it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from types import CodeType, FunctionType

from tests.model.missed import MISSED_BY

WATCH = "tests/unit/kubernetes/test_watch.py::"
FOLLOWERS = "tests/unit/kubernetes/test_following.py::"
LIVE = "tests/unit/kubernetes/test_live.py::"
LISTS = "tests/unit/kubernetes/test_list_source.py::"
NUMBERS = "tests/unit/postgres/merge/test_numbers.py::"
OUTBOX = "tests/unit/kafka/test_outbox.py::"
LANES = "tests/unit/test_numbering.py::"
MERGE = "tests/integration/test_postgres_following.py::"


@dataclass(frozen=True)
class CodeGuard:
    """`words` of `function` (module:name), which keep `rule`, become `instead`; the test `missed_by` then fails."""

    rule: str
    function: str
    words: str
    instead: str
    missed_by: str

    @property
    def name(self) -> str:
        return self.rule

    @property
    def guard(self) -> CodeGuard:
        """Itself: beside the `Mutation` of a guard in SQL."""
        return self

    @property
    def file(self) -> str:
        """Within the repository."""
        return f"{self.function.partition(':')[0].replace('.', '/')}.py"


CODE_GUARDS = (
    CodeGuard(
        "a first list counts from the number that is due when it is complete",
        "clusterinfo.kubernetes.following:_BesideList.complete",
        "follower.list_from if self._is_resync else follower.next_number()", "follower.list_from",
        FOLLOWERS + "test_from_which_number_a_list_counts[False]",
    ),
    CodeGuard(
        "a list beside a watch counts from the number that was due when it began",
        "clusterinfo.kubernetes.following:_BesideList.complete",
        "follower.list_from if self._is_resync else", "",
        FOLLOWERS + "test_from_which_number_a_list_counts[True]",
    ),
    CodeGuard(
        "a list proves nothing beside a number that is missing",
        "clusterinfo.postgres.merge.lists:close_lists", "if not opening.is_proven", "if False",
        MERGE + "test_a_list_heals_no_hole_in_what_was_said_while_it_ran[never]",
    ),
    CodeGuard(
        "a list below what a watch has shown runs backwards",
        "clusterinfo.kubernetes.following:Follower._open_list",
        "max(self._newest, self.watch.version if self.watch else 0)", "self._newest",
        FOLLOWERS + "test_a_list_is_not_below_what_was_watched[True]",
    ),
    CodeGuard(
        "nor below what one before it has shown",
        "clusterinfo.kubernetes.following:Follower._drop", "max(self._newest, watch.version)", "self._newest",
        FOLLOWERS + "test_a_list_is_not_below_what_was_watched[False]",
    ),
    CodeGuard(
        "a server that has not come to the version ends the watch",
        "clusterinfo.kubernetes.watch:_refused", 'if "too large resource version" in str(error).lower()', "if False",
        WATCH + "test_what_cannot_be_continued_is_over[answer1-Event.EXPIRED]",
    ),
    CodeGuard(
        "so does an event, or a deletion, that is not above it",
        "clusterinfo.kubernetes.watch_events:version_above", "or number <= position", "",
        WATCH + "test_what_cannot_be_continued_is_over[answer8-Event.EXPIRED]",
    ),
    CodeGuard(
        "and a bookmark below it",
        "clusterinfo.kubernetes.watch_events:bookmark_version", "or number < position", "",
        WATCH + "test_what_cannot_be_continued_is_over[answer9-Event.EXPIRED]",
    ),
    CodeGuard(
        "and what has no identity that can be kept",
        "clusterinfo.kubernetes.watch:WatchSource._add", "raise WatchOverError(Event.EXPIRED, why)", "return",
        WATCH + "test_what_cannot_be_continued_is_over[answer12-Event.EXPIRED]",
    ),
    CodeGuard(
        "and a second renewal without a word",
        "clusterinfo.kubernetes.watch:WatchSource._renewed", "if self._wordless < WORDLESS_RENEWALS", "if True",
        WATCH + "test_a_server_without_a_word_is_left",
    ),
    CodeGuard(
        "a connection that is silent for two minutes is given up",
        "clusterinfo.kubernetes.watch:WatchSource._next_chunk", "self._context.silence_s", "86400.0",
        WATCH + "test_a_silence_is_bounded",
    ),
    CodeGuard(
        "a watch that was silent for so long is behind",
        "clusterinfo.kubernetes.watch:WatchSource.is_behind",
        "or (now - self._handed_over).total_seconds() > self._context.silence_s", "",
        WATCH + "test_heard_is_no_later_than_what_was_handed_over",
    ),
    CodeGuard(
        "so is one that was never answered",
        "clusterinfo.kubernetes.watch:WatchSource.is_behind", "not self.was_answered or", "",
        WATCH + "test_until_it_is_answered_it_is_behind",
    ),
    CodeGuard(
        "a server without bookmarks is asked for short watches",
        "clusterinfo.kubernetes.watch:WatchSource._read_to_the_end",
        "LASTS_S if self._has_bookmarks else LASTS_SILENT_S", "LASTS_S",
        WATCH + "test_a_server_without_a_word_is_left",
    ),
    CodeGuard(
        "what was read counts as heard once it was handed over to be numbered",
        "clusterinfo.kubernetes.watch:WatchSource._handed_over",
        "self._pending[0].heard_before if self._pending else self._heard", "self._heard",
        WATCH + "test_heard_is_no_later_than_what_was_handed_over",
    ),
    CodeGuard(
        "while more waits to be read, nothing is heard",
        "clusterinfo.kubernetes.watch:WatchSource._read_to_the_end", "if self._is_drained:", "if True:",
        WATCH + "test_while_more_has_come_it_is_not_heard[False]",
    ),
    CodeGuard(
        "progress claims what was heard, not the time at which it is said",
        "clusterinfo.kubernetes.following:progress_of", "min(heard or [one.since for one in behind])", "now",
        FOLLOWERS + "test_progress_claims_what_was_heard_and_not_the_present",
    ),
    CodeGuard(
        "of a watch that is behind it claims nothing",
        "clusterinfo.kubernetes.following:progress_of",
        "for watch in watches if watch.is_behind(now)", "for watch in ()",
        FOLLOWERS + "test_progress_claims_what_was_heard_and_not_the_present",
    ),
    CodeGuard(
        "and so do consumers",
        "clusterinfo.postgres.merge.numbers:Session.progressed", "min(progress.heard, now)", "now",
        NUMBERS + "test_a_progress_that_comes_late_says_nothing_new",
    ),
    CodeGuard(
        "what is not confirmed is sent again in order, under the same numbers",
        "clusterinfo.kafka.outbox:Outbox._send_first", "islice(self._records, LOOKED_AT)",
        "islice(reversed(self._records), LOOKED_AT)",
        OUTBOX + "test_what_is_not_confirmed_is_sent_again_in_order_under_the_same_numbers",
    ),
    CodeGuard(
        "a number belongs to one record for ever",
        "clusterinfo.kafka.outbox:Outbox._send_first", "list(islice(self._records, LOOKED_AT))",
        "[msgspec.structs.replace(one, number=n) for n, one in enumerate(self._records, 1)]",
        OUTBOX + "test_what_is_not_confirmed_is_sent_again_in_order_under_the_same_numbers",
    ),
    CodeGuard(
        "a number that comes after all closes its gap",
        "clusterinfo.postgres.merge.numbers:Session.take", "tuple(_without(self.missing, number))", "self.missing",
        NUMBERS + "test_whatever_order_numbers_come_in_those_are_missing_that_have_not",
    ),
    CodeGuard(
        "a session keeps 64 gaps",
        "clusterinfo.postgres.merge.numbers:Session.take", "if len(gaps) > MAX_GAPS", "if False",
        NUMBERS + "test_of_gaps_that_are_too_many_the_oldest_become_one",
    ),
    CodeGuard(
        "a hole cuts the interval, also once it has closed",
        "clusterinfo.postgres.merge.sessions:store_sessions",
        "await cut_coverage(connection, [event.session.id], [])", "pass",
        MERGE + "test_a_hole_in_the_same_batch_as_what_closes_it_cuts_as_well",
    ),
    CodeGuard(
        "a list that is proven after a hole opens a cut interval",
        "clusterinfo.postgres.merge.coverage:open_coverage", "None if one.is_cut else one.seen_at", "one.seen_at",
        MERGE + "test_what_came_too_late_before_its_list_was_complete_cuts_as_well",
    ),
    CodeGuard(
        "a watch is opened again at what is confirmed",
        "clusterinfo.kubernetes.watch:WatchSource.restart", "self._version = self.confirmed", "pass",
        WATCH + "test_after_a_restart_it_goes_on_from_what_is_confirmed",
    ),
    CodeGuard(
        "a bookmark counts once all before it is confirmed",
        "clusterinfo.kubernetes.watch:WatchSource._add_bookmark", "if self._pending:", "if False:",
        WATCH + "test_a_bookmark_counts_once_all_before_it_is_confirmed",
    ),
    CodeGuard(
        "a kind is followed by a set of sessions",
        "clusterinfo.postgres.merge.coverage:chosen", "(one.unit_id, one.reach, one.session_id)",
        "(one.unit_id, one.reach, 0)",
        MERGE + "test_a_list_that_raises_no_floor_is_followed[True]",
    ),
    CodeGuard(
        "an end closes what its own session follows",
        "clusterinfo.postgres.merge.coverage:end_coverage", "[ended.session.id]", "range(100)",
        MERGE + "test_one_session_goes_on_when_another_ends",
    ),
    CodeGuard(
        "and of that what began before it",
        "clusterinfo.postgres.merge.coverage:end_coverage", "and row.from_number <= ended.number", "",
        MERGE + "test_an_end_that_comes_late_closes_nothing_that_began_since",
    ),
    CodeGuard(
        "a list whose watch has ended since opens nothing",
        "clusterinfo.postgres.merge.coverage:chosen", "not one.is_over and", "",
        MERGE + "test_an_end_closes_what_was_followed_before_it[False]",
    ),
    CodeGuard(
        "a list beside a watch that has ended names no session",
        "clusterinfo.kubernetes.following:_BesideList.complete", "or watch.is_over", "",
        FOLLOWERS + "test_a_list_whose_watch_is_gone_names_no_session[over]",
    ),
    CodeGuard(
        "nor one beside a watch that another has replaced",
        "clusterinfo.kubernetes.following:_BesideList.complete", "or watch is not follower.watch", "",
        FOLLOWERS + "test_a_list_whose_watch_is_gone_names_no_session[replaced]",
    ),
    CodeGuard(
        "a list at the floor follows; only one above raises it",
        "clusterinfo.postgres.merge.lists:_follow", "one.list in accepted and", "one.list in deleted and",
        MERGE + "test_a_list_that_raises_no_floor_is_followed[True]",
    ),
    CodeGuard(
        "a resync that fails ends nothing",
        "clusterinfo.kubernetes.live:advance", "return TABLE",
        "return Step(State.POLLING) if event is Event.LIST_FAILED else TABLE",
        LIVE + "test_a_resync_that_fails_ends_nothing",
    ),
    CodeGuard(
        "what is not followed is listed every COLLECT_INTERVAL",
        "clusterinfo.kubernetes.live:advance", "return TABLE", "return Step(state) if event is Event.TICK else TABLE",
        LIVE + "test_what_is_not_followed_is_listed_at_the_next_interval[State.POLLING]",
    ),
    CodeGuard(
        "a list beside a watch waits until that has come to its version",
        "clusterinfo.kubernetes.following:_BesideList.began",
        "or not await self._watch.reaches(number, REACH_WITHIN_S)", "",
        FOLLOWERS + "test_a_list_that_overtakes_its_watch_says_nothing_of_it",
    ),
    CodeGuard(
        "a version that came too late to be kept cuts the interval",
        "clusterinfo.postgres.merge.sessions:_cut_late", "if lost:", "if False:",
        MERGE + "test_what_comes_too_late_to_be_kept_cuts_an_interval[False-1]",
    ),
    CodeGuard(
        "the next interval begins at the progress's time, not where it was heard",
        "clusterinfo.postgres.merge.sessions:_begin", "event.said_at for", "event.session.heard for",
        MERGE + "test_a_hole_ends_what_is_followed_until_it_closes[True]",
    ),
    CodeGuard(
        "a list dates itself when its first page had come",
        "clusterinfo.kubernetes.list_source:ListSource._page_records",
        "            if self._list.version is None:\n                self._seen = self._context.now()",
        "            if True:\n                self._seen = self._context.now()",
        LISTS + "test_all_pages_are_dated_by_the_first",
    ),
    CodeGuard(
        "and says so where it names a session",
        "clusterinfo.kubernetes.following:_BesideList.began", "self._seen, self.is_named = seen, False",
        "self._seen, self.is_named = seen.min.replace(tzinfo=dt.UTC), False",
        FOLLOWERS + "test_a_list_says_when_its_first_page_had_come",
    ),
    CodeGuard(
        "where the interval begins",
        "clusterinfo.postgres.merge.numbers:listen", "min(statement.seen or now, now)", "now",
        MERGE + "test_what_a_list_lacks_was_there_until_its_first_page_came[False]",
    ),
    CodeGuard(
        "an interval that is cut ends where it was heard, not now",
        "clusterinfo.postgres.merge.coverage:cut_coverage", "(row, row.heard) for row in cut",
        "(row, dt.datetime.now(dt.UTC)) for row in cut",
        MERGE + "test_a_hole_ends_what_is_followed_until_it_closes[False]",
    ),
    CodeGuard(
        "a watch that ended was heard until then, not until that is said",
        "clusterinfo.kubernetes.watch:WatchSource.end", "self.told(self.heard)", "self.told(self._context.now())",
        WATCH + "test_what_was_read_before_the_end_is_sent_and_then_that_it_ended",
    ),
    CodeGuard(
        "an interval that was not heard since it began is none",
        "clusterinfo.postgres.merge.coverage:_close", "and heard >= row.begins_at", "",
        MERGE + "test_what_was_not_heard_since_it_began_leaves_no_interval",
    ),
    *(
        CodeGuard(
            f"no {what} is after the database's present",
            f"clusterinfo.postgres.merge.numbers:{function}", f"min({value}, now)", value,
            f"{MERGE}test_what_is_said_is_not_after_the_present[{case}]",
        )
        for what, function, value, case in (
            ("heard", "Session.progressed", "progress.heard", "heard"),
            ("seen", "listen", "statement.seen or now", "seen"),
            ("time of a progress", "_count", "record.observed_at", "said after a hole"),
            ("end", "_count", "unit.since", "ended"),
            ("since of what is behind", "_shown", "unit.since", "behind"),
        )
    ),
    CodeGuard(
        "what a list corrects was not followed since the list before",
        "clusterinfo.postgres.merge.lists:_follow", "await take_back(connection, drifted)", "pass",
        MERGE + "test_what_a_list_again_corrects_is_drift_and_was_not_followed",
    ),
    CodeGuard(
        "the watch is opened when the first page has come",
        "clusterinfo.kubernetes.following:_BesideList.began", "if number is not None and follower.may_be_watched",
        "if False",
        FOLLOWERS + "test_a_list_says_when_its_first_page_had_come",
    ),
    *(
        CodeGuard(
            f"a kind that is {what} is not followed any more",
            f"clusterinfo.postgres.merge.{function}", words, "pass",
            f"{MERGE}test_whatever_marks_a_kind_unverified_ends_its_following[{what}]",
        )
        for what, function, words in (
            ("gone", "coverage:mark_units_unverified",
             "await _close(connection, [(row, row.heard) for row in map(Followed._make, rows)])"),
            ("by clock", "units:_describe", "await mark_units_unverified(connection, by_clock, now)"),
            ("stalled", "lists:_find_refuted",
             "await mark_units_unverified(connection, unverified, max(state.at for state in refuted.values()))"),
        )
    ),
    CodeGuard(
        "what is watched of a kind that the clock orders is ignored",
        "clusterinfo.postgres.merge.staging:stage", "if not (record.number and unit.by_clock)", "if True",
        MERGE + "test_what_is_watched_of_a_kind_that_the_clock_orders_is_ignored",
    ),
    CodeGuard(
        "a list begun before a kind was marked unverified opens nothing",
        "clusterinfo.postgres.merge.coverage:chosen", "and not one.is_unverified", "",
        MERGE + "test_only_a_list_begun_after_the_mark_is_followed[4]",
    ),
    *(
        CodeGuard(
            f"a session is another one on each {what}",
            "clusterinfo.postgres.merge.sessions:place_of", words, instead,
            f"{MERGE}test_what_came_elsewhere_has_not_come_here[{case}]",
        )
        for what, words, instead, case in (
            ("topic", "lane.topic", '""', "topic"),
            ("Kafka cluster", "lane.kafka_cluster", '""', "kafka"),
        )
    ),
    CodeGuard(
        "without Kafka on each kind and reach",
        "clusterinfo.postgres.merge.sessions:place_of", 'f"{lane.unit.dotted}/{lane.reach}"', '""',
        MERGE + "test_without_kafka_each_kind_and_reach_counts_for_itself",
    ),
    CodeGuard(
        "and each watch numbers for itself, in order",
        "clusterinfo.numbering:NumberingLanes.write", "async with count.turn:", "if True:",
        LANES + "test_each_watch_counts_for_itself_and_is_stored_in_order",
    ),
    CodeGuard(
        "the first number of a session is one",
        "clusterinfo.postgres.merge.numbers:Session.take",
        "if number > self.next_number", "if number > self.next_number > 1",
        MERGE + "test_the_first_number_of_a_session_is_one",
    ),
    CodeGuard(
        "a dead letter moves no number",
        "clusterinfo.postgres.merge.apply:apply", "if id(one[0]) not in staged.refused", "",
        MERGE + "test_what_is_set_aside_moves_no_number[dead letter]",
    ),
    CodeGuard(
        "a replay counts none",
        "clusterinfo.postgres.merge.apply:apply", "if hears else []", "",
        MERGE + "test_a_replay_counts_no_number",
    ),
    CodeGuard(
        "progress costs a second for each partition",
        "clusterinfo.kubernetes.following:_progress_s", "max(PROGRESS_S, float(len(followed)))", "PROGRESS_S",
        FOLLOWERS + "test_progress_is_said_in_one_place_a_second",
    ),
)  # fmt: skip


SQL_GUARDS = (
    ("rows that were watched above a list refute it", "find_backwards", "and exists (...)"),
    (
        "sessions are kept apart by Kafka cluster, topic and partition",
        "lock_units",
        "where (w.kafka_cluster, w.topic, w.partition",
    ),
    ("of several sessions each has its row", "open_coverage", "on conflict (unit_id, reach, session_id) where"),
    ("a list begun before a mark opens nothing", "find_openings", "or list_began_at(p.list, p.completed_at) <= u.unv"),
    ("a kind that the clock orders is not followed", "find_openings", "u.by_clock or"),
    ("only what is in neither row nor history is lost", "find_unkept", "where not exists (...)"),
    ("what a list corrects is taken back of that session alone", "take_back_coverage", "where (session_id, unit_id, r"),
)
"""Rules that are kept in SQL: statement and words as in `missed.py`, where the tests stand that miss them."""


def rows_of_guards() -> list[list[str]]:
    """What could be claimed falsely of what is followed, by the rule against it: rule, place, who misses it."""
    in_code = [
        [one.rule, f"`{one.file.rpartition('/')[2]}`, `{_short(one.function)}`", one.missed_by] for one in CODE_GUARDS
    ]
    in_sql = [
        [rule, f"`merge/*.sql`, `{statement}`", test]
        for rule, statement, words in SQL_GUARDS
        for test, listed in MISSED_BY[statement].items()
        if any(one.startswith(words) for one in listed)
    ]
    return [[rule, place, f"`{test.rpartition('::')[2]}`"] for rule, place, test in (*in_code, *in_sql)]


def _short(function: str) -> str:
    return function.partition(":")[2].rpartition(".")[2]


def _function(guard: CodeGuard) -> FunctionType:
    module, _, path = guard.function.partition(":")
    owner = import_module(module)
    *within, name = path.split(".")
    found = inspect.getattr_static(reduce(getattr, within, owner), name)
    found = found.fget if isinstance(found, property) else found
    assert isinstance(found, FunctionType)
    return found


def changed(guard: CodeGuard) -> CodeType:
    """The code of its function without the guard. Raises ValueError unless its words are there once."""
    function = _function(guard)
    source = inspect.getsource(function)
    if source.count(guard.words) != 1:
        raise ValueError(f"{guard.function} has {guard.words!r} {source.count(guard.words)} times")
    [definition] = ast.parse(textwrap.dedent(source.replace(guard.words, guard.instead))).body
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    definition.decorator_list = []
    definition.args.defaults, definition.args.kw_defaults = [], [None for _ in definition.args.kwonlyargs]
    module = compile(ast.Module([definition], []), guard.file, "exec")  # with this module's future statements
    return next(one for one in module.co_consts if isinstance(one, CodeType))


@contextmanager
def without_code(guard: CodeGuard) -> Iterator[None]:
    """The program without this guard, in this process; nothing on disk is touched."""
    function = _function(guard)
    code, function.__code__ = function.__code__, changed(guard)
    try:
        yield
    finally:
        function.__code__ = code
