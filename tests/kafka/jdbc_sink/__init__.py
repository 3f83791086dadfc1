"""A JDBC sink of Kafka in Java, upserting in batches, with the driver's multi-row inserts: Apache Camel's."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import asyncpg

HERE = Path(__file__).parent
JARS = HERE / "target" / "jars"
BATCH = "500"
"""Measured best of 500, 2,000 and 5,000."""
WARM = 0.25
"""The part of the rows that Java's compiler warms up on; it is not timed."""
POLL_S = 0.05


async def fetch() -> None:
    """Have Maven fetch the jars, once."""
    if not JARS.is_dir():
        quietly = ("--quiet", "--batch-mode", "-Dstyle.color=never")
        pom = str(HERE / "pom.xml")
        maven = await asyncio.create_subprocess_exec("mvn", *quietly, "--file", pom, "dependency:copy-dependencies")
        if await maven.wait():
            raise RuntimeError("Maven could not fetch the JDBC sink's jars")


async def sink_all(bootstrap: str, topic: str, dsn: str, rows: int) -> float:
    """Seconds a row of `rows`, from when Java is warm until the commit of the last, into the empty table `peer`."""
    to = urlsplit(dsn)
    query = urlencode({"user": to.username, "password": to.password or "", "reWriteBatchedInserts": "true"})
    env = {
        "SINK_JDBC_URL": f"jdbc:postgresql://{to.hostname}:{to.port}{to.path}?{query}",
        "SINK_TOPIC": topic,
        "SINK_BROKERS": bootstrap,
        "SINK_GROUP": to.path.strip("/"),
        "SINK_BATCH": BATCH,
    }
    route = f"-Dcamel.main.routesIncludePattern=file:{HERE / 'route.yaml'}"
    command = ("java", "-Xmx512m", "-cp", f"{JARS}/*", route, "org.apache.camel.main.Main")
    connection = await asyncpg.connect(dsn, timeout=60)
    java = await asyncio.create_subprocess_exec(*command, env=os.environ | env, stderr=asyncio.subprocess.DEVNULL)
    try:
        warm = await _stored(connection, java, int(rows * WARM))
        began = time.perf_counter()
        stored = await _stored(connection, java, rows)
        return (time.perf_counter() - began) / (stored - warm)
    finally:
        await connection.close()
        if java.returncode is None:
            java.kill()
        await java.wait()


async def _stored(connection: asyncpg.Connection, java: asyncio.subprocess.Process, rows: int) -> int:
    """How many there are, as soon as there are that many."""
    while (found := int(await connection.fetchval("select count(*) from peer"))) < rows:
        if java.returncode is not None:
            raise RuntimeError(f"the JDBC sink ended with exit code {java.returncode}")
        await asyncio.sleep(POLL_S)
    return found
