"""What an object costs, in figures that no busy machine changes: `python -m tests.costs`, and CI, fail when one grows.

Instructions cannot be counted everywhere. What can is held against `costs.json`, and may be a tenth more:

- functions called, of Python and of C, by `sys.setprofile`;
- containers made, by the collections of a garbage collector that begins one whenever there are two more: those of a
  tree of JSON count although it is gone at once;
- bytes that one object needs at a time, by tracemalloc: one more copy shows;
- bytes of WAL a row; and its records, half a one more at most, since an index writes one;
- statements a batch, by pg_stat_statements: none more.

On the embedded PostgreSQL, whatever CLUSTERINFO_TEST_POSTGRES_BIN names. `--write` makes the figures of now the
baseline; `--prove` shows which figures tell of a parse, a statement and an index too many.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import pkgutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import asyncpg
import msgspec
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.kafka.aiokafka_patches import reading
from clusterinfo.kafka.aiokafka_patches.message import Item
from clusterinfo.kubernetes.list_state import ListState
from clusterinfo.kubernetes.normalize import NormalizedObject, normalize, normalize_members
from clusterinfo.kubernetes.pages import Members, Slice, parse_page, split_page
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.model import GroupVersionResource, ListLane, Record, Unit
from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.sandbox.kubernetes.populate import populate
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.postgres import BIN_VARIABLE, EmbeddedPostgres
from clusterinfo.settings import load
from tests.support.batches import batch, record
from tests.support.records import CLUSTER, NOON, Feed, uuid7

BASELINE = Path(__file__).with_name("costs.json")
OBJECTS = 1200
"""Of the simulated cluster; four in ten are pods."""
PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
SERVER = {
    "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on", "autovacuum": "off",
    "bgwriter_lru_maxpages": "0", "checkpoint_timeout": "1h",
}  # fmt: skip
SPENT = """
select sum(calls)::bigint as statements, sum(wal_records)::bigint as records, sum(wal_bytes)::bigint as bytes
from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database()) and toplevel
    and query !~ 'pg_stat_statements'
"""

Figures = dict[str, float]


# --- counting --------------------------------------------------------------------------------------------------------


@contextmanager
def counted(found: Figures, of_what: str, among: int) -> Iterator[None]:
    """Calls and containers of the block, for each of `among`."""
    called = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal called
        called += event in ("call", "c_call")

    gc.freeze()  # no collection need visit what was there before
    gc.collect()
    thresholds, before = gc.get_threshold(), collections()
    gc.set_threshold(1, 0, 0)  # each is a full one, which empties the lists of dicts and lists to be used again
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    found[f"{of_what}: calls"] = round(called / among, 1)
    found[f"{of_what}: containers"] = round((collections() - before) / among, 1)


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


@contextmanager
def needed() -> Iterator[list[int]]:
    """Bytes that the block had at most, beside what was there before."""
    found = [0]
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    yield found
    found[0] = tracemalloc.get_traced_memory()[1] - before


@contextmanager
def tracing() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


# --- from a page to messages -----------------------------------------------------------------------------------------


def page() -> bytes:
    """A list of pods, as the API server gives it."""
    cluster = SimulatedCluster(clock=lambda: NOON)
    populate(cluster, OBJECTS)
    items = [b"{" + pod.rest() for pod in cluster.table(cluster.catalog.preferred("pods")).ordered()]
    return b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9000"},"items":[%s]}' % b",".join(items)


def maker(version: str) -> Callable[[Slice | Members], wire.Message]:
    """What `collect` makes of an item of a list of that version."""
    listed = ListState(ListLane(Unit(CLUSTER, "", "pods"), ""), PODS, uuid7(NOON))
    listed.version = version
    recorder, redaction = Recorder(cluster=CLUSTER, cluster_name="test", snapshot=uuid7(NOON)), Redaction(b"key")
    return lambda item: wire.encode(recorder.observed(normalized(item, redaction), listed, NOON))


def normalized(item: Slice | Members, redaction: Redaction) -> NormalizedObject:
    """As `ListSource` does it."""
    if not isinstance(item, dict):
        return normalize(item, PODS, redaction)
    found = normalize_members(item, PODS, redaction)
    assert found
    return found


def collecting(body: bytes) -> Figures:
    found: Figures = {}
    make, items = maker("9000"), parse_page(body).items
    make(items[0])  # what is compiled or remembered the first time
    with counted(found, "collect, an object", len(items)):
        for item in split_page(body).items:
            make(item)
    with tracing():
        with needed() as of_page:
            split_page(body)
        of_objects = 0
        for item in items:
            with needed() as of_object:
                make(item)
            of_objects += of_object[0]
    found["collect, a page: bytes an object needs"] = round(of_page[0] / len(items))
    found["collect, an object: bytes it needs"] = round(of_objects / len(items))
    return found


# --- from messages to rows -------------------------------------------------------------------------------------------


def records_of(items: Sequence[Slice], version: str) -> list[Record]:
    return [wire.decode(message.key, message.value, message.headers) for message in map(maker(version), items)]


def read_as_a_step(data: bytes, most: int) -> list[Record]:
    """What a consumer makes of a batch of Kafka's."""
    messages = reading.Messages(TopicPartition("t", 0), reading.Batches(data), [], 0, None, None, True, 0)
    with reading.at_most(len(data), 0, most):
        return [
            message.record
            if isinstance(message, Item)
            else wire.decode(message.key, message.value, message.headers, message.offset)
            for message in messages
        ]


def changed(record: Record) -> Record:
    """Its next version."""
    return replace(record, resource_version=record.resource_version + "1", content_hash="0" * 32)


async def consuming(sink: PostgresSink, admin: asyncpg.Connection, body: bytes) -> Figures:
    found: Figures = {}
    feed, items = Feed(), parse_page(body).items
    messages = list(map(maker("9000"), items))
    with counted(found, "consume, a message", len(messages)):
        for message in messages:
            wire.decode(message.key, message.value, message.headers)
    data = batch(
        [
            record(number, key, value, [(name.encode(), text) for name, text in headers])
            for number, (key, value, headers) in enumerate(messages)
        ]
    )
    read_as_a_step(data, len(messages))
    with counted(found, "consume, an item of a page", len(messages)):
        read_as_a_step(data, len(messages))
    first, again = records_of(items, "9000"), records_of(items, "9001")
    await sink.open(feed.lane)
    for one in (first[0], first[0], changed(first[0])):  # what is made or prepared the first time
        await sink.write(feed.batch(one))
    for name, records in (
        ("new", first[1:]),
        ("unchanged", again[1:]),
        ("changed", [changed(one) for one in records_of(items[1:51], "9002")]),
    ):
        written = feed.batch(*records)
        await admin.execute("select pg_stat_statements_reset()")
        with counted(found, f"consume, an object that is {name}", len(records)):
            await sink.write(written)
        spent = await admin.fetchrow(SPENT)
        found[f"consume, a batch that is {name}: statements"] = spent["statements"]
        found[f"consume, a row that is {name}: bytes of WAL"] = round(int(spent["bytes"]) / len(records))
        found[f"consume, a row that is {name}: records of WAL"] = round(spent["records"] / len(records), 2)
    with tracing():
        of_batches = []
        for one in records_of(items[51:61], "9003"):
            changes = feed.batch(changed(one))
            with needed() as of_batch:
                await sink.write(changes)
            of_batches.append(of_batch[0])
    found["consume, a batch of one: bytes it needs"] = sorted(of_batches)[len(of_batches) // 2]
    return found


async def measure(*, index: bool = False) -> Figures:
    """All figures; `index`: with one more index."""
    os.environ.pop(BIN_VARIABLE, None)
    body = page()
    async with EmbeddedPostgres(SERVER) as postgres:
        settings = load(postgres.env()).model_copy(update={"db_pool_size": 1})
        admin = await asyncpg.connect(postgres.dsn(), timeout=60)
        try:
            await admin.execute("create extension pg_stat_statements")
            await migrate(admin, settings.db_schema)
            if index:
                await admin.execute(f"create index on {settings.db_schema}.resource (resource_version)")
            async with PostgresSink.connect(settings, lambda _: None) as sink:
                return collecting(body) | await consuming(sink, admin, body)
        finally:
            await admin.close()


# --- held against the baseline ---------------------------------------------------------------------------------------


def most(name: str, baseline: float) -> float:
    """What a figure may come to."""
    if name.endswith("statements"):
        return baseline
    if name.endswith("bytes of WAL"):
        return max(baseline * 1.1, 20)  # what an unchanged row may take; it takes next to nothing
    return baseline + 0.5 if name.endswith("records of WAL") else baseline * 1.1


def grown(found: Figures, baseline: Figures) -> dict[str, str]:
    """The figures that are more than they may be: from what to what. Pure."""
    more = (name for name in baseline if found[name] > most(name, baseline[name]))
    return {name: f"{baseline[name]:,} -> {found[name]:,}" for name in more}


def parses_twice(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which reads a body as JSON beside what it does."""

    def parsing(record: Any, *rest: Any) -> Any:
        result = function(record, *rest)
        msgspec.json.decode(result.body)
        return result

    return parsing


def lock_twice(function: Callable[..., Any]) -> Callable[..., Any]:
    async def locking(connection: Any, *rest: Any) -> Any:
        await connection.fetch("select 1")
        return await function(connection, *rest)

    return locking


def _changed(function: str, change: Callable[..., Any]) -> Any:
    return mock.patch(function, change(pkgutil.resolve_name(function)))


async def prove() -> None:
    """Print which figures tell of what would be too much."""
    baseline, merge = await measure(), "clusterinfo.postgres.merge"
    for what, patch, index in (
        ("nothing", nullcontext(), False),
        ("an object parsed once too often, collecting", _changed(f"{__name__}.normalize_members", parses_twice), False),
        ("an object parsed once too often, consuming", _changed(f"{merge}.rows.body_of", parses_twice), False),
        ("a statement a batch", _changed(f"{merge}.apply.lock_units", lock_twice), False),
        ("an index", nullcontext(), True),
    ):
        with patch:
            found = grown(await measure(index=index), baseline)
        print(f"{what}:", *(f"  {name}: {figure}" for name, figure in found.items()), sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.costs", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make what is found the baseline")
    parser.add_argument("--prove", action="store_true", help="show what finds which growth")
    options = parser.parse_args()
    if options.prove:
        asyncio.run(prove())
        return 0
    found = asyncio.run(measure())
    if options.write:
        BASELINE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return 0
    more = grown(found, json.loads(BASELINE.read_text(encoding="utf-8")))
    print(
        *(f"{name}: {figure}{' GROWN ' + more[name] if name in more else ''}" for name, figure in found.items()),
        sep="\n",
    )
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
