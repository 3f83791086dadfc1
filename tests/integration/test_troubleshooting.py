"""docs/TROUBLESHOOTING.md, tried: each entry is provoked, and what it names to look at shows what it says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.support import checker
from tests.support.programs import NO_KAFKA, Api, Ended, run, running, simulated_api, tuned

pytestmark = pytest.mark.embedded_only

DOCUMENT = Path(__file__).parents[2] / "docs/TROUBLESHOOTING.md"
ENTRIES = {
    part.partition("\n")[0]: part
    for part in re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
}
QUICK = {"BATCH_WAIT": "100ms"}
NEEDS_NO_SERVER = ("kafka-", "psql", "pg_isready", "kubectl", "ss ")
"""Other people's tools, which not every machine has: tests/deploy/test_named_commands.py runs them."""


@dataclass(slots=True)
class Scene:
    """A cluster, a database and a topic in which things go wrong."""

    api: Api
    database: Database
    kafka: dict[str, str]

    @property
    def direct(self) -> dict[str, str]:
        return self.api.env | self.database.env | QUICK

    @property
    def env(self) -> dict[str, str]:
        return self.direct | self.kafka

    async def stored(self, **env: str) -> Ended:
        """One run of lists, through Kafka."""
        ended = await run("collect", "--once", env=self.env | env)
        (await run("consume", "--until-idle", "1s", env=self.env | env)).expect(0)
        return ended


Trouble = Callable[[Scene], Awaitable[Ended]]
"""Provokes it; returns the program that shows the symptom."""


@pytest.fixture
async def scene(database: Database, kafka_env: dict[str, str]) -> Any:
    async with simulated_api(60, 12) as api:
        yield Scene(api, database, kafka_env)


async def kafka_away(scene: Scene) -> Ended:
    return (await run("consume", env=scene.env | NO_KAFKA | {"KAFKA_BROKERS": f"127.0.0.1:{free_port()}"})).expect(1)


async def api_away(scene: Scene) -> Ended:
    """Before it is reached for the first time, and after."""
    async with running("legacy", env=scene.direct | {"COLLECT_INTERVAL": "100ms"}) as collecting:
        await collecting.wait_for_output("Snapshot ended")
        scene.api.program.kill()
        ended, _ = await asyncio.gather(
            run("legacy", "--once", env=scene.direct),
            collecting.wait_for_output("Run of lists failed and starts again"),  # five tries a kind
        )
    return ended.expect(1)


async def refused(scene: Scene) -> Ended:
    await scene.api.control("unauthorized")
    return (await run("collect", "--once", env=scene.env)).expect(1)


async def pinned(scene: Scene) -> Ended:
    return (await run("collect", "--once", env=scene.env | {"KAFKA_PARTITION": "0"})).expect(0)


async def lagging(scene: Scene) -> Ended:
    (await run("consume", "--until-idle", "1s", env=scene.env)).expect(0)
    lags = []
    for _ in range(2):
        (await run("collect", "--once", env=scene.env)).expect(0)
        report = orjson.loads((await run("status", "--output", "json", env=scene.env)).stdout)
        lags.append(sum(partition["lag"] for partition in report["partitions"]))
    assert 60 < lags[0] < lags[1]
    return await run("status", env=scene.env)


async def idle(scene: Scene) -> Ended:
    """As if nothing had been stored for some time."""
    await scene.stored()
    await lagging(scene)
    connection = await checker.connect(scene.database.dsn)
    try:
        await connection.execute("update kafka_offset set moved_at = moved_at - interval '5 minutes'")
    finally:
        await connection.close()
    return (await run("status", env=scene.env)).expect(3)


async def stranger(scene: Scene) -> Ended:
    (await run("collect", "--once", env=scene.env)).expect(0)
    producer = AIOKafkaProducer(bootstrap_servers=scene.env["KAFKA_BROKERS"])
    await producer.start()
    try:
        await producer.send_and_wait(scene.env["KAFKA_TOPIC"], b'{"hello": "world"}')
    finally:
        await producer.stop()
    return (await run("consume", "--until-idle", "1s", env=scene.env)).expect(0)


async def forbidden(scene: Scene) -> Ended:
    await scene.api.control("forbid", resource="secrets")
    (await run("collect", "--once", env=scene.env)).expect(0)
    return (await run("consume", "--until-idle", "1s", env=scene.env)).expect(0)


async def unidentified(scene: Scene) -> Ended:
    await scene.api.control("forbid", resource="namespaces", verb="get")
    (await run("legacy", "--once", env=scene.direct | {"CLUSTER_ID": "known by this"})).expect(0)
    return (await run("legacy", "--once", env=scene.direct | {"CLUSTER_NAME": "no identity"})).expect(2)


async def copied(scene: Scene) -> Ended:
    for name in ("north", "south", "north"):
        (await run("legacy", "--once", env=scene.direct | {"CLUSTER_NAME": name})).expect(0)
    return (await run("legacy", "--once", env=scene.direct | {"CLUSTER_NAME": "south"})).expect(3)


async def elsewhere(scene: Scene) -> Ended:
    await scene.stored()
    other = scene.env | {"KAFKA_TOPIC": scene.env["KAFKA_TOPIC"] + "-other"}
    (await run("collect", "--once", env=other)).expect(0)
    return (await run("consume", "--until-idle", "1s", env=other)).expect(0)


async def failing(scene: Scene) -> Ended:
    await scene.api.control("fail", resource="services", status=500)
    (await run("collect", "--once", env=scene.env)).expect(3)
    return (await run("consume", "--until-idle", "1s", env=scene.env)).expect(0)


async def restored(scene: Scene) -> Ended:
    (await run("legacy", "--once", env=scene.direct)).expect(0)
    connection = await checker.connect(scene.database.dsn)
    try:  # as a list of before the restore would have left it: a thousand versions ahead of what the cluster says now
        await connection.execute("update unit_floor set live_at = live_at + 1000")
        await connection.execute("update resource set live_at = live_at + 1000")
    finally:
        await connection.close()
    return await run("legacy", "--once", env=scene.direct)


async def recreated(scene: Scene) -> Ended:
    await scene.stored()
    name = scene.env["KAFKA_TOPIC"]
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.env["KAFKA_BROKERS"])
    await admin.start()
    try:
        await admin.delete_topics([name])
        await admin.create_topics([NewTopic(name, 6, 1)])
    finally:
        await admin.close()
    return (await run("consume", "--until-idle", "1s", env=scene.env)).expect(1)


async def second_group(scene: Scene) -> Ended:
    await scene.stored()
    return (await run("consume", "--until-idle", "1s", env=scene.env | {"KAFKA_GROUP_ID": "another"})).expect(2)


async def database_away(scene: Scene) -> Ended:
    impatient = tuned({"clusterinfo.postgres.pool.FIRST_CONNECTION_S": 3})
    return (await run("legacy", "--once", env=scene.direct | impatient | {"DB_PORT": str(free_port())})).expect(1)


async def wrong_password(scene: Scene) -> Ended:
    return (await run("legacy", "--once", env=scene.direct | {"DB_PASSWORD": "wrong-but-secret"})).expect(1)


async def not_migrated(scene: Scene) -> Ended:
    return (await run("legacy", "--once", "--no-migrate", env=scene.direct | {"DB_SCHEMA": "elsewhere"})).expect(1)


async def port_taken(scene: Scene) -> Ended:
    address = {"METRICS_ADDRESS": f"127.0.0.1:{free_port()}"}
    async with running("consume", env=scene.env | address) as first:
        await first.wait_for_output("Partition claimed")
        return (await run("consume", env=scene.env | address)).expect(2)


async def no_kubeconfig(scene: Scene) -> Ended:
    env = {name: value for name, value in scene.direct.items() if name != "KUBECONFIG"}
    return (await run("legacy", "--once", env=env)).expect(2)


async def abandoned(scene: Scene) -> Ended:
    (await run("legacy", "--once", env=scene.direct)).expect(0)
    connection = await checker.connect(scene.database.dsn)
    try:
        await connection.execute("update unit_floor set verified_at = verified_at - interval '1 hour'")
        for column in ("started_at", "completed_at"):
            await connection.execute(f"update snapshot set {column} = {column} - interval '1 hour'")
    finally:
        await connection.close()
    return await run("status", env=scene.direct)


@dataclass(frozen=True, slots=True)
class Tried:
    """How an entry is provoked, what the program then says, and what the entry's SQL shows (first row, as text)."""

    trouble: Trouble
    says: tuple[str, ...]
    shows: str = ""


TRIED = {
    "Kafka cannot be reached": Tried(kafka_away, ("cannot reach Kafka at", "KAFKA_BROKERS")),
    "The Kubernetes API cannot be reached": Tried(api_away, ("was not reached within 20 s",)),
    "The Kubernetes API refuses the credentials": Tried(refused, ("the API does not accept our credentials (401",)),
    "One consumer does all the work": Tried(pinned, ("everything goes to partition 0",)),
    "The lag grows": Tried(lagging, ("lag",), "6 rows"),
    "No consumer holds a partition": Tried(idle, ("no consumer in group", "nothing stored for")),
    "Messages wait and nothing is stored": Tried(idle, ("nothing stored for",), "active"),
    "Messages cannot be stored": Tried(stranger, ("Record stored as a dead letter",), "no CloudEvent"),
    "The cluster has no identity": Tried(
        unidentified,
        ("the cluster is known by the uid of its namespace kube-system, which cannot be read", "CLUSTER_ID"),
    ),
    "Two clusters have one identity": Tried(
        copied, ("clusters named 'north' and 'south' have the same uid", "unverified"), "south"
    ),
    "A cluster belongs to another topic": Tried(
        elsewhere, ("Records dead-lettered: their cluster belongs to another topic",), "sandbox"
    ),
    "A kind is forbidden": Tried(forbidden, ("Kind is not verified", "forbidden"), "secrets"),
    "A kind fails": Tried(failing, ("Kind is not verified", "failed"), "services"),
    "A cluster was restored from a backup": Tried(
        restored, ("raise CLUSTER_EPOCH of its collector by one",), "CLUSTER_EPOCH"
    ),
    "The topic was recreated": Tried(
        recreated, ("the topic was created again; run", "clusterinfo offsets reset"), "6 rows"
    ),
    "A second consumer group": Tried(second_group, ("this database already belongs to consumer group",), "1 rows"),
    "PostgreSQL cannot be reached": Tried(database_away, ("cannot be reached", "check DB_HOST and DB_PORT")),
    "PostgreSQL refuses the login": Tried(wrong_password, ("check DB_USER and DB_PASSWORD",)),
    "The schema is missing or too old": Tried(not_migrated, ("clusterinfo migrate",), "0001"),
    "The port for metrics is taken": Tried(port_taken, ("where nothing can be served",)),
    "No kubeconfig": Tried(no_kubeconfig, ("KUBECONFIG",)),
    "Rows of a cluster or kind that is no longer collected": Tried(
        abandoned, ("not verified for 60m", "does its collector run?"), "pods"
    ),
}

ELSEWHERE = {
    "Records are missing": "tests/apache/test_troubleshooting.py",  # only that broker can be made to
    "Collectors stand by and none leads": "tests/integration/test_leader_election.py",  # beside what else it tries
    "A watch keeps failing": "tests/integration/test_live.py",  # by what is observed, which is quicker
    "A list corrects what was followed": "tests/integration/test_postgres_following.py",  # no program can be made to
}
"""Entries that other tests provoke."""


def test_every_entry_is_tried() -> None:
    assert set(ENTRIES) == {*TRIED, *ELSEWHERE}
    assert all((Path(__file__).parents[2] / test).is_file() for test in ELSEWHERE.values())


@pytest.mark.parametrize("entry", TRIED)
async def test_an_entry_shows_what_it_says(entry: str, scene: Scene) -> None:
    tried, text = TRIED[entry], ENTRIES[entry]
    ended = await tried.trouble(scene)
    seen = " ".join((ended.stderr + ended.stdout).split())
    documented = " ".join(text.split())
    for symptom in tried.says:
        assert symptom in seen, ended.stderr
        assert symptom in documented or symptom.startswith("not verified for"), f"{symptom!r} is not in the entry"
    await _sql_shows(tried, text, scene)
    await _commands_run(text, scene)


async def _sql_shows(tried: Tried, text: str, scene: Scene) -> None:
    queries = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert bool(queries) == bool(tried.shows)
    connection = await checker.connect(scene.database.dsn)
    try:
        for query in queries:
            rows = await connection.fetch(query)
            assert tried.shows in f"{len(rows)} rows {[tuple(row) for row in rows]}"
    finally:
        await connection.close()


async def _commands_run(text: str, scene: Scene) -> None:
    """Our own commands in the entry, as printed; of a remedy it must be the end of the trouble."""
    for line in "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines():
        if line.startswith(NEEDS_NO_SERVER):
            continue
        program, *args = line.split()
        assert program == "clusterinfo"
        ended = await run(*args, env=scene.env)
        assert ended.code in (0, 3), ended.stderr
        if args == ["offsets", "reset"]:
            (await run("consume", "--until-idle", "1s", env=scene.env)).expect(0)
