"""Many clusters into one topic and one database, two of them under one name: each one's rows are its own."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.conftest import Database
from tests.support import checker
from tests.support.programs import run, run_all, simulated_api

pytestmark = pytest.mark.embedded_only  # test_end_to_end goes by Apache Kafka, test_topic_owners by Debian's PostgreSQL

OBJECTS, KINDS = 100, 12
NAMES = ("north", "south", "south")


async def test_each_cluster_is_stored_as_its_own(database: Database, kafka_env: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(simulated_api(OBJECTS, KINDS, "--seed", str(n))) for n in range(3)]
        common = database.env | kafka_env | {"BATCH_WAIT": "100ms"}
        for api, name in zip(apis, NAMES, strict=True):
            (await run("collect", "--once", env=api.env | common | {"CLUSTER_NAME": name})).expect(0)
        (await run_all(("consume", "--until-idle", "2s"), env=common))[0].expect(0)

        truth: dict[checker.Identity, checker.JSON] = {}
        for api in apis:
            truth |= await checker.truth(api.url, api.token)
        assert await checker.problems(truth, database.dsn) == []

        connection = await checker.connect(database.dsn)
        try:
            labels = await connection.fetch("select cluster, count(*) from resources group by 1 order by 1")
        finally:
            await connection.close()
        assert [row["cluster"] for row in labels] == ["north", "south", f"south-{apis[2].uid[:8]}"]
        assert all(row["count"] > OBJECTS for row in labels)
