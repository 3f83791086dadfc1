"""What reading costs in a large history: `python -m tests.reading` prints time, rows, blocks and scans by question.

50,000 objects with 40 versions each unless said otherwise (7 GB on disk): `tests/support/past.py` says what they are.
CLUSTERINFO_TEST_POSTGRES_BIN names another PostgreSQL (Debian's has lz4). `--versions 0` is a cluster without a past.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import asyncpg

from clusterinfo.postgres.migrations import migrate
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.support.past import Past, make_past

ROUNDS = 3
OF_NAMESPACE = "cluster = 'prod' and namespace = 'ns-7'"
OF_OBJECT = f"{OF_NAMESPACE} and resource = 'pods' and name = 'pods-' || md5('70')"
AS_OF = "resources_as_of(now() - interval '30 days')"
CHANGES = "resource_changes(now() - interval '30 days', now() - interval '29 days')"
QUESTIONS = (
    f"select name from {AS_OF} where {OF_NAMESPACE}",
    f"select * from {AS_OF} where {OF_NAMESPACE}",
    f"select name from {AS_OF} where cluster = 'prod' and resource = 'deployments'",
    f"select * from {AS_OF} where {OF_OBJECT}",
    f"select * from {CHANGES} where {OF_NAMESPACE}",
    f"select * from {CHANGES} where cluster = 'prod' and resource = 'deployments'",
    f"select * from resource_changes('-infinity', 'infinity') where {OF_OBJECT}",
    "select * from not_observed(now() - interval '30 days', now()) where cluster = 'prod' and resource = 'pods'",
    f"select name from resources where {OF_NAMESPACE}",
    'select namespace, name from resources where labels @> \'{"app": "app-7"}\'',
    "select namespace, name from resources where name = 'pods-' || md5('70')",
)


async def measure(past: Past) -> None:
    async with EmbeddedPostgres({"shared_buffers": "512MB", "max_wal_size": "8GB"}) as server:
        connection = await asyncpg.connect(server.dsn(), timeout=60)
        await migrate(connection, "clusterinfo")
        await make_past(connection, past, lambda text: print(text, file=sys.stderr, flush=True))
        await connection.execute("set jit = off")
        for question in QUESTIONS:
            asked = [await explained(connection, question) for _ in range(ROUNDS)]
            print(shown(question, min(asked, key=lambda found: found["Execution Time"])), flush=True)
        await connection.close()


async def explained(connection: asyncpg.Connection, question: str) -> dict[str, Any]:
    """The plan of a question that was asked, with what it read."""
    text = await connection.fetchval(f"explain (analyze, buffers, timing off, format json) {question}")
    found: dict[str, Any] = json.loads(text)[0]
    return found


def shown(question: str, found: dict[str, Any]) -> str:
    """Milliseconds, rows, blocks; then each scan that found anything."""
    plan = found["Plan"]
    blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    head = f"{found['Execution Time']:8.1f} ms {plan['Actual Rows']:7} rows {blocks:7} blocks  {question}"
    return "\n".join([head, *dict.fromkeys(scans(plan))])


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """Each scan of a table or index below a node that found anything."""
    if (
        "Scan" in plan["Node Type"]
        and plan["Actual Rows"]
        and (name := plan.get("Index Name", plan.get("Relation Name")))
    ):
        yield f"{'':12}{plan['Node Type']} {name}: {plan['Actual Rows']} rows, {plan['Actual Loops']} times"
    for below in plan.get("Plans", ()):
        yield from scans(below)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reading", description=__doc__)
    parser.add_argument("--objects", type=int, default=50_000, help="objects (default 50,000)")
    parser.add_argument("--namespaces", type=int, default=50, help="namespaces they are in (default 50)")
    parser.add_argument("--versions", type=int, default=40, help="versions of each in history (default 40)")
    options = parser.parse_args()
    asyncio.run(measure(Past(options.namespaces, options.objects, options.versions)))


if __name__ == "__main__":
    main()
