"""Target `bodies`: JSON with faults, from the byte checks and the repair into PostgreSQL and back.

Whatever is stored is read back equal to the bytes that were sent, and those are what the judge would make of the body:
the same where jsonb can hold it; U+FFFD, a text or a cut where it cannot. PostgreSQL refuses what is no JSON even if it
is read leniently, and nothing else. Thousands share a COPY; some also go the product's own way, `rows.copy`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any

import asyncpg

from clusterinfo.json_repair import CUT, MAX_DEPTH, MAX_EXPONENT, MAX_NUMBER_CHARS, repair
from clusterinfo.postgres.merge.bodies import (
    IDENTITY_ONLY,
    SANITISED,
    WHOLE,
    fidelity_of,
    has_wild_number,
    is_suspect,
    sanitise,
)
from clusterinfo.postgres.merge.chain import BODY_COLUMNS
from clusterinfo.postgres.merge.rows import Copied, copy, who
from clusterinfo.postgres.merge.staging import Staged
from tests.fuzz.making import Maker, mutated, nested
from tests.fuzz.outcome import Failure, Judged, Outcome, expect
from tests.fuzz.pages import corpus
from tests.fuzz.trees import NoJsonError, Number, deep, lenient_tree, same, tree, values
from tests.support.records import Listing

AS_IT_IS, ESCAPES = "as they are", "with escapes repaired"
NUMBERS, REFUSED_ONCE = "with numbers repaired", "repaired after a refusal"
EVERY_SO_MANY = 10
"""Chunks of which one goes the product's own way too."""
OWN_WAY = 100
"""Bodies of it: each that is refused costs some COPYs."""

TAKES = """
create or replace function pg_temp.refusal(body bytea) returns text language plpgsql as $$
begin
    perform convert_from(body, 'UTF8')::jsonb;
    return null;
exception when others then
    return sqlstate;
end $$
"""
STAGING = """
create temp table if not exists staged_body (
    ord integer, fidelity smallint, manager text, operation text, subresource text, managed_at timestamptz, body jsonb,
    original bytea)
"""

_SURROGATE = re.compile("[\ud800-\udfff\0]")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)\Z")


def made(random: Random, makers: Sequence[Maker]) -> bytes:
    """A body: recorded, or made up with more or fewer faults; some garbled, some nested deep."""
    chance = random.random()
    maker = random.choice(makers)
    body = random.choice(corpus()) if chance < 0.05 else maker.object(3, maker.member(b"a", maker.value()))
    if chance > 0.98:
        body = maker.joined(b"{", [maker.member(b"b", nested(random, maker.value()))], b"}")
    if 0.2 < chance < 0.3:
        body = mutated(random, body)
    if 0.3 < chance < 0.31:
        body = b"\xef\xbb\xbf" + body
    return body


def sent(body: bytes) -> tuple[str, bytes]:
    """How a body is sent the first time, as `bodies.body_of` has it."""
    if has_wild_number(body) and (repaired := repair(body)) != body:
        return NUMBERS, repaired
    if is_suspect(body) and (repaired := sanitise(body)) != body:
        return ESCAPES, repaired
    return AS_IT_IS, body


# --- what the judge would make of it ---------------------------------------------------------------------------------


def repaired_tree(value: Any, depth: int = 1) -> Any:
    """A tree as jsonb can hold it."""
    if isinstance(value, Number):
        return value if _is_sane(value.text) else value.text  # NaN is none of those that are sane
    if isinstance(value, str):
        return repaired_text(value)
    if not isinstance(value, dict | list):
        return value
    if depth > MAX_DEPTH:
        return CUT[1:-1].decode()
    if isinstance(value, list):
        return [repaired_tree(element, depth + 1) for element in value]
    return _members(value, {repaired_text(key): repaired_tree(member, depth + 1) for key, member in value.items()})


def tree_with_repaired_texts(value: Any) -> Any:
    """A tree of which texts alone are repaired."""
    if isinstance(value, list) and not isinstance(value, Number):
        return [tree_with_repaired_texts(element) for element in value]
    if isinstance(value, dict):
        return _members(value, {repaired_text(key): tree_with_repaired_texts(member) for key, member in value.items()})
    return repaired_text(value) if isinstance(value, str) else value


class CollidingError(Exception):
    """Two names became one: which of their values is the last, a tree cannot tell."""


def _members(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    if len(after) < len(before):
        raise CollidingError
    return after


def repaired_text(text: str) -> str:
    """U+FFFD for what jsonb refuses."""
    return text if text.isascii() and "\0" not in text else _SURROGATE.sub("\ufffd", text)


def _is_sane(number: str) -> bool:
    exponent = _EXPONENT.search(number)
    if len(number) > MAX_NUMBER_CHARS or number.endswith(("NaN", "Infinity")):
        return False
    return not exponent or abs(int(exponent[1])) <= MAX_EXPONENT


def judged(body: bytes) -> Any:
    """The body as the judge reads it, if need be leniently. Raises NoJsonError."""
    try:
        return tree(body)
    except NoJsonError:
        return lenient_tree(body)


def _as_repaired(how: str, original: Any) -> Any:
    if how == AS_IT_IS:
        return original
    return tree_with_repaired_texts(original) if how == ESCAPES else repaired_tree(original)


def judge_repair(body: bytes, how: str, form: bytes) -> bool:
    """The bytes that are sent say what the judge would say; False: it cannot read the body. Raises Judged."""
    try:
        original = judged(body)
    except NoJsonError:
        return False
    try:
        with deep():
            expected = _as_repaired(how, original)
    except CollidingError:
        return True
    try:
        expect(same(tree(form), expected), f"{how}: {form[:1000]!r} is not what was to become of it")
    except NoJsonError as error:
        raise Judged(f"{how}: {form[:1000]!r} is no JSON any more") from error
    return True


# --- and PostgreSQL --------------------------------------------------------------------------------------------------


async def run(random: Random, size: int, chunk: int, connection: asyncpg.Connection) -> Outcome:
    """`size` bodies."""
    outcome = Outcome()
    makers = [Maker(random, faults=faults, spaced=faults == 0.02, pool=300) for faults in (0.0, 0.02, 0.1, 0.5)]
    bodies = [made(random, makers) for _ in range(size)]
    forms = [sent(body) for body in bodies]
    refusals = await _refusals(connection, [form for _, form in forms], outcome)
    again = [number for number, refusal in enumerate(refusals) if refusal]
    for number in again:
        forms[number] = REFUSED_ONCE, repair(bodies[number])
    second = await _refusals(connection, [forms[number][1] for number in again], outcome)
    refused_twice = {number: refusal for number, refusal in zip(again, second, strict=True) if refusal}
    stored = await _stored(
        connection, {n: form for n, (_, form) in enumerate(forms) if n not in refused_twice}, outcome
    )
    for number, (body, (how, form)) in enumerate(zip(bodies, forms, strict=True)):
        try:
            outcome.counts[_judge(body, how, form, refused_twice.get(number), stored.get(number))] += 1
        except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
            reason = str(error) if isinstance(error, Judged) else f"{type(error).__name__}: {error}"
            outcome.failures.append(Failure("bodies", chunk, reason, body))
    if chunk % EVERY_SO_MANY == 0:
        expected = {n: _fidelity(forms[n][0], n in refused_twice) for n in range(min(OWN_WAY, size))}
        await _go_the_products_way(connection, bodies[:OWN_WAY], expected, stored, chunk, outcome)
    return outcome


def _fidelity(how: str, refused_twice: bool) -> int:
    """How much of a body is stored."""
    if refused_twice:
        return IDENTITY_ONLY
    return WHOLE if how == AS_IT_IS else SANITISED


def _judge(body: bytes, how: str, form: bytes, refusal: str | None, stored: bytes | None) -> str:
    is_readable = judge_repair(body, how, form)
    if refusal:
        expect(refusal[:2] in ("22", "54"), f"SQLSTATE {refusal}")
        expect(not is_readable, f"refused with {refusal}, though it can be read: {form[:1000]!r}")
        return "bodies refused: no JSON even when repaired"
    expect(stored is not None, "not stored")
    with deep():
        expect(values(stored or b"") == values(form), f"read back as {(stored or b'')[:1000]!r}")
    numbers = form.count(b"e") + form.count(b"E")
    expect(len(stored or b"") <= 2 * len(form) + 2 * MAX_NUMBER_CHARS * numbers, "short to write, long to read")
    return f"bodies stored {how}"


async def _refusals(connection: asyncpg.Connection, forms: list[bytes], outcome: Outcome) -> list[str | None]:
    outcome.counts["PostgreSQL round trips"] += 1
    rows = await connection.fetch("select pg_temp.refusal(b) as refusal from unnest($1::bytea[]) as b", forms)
    return [row["refusal"] for row in rows]


async def _stored(connection: asyncpg.Connection, forms: dict[int, bytes], outcome: Outcome) -> dict[int, bytes]:
    """COPY them as jsonb, in one go, and read them back as text."""
    outcome.counts["PostgreSQL round trips"] += 3
    await connection.execute("truncate staged_body")
    await connection.copy_records_to_table("staged_body", records=forms.items(), columns=("ord", "body"))
    return {row["ord"]: row["body"] for row in await connection.fetch("select ord, body from staged_body")}


async def _go_the_products_way(
    connection: asyncpg.Connection,
    bodies: list[bytes],
    expected: dict[int, int],
    stored: dict[int, bytes],
    chunk: int,
    outcome: Outcome,
) -> None:
    """`rows.copy` finds out what was found out in bulk, and stores the same."""
    listing, staged = Listing("1"), Staged(uses_savepoints=True)
    records = [listing.item(f"a{number}", "1", body=body) for number, body in enumerate(bodies)]
    rows = [Copied(record, fidelity_of(record), (number, *who(record))) for number, record in enumerate(records)]
    await connection.execute("truncate staged_body")
    async with connection.transaction():
        await copy(connection, "staged_body", rows, BODY_COLUMNS, staged)
    outcome.counts["bodies that went the product's way too"] += len(bodies)
    found = {
        row["ord"]: tuple(row)[1:]
        for row in await connection.fetch("select ord, fidelity, body, original from staged_body")
    }
    for number, body in enumerate(bodies):
        original = body if expected[number] == SANITISED else None
        wanted = expected[number], stored.get(number), original
        if found.get(number) != wanted:
            reason = f"rows.copy stored {found.get(number)!r:.300}, not {wanted!r:.300}"
            outcome.failures.append(Failure("bodies", chunk, reason, body))
    if len(staged.dead_letters) != sum(fidelity == IDENTITY_ONLY for fidelity in expected.values()):
        outcome.failures.append(Failure("bodies", chunk, "another number of dead letters", b""))


async def prepare(connection: asyncpg.Connection) -> None:
    """What `run` needs of a connection's session."""
    await connection.execute(TAKES)
    await connection.execute(STAGING)
