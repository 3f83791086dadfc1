"""The embedded broker does what the program needs of Kafka, and leaves neither process nor directory behind."""

import asyncio
from contextlib import suppress
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from clusterinfo.sandbox.broker import EmbeddedBroker

DEADLINE_S = 120


async def create_topic(broker: EmbeddedBroker, name: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


async def produce(broker: EmbeddedBroker, topic: str, partitions: int, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True, compression_type="zstd")
    await producer.start()
    try:
        sent = [await producer.send(topic, b"%d" % n * 100, partition=n % partitions) for n in range(count)]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def consume(broker: EmbeddedBroker, topic: str, group: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        values: list[bytes] = []
        while len(values) < count:
            for messages in (await consumer.getmany(timeout_ms=500)).values():
                values += [message.value for message in messages]
        await consumer.commit()
        return values
    finally:
        await consumer.stop()


async def test_topic_idempotent_produce_and_group() -> None:
    async with asyncio.timeout(DEADLINE_S), EmbeddedBroker() as broker:
        assert broker.env() == {"KAFKA_BROKERS": f"127.0.0.1:{broker.port}"}
        await create_topic(broker, "t", 6)
        await produce(broker, "t", 6, 60)
        values = await consume(broker, "t", "g", 60)
        assert sorted(values) == sorted(b"%d" % n * 100 for n in range(60))


async def test_data_and_offsets_outlive_a_graceful_restart() -> None:
    async with asyncio.timeout(DEADLINE_S), EmbeddedBroker() as broker:
        await create_topic(broker, "t", 2)
        await produce(broker, "t", 2, 10)
        await consume(broker, "t", "g", 10)
        port = broker.port
        await broker.stop()
        assert broker.pid is None
        await broker.start()
        assert broker.port == port
        await produce(broker, "t", 2, 4)
        assert len(await consume(broker, "t", "g", 4)) == 4
        assert len(await consume(broker, "t", "another", 14)) == 14
        pid, directory = broker.pid, broker.directory
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


async def test_only_kafka_is_served() -> None:
    async with EmbeddedBroker() as broker:
        process = Path(f"/proc/{broker.pid}")
        sockets = set()
        for descriptor in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                sockets.add(str(descriptor.readlink()))
        lines = [line.split() for line in (process / "net" / "tcp").read_text().splitlines()[1:]]
        # proc(5): local address in hex, state 0A is LISTEN, the tenth column is the inode.
        listening = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
        assert f"0100007F:{broker.port:04X}" in listening
        assert all(address.startswith("0100007F:") for address in listening)
        assert len(listening) <= 2  # Kafka and its own control port


async def fail_within(broker: EmbeddedBroker) -> tuple[Path, int | None]:
    try:
        async with broker:
            seen = broker.directory, broker.pid
            raise ZeroDivisionError
    except ZeroDivisionError:
        return seen


async def test_nothing_is_left_when_the_block_fails() -> None:
    directory, pid = await fail_within(EmbeddedBroker())
    assert pid is not None
    assert not directory.exists()
    assert not Path(f"/proc/{pid}").exists()
