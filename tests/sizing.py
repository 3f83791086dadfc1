"""What 10,000 objects cost in Kafka, in PostgreSQL and in time: `python -m tests.sizing`, for docs/SCALING.md.

On Apache Kafka, whose log on disk is what a cluster of brokers would keep; with CLUSTERINFO_TEST_POSTGRES_BIN set, on
that PostgreSQL (Debian's has lz4, the embedded one has not).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.bench import TIMEOUT_S, WAIT, Servers, stored
from tests.kafka.apache import ApacheKafka
from tests.support import checker
from tests.support.programs import Ended, run, simulated_api

MIB = 1024 * 1024
TOPIC = "sizing"
RELATIONS = ("resource", "resource_history", "list_progress")


def log_bytes(broker: ApacheKafka) -> int:
    """Bytes of the topic's log segments."""
    return sum(path.stat().st_size for path in (broker.directory / "data").glob(f"{TOPIC}-*/*.log"))


async def table_bytes(bench: Servers) -> dict[str, int]:
    """Relation -> bytes with its indexes and its TOAST table, partitions included."""
    connection = await checker.connect(bench.postgres.dsn("postgres"))
    try:
        size = "select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree($1::regclass)"
        plain = "select pg_total_relation_size($1::regclass)"
        sizes = {name: await connection.fetchval(size, name) for name in RELATIONS[1:2]}
        return sizes | {name: await connection.fetchval(plain, name) for name in (RELATIONS[0], RELATIONS[2])}
    finally:
        await connection.close()


async def measure(objects: int) -> None:
    async with EmbeddedPostgres() as postgres, ApacheKafka() as broker, simulated_api(objects) as api:
        bench = Servers(postgres, broker.bootstrap, api)
        env = bench.env(TOPIC, "postgres") | WAIT
        print(f"{objects:,} objects of the simulated cluster; per 10,000 objects:\n")
        for what, changes in (
            ("the first run of lists", 0),
            ("a run that finds nothing new", 0),
            ("1 % changed", 0.01),
        ):
            if changes:
                await api.control("churn", changes=int(objects * changes))
            before = log_bytes(broker)
            collected = (await run("collect", "--once", env=env, timeout_s=TIMEOUT_S)).expect(0)
            consumed = (await run("consume", "--until-idle", "2s", env=env, timeout_s=TIMEOUT_S)).expect(0)
            found = _figures(objects, collected, consumed, log_bytes(broker) - before)
            sizes = await table_bytes(bench)
            print(
                f"{what}:",
                *found,
                *(f"  {name}: {size / MIB * 10_000 / objects:.1f} MiB" for name, size in sizes.items()),
                sep="\n",
            )


def _figures(objects: int, collected: Ended, consumed: Ended, in_kafka_bytes: int) -> Iterator[str]:
    share = 10_000 / objects
    ended = collected.logged("Snapshot ended")[0]
    rate = stored(consumed)
    yield f"  downloaded {ended['size_bytes'] / MIB * share:.1f} MiB, in Kafka {in_kafka_bytes / MIB * share:.1f} MiB"
    yield f"  collected in {ended['seconds'] * share:.2f} s, stored in {rate.seconds * share:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sizing", description=__doc__)
    parser.add_argument("--objects", type=int, default=20_000, help="objects of the simulated cluster (default 20,000)")
    asyncio.run(measure(parser.parse_args().objects))


if __name__ == "__main__":
    main()
