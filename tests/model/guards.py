"""The guards of an SQL statement, found in its text, and the statement without each of them.

A guard is what a statement would also run without: a condition after `where`, `on`, `having` or `when`, each further
one after `and` or `or`, `for update`, an `on conflict` clause, an order, a limit, and what greatest, least, coalesce
and nullif do to their first or last argument. It is known by its own words, so that what is said of it
(`mutations.py`) goes out of date with it. A condition stays where it was and counts for nothing, so that parameters
keep their types. Knows the SQL that this project writes, not all of SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from textwrap import shorten

_TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\$\d+|[\w.]+|::|[<>=!]+|\S")
_CONDITION_ENDS = {
    "where", "group", "having", "order", "limit", "for", "window", "returning", "union", "join", "left", "full",
    "cross", "using", "on", "set", "from", "when", "then", "else", "as", "offset", ",", ";",
}  # fmt: skip
"""What ends a condition, unless it is in parentheses of its own."""
_BEFORE_OPERAND = frozenset({"select", "where", "on", "having", "when", "then", "else", "or", "set", ","})
MOST_CHARACTERS = 96
"""Of the words that a guard is known by: they are to fit a line."""
_FUNCTIONS = frozenset({"greatest", "least", "coalesce", "nullif"})


@dataclass(frozen=True)
class Guard:
    """One guard: the words it is known by, and the text of its statement without it."""

    statement: str
    words: str
    without: str

    @property
    def name(self) -> str:
        return f"{self.statement}: {self.words}"


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int
    depth: int
    """Of parentheses, and of case ... end; the words that open and close one stand outside."""


@dataclass(frozen=True)
class _Cut:
    """What becomes of the tokens from `first` to before `last`, and the range of those that the guard is known by."""

    first: int
    last: int
    words: tuple[int, int]
    instead: Callable[[str], str]


def guards_of(statement: str, sql: str) -> list[Guard]:
    """All guards of `sql`, in their order; of words that stand there more than once, the others are numbered."""
    tokens = _tokens(sql)
    found: list[Guard] = []
    for cut in _cuts(tokens):
        start, end = tokens[cut.first].start, tokens[cut.last - 1].end
        without = sql[:start] + cut.instead(sql[start:end]) + sql[end:]
        words = _words(tokens[cut.words[0] : cut.words[1]], sql)
        again = sum(guard.words.partition(" #")[0] == words for guard in found)
        found.append(Guard(statement, f"{words} #{again + 1}" if again else words, without))
    return found


def _words(tokens: list[_Token], sql: str) -> str:
    """What `tokens` say, on one line, what a subquery says left out."""
    kept: list[str] = []
    last, inside = tokens[0].start, None
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if inside is None:
            kept.append(sql[last : token.end])
            if following and token.text == "(" and following.text == "select":
                inside = token.depth
                kept.append("...")
        elif token.depth == inside:
            inside = None
            kept.append(token.text)
        last = token.end
    words = " ".join("".join(kept).split()).replace("( ", "(").partition(" do update set ")
    return shorten(words[0] + words[1].removesuffix(" set "), MOST_CHARACTERS, placeholder=" ...")


def _tokens(sql: str) -> list[_Token]:
    tokens: list[_Token] = []
    depth = 0
    for match in _TOKEN.finditer(sql):
        text = match[0].lower()
        if text.startswith("--"):
            continue
        depth -= text in (")", "end")
        tokens.append(_Token(text, match.start(), match.end(), depth))
        depth += text in ("(", "case")
    return tokens


def _cuts(tokens: list[_Token]) -> Iterator[_Cut]:
    for at, token in enumerate(tokens):
        before, after = (tokens[n].text if 0 <= n < len(tokens) else "" for n in (at - 1, at + 1))
        if token.text in ("where", "having", "when") or (token.text == "on" and _joins(before, after)):
            yield from _condition(tokens, at)
        elif token.text == "and":
            end = _end(tokens, at + 1, "and", "or")
            yield _Cut(at + 1, end, (at, end), _always)
            start = _start(tokens, at, "and")
            if tokens[start - 1].text not in ("and", "where", "on", "having", "when"):
                yield _Cut(start, at, (start, at + 1), _always)
        elif token.text == "or":
            yield from _alternatives(tokens, at)
        elif token.text in _FUNCTIONS and after == "(":
            yield from _arguments(tokens, at)
        elif (end := _end_of_clause(tokens, at, after)) > at:
            instead = "order by random()" if token.text == "order" and _is_of_a_window(tokens, at) else ""
            yield _Cut(at, end, (at, end), partial(_replaced, instead=instead))


def _is_of_a_window(tokens: list[_Token], at: int) -> bool:
    """Rows of a window keep their order even without the clause, as long as something before it has sorted them."""
    start = at
    while start and tokens[start - 1].depth >= tokens[at].depth:
        start -= 1
    return tokens[start].text == "partition"


def _replaced(_: str, instead: str) -> str:
    return instead


def _always(condition: str) -> str:
    return f"({condition} or true)"


def _never(condition: str) -> str:
    return f"(({condition}) and false)"


def _no_value(value: str) -> str:
    return f"nullif({value}, {value})"


def _joins(before: str, after: str) -> bool:
    """True if an `on` between these is a join's; not: distinct on, on conflict, on commit, on true."""
    return before != "distinct" and after not in ("conflict", "commit", "true")


def _condition(tokens: list[_Token], at: int) -> Iterator[_Cut]:
    """`where a and b`: without a. `when a and b then`: never, and without a."""
    if tokens[at].text == "when":
        end = _end(tokens, at + 1)
        yield _Cut(at + 1, end, (at, end + 1), _no_value if _compares(tokens, at) else _never)
        if _compares(tokens, at):
            return
    end = _end(tokens, at + 1, "and", "or")
    if tokens[at].text != "when" or tokens[end].text == "and":
        yield _Cut(at + 1, end, (at, end), _always)


def _alternatives(tokens: list[_Token], at: int) -> Iterator[_Cut]:
    """`a or b`: without b, and without a."""
    end = _end(tokens, at + 1, "or")
    yield _Cut(at + 1, end, (at, end), _never)
    start = _start(tokens, at)
    yield _Cut(start, at, (start, at + 1), _never)


def _start(tokens: list[_Token], at: int, *also: str) -> int:
    """Where the condition before the `and` or `or` at `at` begins."""
    start, depth = at, tokens[at].depth
    while tokens[start - 1].depth >= depth and not (
        tokens[start - 1].depth == depth and tokens[start - 1].text in _BEFORE_OPERAND.union(also)
    ):
        start -= 1
    if tokens[start - 1].text in ("set", ",") and tokens[start + 1].text == "=" and tokens[start].depth == 0:
        start += 2  # what is assigned
    return start


def _compares(tokens: list[_Token], at: int) -> bool:
    """True if this `when` is of a `case x when value then`, not of a `case when condition then`."""
    start = at
    while tokens[start].text != "case" or tokens[start].depth != tokens[at].depth - 1:
        start -= 1
    return tokens[start + 1].text != "when"


def _arguments(tokens: list[_Token], at: int) -> Iterator[_Cut]:
    """`coalesce(a, b)` and nullif: only a; greatest and least: only a, and only b."""
    depth = tokens[at].depth
    close = next(n for n in range(at + 2, len(tokens)) if tokens[n].depth == depth and tokens[n].text == ")")
    count = 1 + sum(token.text == "," and token.depth == depth + 1 for token in tokens[at:close])
    for which in (1, count) if tokens[at].text in ("greatest", "least") else (1,):
        yield _Cut(at, close + 1, (at, close + 1), partial(_element, which=which))


def _element(call: str, which: int) -> str:
    return f"(array[{call[call.index('(') + 1 : -1]}])[{which}]"


def _end(tokens: list[_Token], at: int, *also: str) -> int:
    """Where what begins at `at` ends."""
    depth = tokens[at].depth
    for n in range(at, len(tokens)):
        text = tokens[n].text
        if tokens[n].depth < depth:
            return n
        is_other = (text == "from" and tokens[n - 1].text == "distinct") or (
            text == "left" and tokens[n + 1].text == "("
        )
        if tokens[n].depth == depth and (text in _CONDITION_ENDS or text in also) and not is_other:
            return n
    return len(tokens)


def _end_of_clause(tokens: list[_Token], at: int, following: str) -> int:
    """Where a clause ends that is removed as a whole; `at` if none begins here."""
    clause = f"{tokens[at].text} {following}"
    if clause == "for update":
        return at + (4 if at + 2 < len(tokens) and tokens[at + 2].text in ("of", "skip") else 2)
    ends = {"order by": ("for", "limit", "on", "returning", "rows", ";"), "on conflict": ("returning", ";")}.get(clause)
    if tokens[at].text == "limit":
        return at + 2
    if ends is None:
        return at
    depth = tokens[at].depth
    return next(
        (n for n in range(at, len(tokens)) if tokens[n].depth < depth or (n > at and tokens[n].text in ends)),
        len(tokens),
    )
