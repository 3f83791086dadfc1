"""`make bench-peers`: the same work done in other ways, beside clusterinfo's, in alternating rounds.

Pods alone. Collecting: a bare download, and typed lists with kubernetes_asyncio, which keep and send nothing. Storing:
what a script does with the same topic, key and body into a table with a primary key, upserted, by `executemany` and
from `unnest`; no versions, history, proofs of lists, labels or deletions. With Apache Kafka, where Java and Maven are,
also by a JDBC sink (`kafka/jdbc_sink`), timed once Java's compiler has warmed up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from kubernetes_asyncio.client import ApiClient, Configuration, CoreV1Api

from tests import bench
from tests.kafka import jdbc_sink
from tests.support.rounds import Rounds, Run

BATCH = 5000
"""BATCH_SIZE's default."""
PODS = "/api/v1/pods"
TABLE = "create table if not exists peer (key bytea primary key, body jsonb not null)"
UPSERT = "on conflict (key) do update set body = excluded.body"
Write = Callable[[asyncpg.Connection, Sequence[ConsumerRecord]], Awaitable[object]]


async def typed(url: str, token: str) -> float:
    """Seconds to list all pods as V1Pod."""
    configuration = Configuration(host=url, api_key={"BearerToken": f"Bearer {token}"})
    async with ApiClient(configuration) as client:
        began, follows = time.perf_counter(), ""
        while True:
            page = await CoreV1Api(client).list_pod_for_all_namespaces(limit=int(bench.LIMIT), _continue=follows)
            if not (follows := page.metadata._continue):
                return time.perf_counter() - began


async def by_unnest(connection: asyncpg.Connection, messages: Sequence[ConsumerRecord]) -> object:
    last = {message.key: message.value.decode() for message in messages}  # ON CONFLICT takes a key once
    statement = f"insert into peer select * from unnest($1::bytea[], $2::jsonb[]) {UPSERT}"
    return await connection.execute(statement, list(last), list(last.values()))


async def by_executemany(connection: asyncpg.Connection, messages: Sequence[ConsumerRecord]) -> object:
    rows = [(message.key, message.value.decode()) for message in messages]
    return await connection.executemany(f"insert into peer values ($1, $2) {UPSERT}", rows)


WRITERS: dict[str, Write] = {"unnest": by_unnest, "executemany": by_executemany}


async def write_all(bootstrap: str, topic: str, dsn: str, write: Write) -> float:
    """Seconds from the first message of a topic to the commit of the last, batch by batch."""
    connection = await asyncpg.connect(dsn, timeout=60)
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        await connection.execute(TABLE)
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        began = time.perf_counter()
        if not any(ends.values()):
            raise RuntimeError(f"nothing to store in the topic {topic}")
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            found = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
            messages = [message for of_partition in found.values() for message in of_partition]
            async with connection.transaction():
                await write(connection, messages)
        return time.perf_counter() - began
    finally:
        await consumer.stop()
        await connection.close()


async def peer(size: Run, *arguments: str) -> Run:
    with bench.processor_time() as cpu_s:
        seconds = await bench.seconds_of("tests.bench_peers", *arguments)
    return Run(size.rows, size.size_bytes, seconds, cpu_s[0])


async def jdbc(servers: bench.Servers, size: Run) -> Run:
    """What a JDBC sink does, were it warm from its first row on."""
    dsn = servers.postgres.dsn(await servers.fresh())
    connection = await asyncpg.connect(dsn, timeout=60)
    await connection.execute(TABLE)
    await connection.close()
    with bench.processor_time() as cpu_s:
        seconds_a_row = await jdbc_sink.sink_all(servers.bootstrap, "peers", dsn, size.rows)
    return Run(size.rows, size.size_bytes, seconds_a_row * size.rows, cpu_s[0])


async def collecting(objects: int, rounds: int) -> Rounds:
    found = Rounds("download")
    async with bench.servers(objects) as servers:
        for n in range(rounds):
            size = await bench.collected(servers, f"peers-{n}", INCLUDE="pods")
            found.add("download", await bench.downloaded(servers, size, PODS))
            found.add("collect", size)
            found.add(
                "kubernetes_asyncio, typed",
                await peer(size, f"--typed={servers.api.url}", f"--token={servers.api.token}"),
            )
    return found


async def storing(objects: int, rounds: int) -> Rounds:
    found = Rounds("COPY")
    has_java = os.environ.get("CLUSTERINFO_TEST_KAFKA") == "apache"
    if has_java:
        await jdbc_sink.fetch()
    async with bench.servers(objects) as servers:
        size = await bench.collected(servers, "peers", INCLUDE="pods")
        for _ in range(rounds):
            database = await servers.fresh()
            new = await bench.consumed(servers, "peers", database, size)
            found.add("COPY", await bench.copied(servers, database, size))
            found.add("consume", new)
            for name in WRITERS:
                dsn = servers.postgres.dsn(await servers.fresh())
                arguments = (f"--write={name}", f"--bootstrap={servers.bootstrap}", "--topic=peers", f"--dsn={dsn}")
                found.add(name, await peer(size, *arguments))
            if has_java:
                found.add("JDBC sink", await jdbc(servers, size))
    return found


async def peers(objects: int, rounds: int, into: str) -> None:
    print(f"the pods of {objects:,} objects, medians of {rounds} rounds", flush=True)
    found = {"collecting": await collecting(objects, rounds)}
    bench.show("collecting", found["collecting"])
    found["storing"] = await storing(objects, rounds)
    bench.show("storing", found["storing"])
    bench.write(into, objects, found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench_peers", description=__doc__)
    parser.add_argument("--objects", type=int, default=50_000, help="objects, 4 in 10 are pods (default 50,000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured (default 5)")
    parser.add_argument("--json", default="", metavar="FILE", help="write every run there")
    for name in ("typed", "token", "write", "bootstrap", "topic", "dsn"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.typed:
        print(asyncio.run(typed(options.typed, options.token)))
    elif options.write:
        print(asyncio.run(write_all(options.bootstrap, options.topic, options.dsn, WRITERS[options.write])))
    else:
        asyncio.run(peers(options.objects, options.rounds, options.json))


if __name__ == "__main__":
    main()
