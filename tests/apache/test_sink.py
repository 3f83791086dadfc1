"""KafkaSink against what only Apache Kafka refuses: messages above a topic's limit, a login nobody asked for."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from clusterinfo.errors import FatalError
from clusterinfo.kafka import probe
from clusterinfo.kafka.aiokafka_patches.stopping import drop_producer
from clusterinfo.kafka.producer import KafkaSink
from clusterinfo.observations import Observation, Stubbed
from clusterinfo.settings import MIB
from tests.integration.brokers import kafka_settings
from tests.kafka.apache import ApacheKafka
from tests.support.kafka import item, new_list, page_of, records_of

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.mark.parametrize("knows", [True, False], ids=["limit known", "limit refused"])
async def test_an_existing_topic_is_not_altered_and_its_limit_is_kept(broker: ApacheKafka, knows: bool) -> None:
    settings, seen = kafka_settings(broker), list[Observation]()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(settings.kafka_topic, 2, 1, topic_configs={"max.message.bytes": "200000"})])
    await admin.close()
    noise = os.urandom(200_000).hex().encode()
    list_id = new_list()
    records = [item(i, "pods", list_id, b'"%s"' % noise[: 1000 if i != 5 else 400_000]) for i in range(10)]
    async with KafkaSink.connect(settings, seen.append) as kafka:
        assert (kafka.topic.partitions, kafka.topic.max_message_bytes) == (2, 200_000)
        if not knows:
            kafka._limit_bytes = 8 * MIB
            kafka._producer, old = None, kafka._producer
            await drop_producer(old)
        for number in range(3):
            await kafka.write(page_of("pods", number, records))
    arrived = [record for records in (await records_of(settings)).values() for record in records]
    assert len(arrived) == 30
    assert sorted(record.state for record in arrived) == [""] * 27 + ["oversize"] * 3
    assert len([one for one in seen if isinstance(one, Stubbed)]) == 3


async def test_a_login_nobody_asked_for_is_reported_at_once(broker: ApacheKafka) -> None:
    settings = kafka_settings(
        broker, kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN", kafka_sasl_username="me",
        kafka_sasl_password="hunter2",
    )  # fmt: skip
    with pytest.raises(FatalError) as failure:
        async with asyncio.timeout(60):
            await probe.probe(settings, 5)
    assert "hunter2" not in str(failure.value)
