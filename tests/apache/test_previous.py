"""Consumers of the previous release and of today in one group, as a rolling upgrade has them."""

from __future__ import annotations

import signal
import uuid

from tests import previous
from tests.kafka.apache import ApacheKafka
from tests.previous.upgrade import Upgrade
from tests.support.programs import Program, run, running


async def test_they_share_the_partitions_of_a_group(upgrade: Upgrade, broker: ApacheKafka) -> None:
    unique = uuid.uuid4().hex[:8]
    kafka = {
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": broker.bootstrap,
        "KAFKA_TOPIC": f"topic-{unique}",
        "KAFKA_GROUP_ID": f"group-{unique}",
        "KAFKA_PARTITION": "auto",
        "KAFKA_TOPIC_PARTITIONS": "6",
    }
    env = upgrade.env | kafka
    (await previous.run("collect", "--once", env=env)).expect(0)
    async with previous.running("consume", env=env) as old:
        await upgrade.stored(kafka, old)
        await upgrade.migrate()
        async with running("consume", env=env) as new:
            await new.wait_for_output("Partition claimed")
            for collector in (previous.run, run):
                before = _batches(old), _batches(new)
                await upgrade.change()
                (await collector("collect", "--once", env=env)).expect(0)
                await upgrade.stored(kafka, old, new)
                await upgrade.check()
                assert _batches(old) > before[0]
                assert _batches(new) > before[1]
            old.signal(signal.SIGTERM)
            (await old.ended()).expect(0)
            await upgrade.change()
            (await run("collect", "--once", env=env)).expect(0)
            await upgrade.stored(kafka, new)
            await upgrade.check()


def _batches(consumer: Program) -> int:
    """How many it has stored."""
    return consumer.stderr().count('"Batch stored"')
