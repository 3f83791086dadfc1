"""KafkaSink against a broker: what arrives, what is refused, and what happens when the broker is not there."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from clusterinfo.errors import ConfigError, FatalError, RestartError, TransientError
from clusterinfo.kafka import probe, producer, topics
from clusterinfo.kafka.producer import KafkaSink, partition_for
from clusterinfo.model import Batch, Record, RecordType, WatchLane
from clusterinfo.observations import Observation, Produced, Retrying, Stubbed, Warned, unobserved
from clusterinfo.sandbox.broker import EmbeddedBroker
from clusterinfo.settings import MIB
from clusterinfo.statements import WatchProgress, encode
from tests.integration.brokers import Broker, kafka_settings, running_broker
from tests.kafka.apache import ApacheKafka
from tests.support.kafka import completed, item, lane_of, new_list, page_of, read_all, records_of
from tests.support.records import NOON, uuid7

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SESSION = uuid7(NOON)
PODS = partition_for(lane_of("pods").unit, 6)
"""Where the lists of pods go."""


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[EmbeddedBroker | ApacheKafka]:
    """A broker to freeze, for one test after another."""
    async with running_broker() as started:
        yield started


@contextmanager
def frozen(pid: int | None) -> Iterator[None]:
    """The broker hears nothing and says nothing in the block, as behind a broken switch."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)  # a signal takes a moment to reach every thread
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_list_arrives_whole_in_order_on_its_partition_and_is_reported_once(broker: Broker) -> None:
    settings, seen = kafka_settings(broker), list[Observation]()
    sent: dict[str, list[Record]] = {}
    async with KafkaSink.connect(settings, seen.append) as kafka:
        for resource in ("pods", "secrets", "nodes"):
            list_id = new_list()
            pages = [[item(page * 700 + i, resource, list_id) for i in range(700)] for page in range(2)]
            pages[1].append(completed(resource, list_id))
            sent[resource] = pages[0] + pages[1]
            await kafka.open(lane_of(resource))
            for number, records in enumerate(pages):
                receipt = await kafka.write(page_of(resource, number, records))
                assert receipt.position == number + 1
    found = await records_of(settings)
    for resource, records in sent.items():
        partition = partition_for(lane_of(resource).unit, 6)
        arrived = [record for record in found[partition] if record.resource == resource]
        assert [msgspec.structs.replace(record, offset=-1) for record in arrived] == records
        [produced] = [one for one in seen if isinstance(one, Produced) and one.resource == resource]
        assert produced == Produced(
            topic=settings.kafka_topic,
            partition=partition,
            offset=arrived[-1].offset,
            size_bytes=sum(len(record.body) for record in records),
            records=len(records),
            resource=resource,
        )


async def test_lists_side_by_side_on_one_partition_all_get_their_turn(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    body = b'"' + b"x" * 20_000 + b'"'
    async with KafkaSink.connect(settings, unobserved) as kafka, asyncio.timeout(60):

        async def send(resource: str) -> None:
            for number in range(4):
                list_id = new_list()
                await kafka.write(page_of(resource, number, [item(i, resource, list_id, body) for i in range(150)]))

        await asyncio.gather(*(send(f"r{number}") for number in range(6)))
    assert len((await read_all(settings))[0]) == 6 * 4 * 150


async def test_an_abandoned_list_is_not_counted_into_the_next(broker: Broker) -> None:
    settings, seen = kafka_settings(broker), list[Observation]()
    async with KafkaSink.connect(settings, seen.append) as kafka:
        await kafka.write(page_of("pods", 0, [item(i, "pods", new_list()) for i in range(1)]))
        list_id = new_list()
        await kafka.write(page_of("pods", 0, [item(1, "pods", list_id), completed("pods", list_id)]))
    [produced] = [one for one in seen if isinstance(one, Produced)]
    assert produced.records == 2


async def test_a_pinned_partition_takes_everything_and_is_warned_about_if_nobody_chose_it(broker: Broker) -> None:
    settings, seen = kafka_settings(broker, kafka_partition=0), list[Observation]()
    async with KafkaSink.connect(settings, seen.append) as kafka:
        for resource in ("pods", "secrets", "nodes"):
            await kafka.write(page_of(resource, 0, [item(1, resource, new_list())]))
    found = {partition: len(records) for partition, records in (await records_of(settings)).items() if records}
    assert found == {0: 3}
    [warning] = [one for one in seen if isinstance(one, Warned)]
    assert "KAFKA_PARTITION=auto" in warning.remedy
    beyond = settings.model_copy(update={"kafka_partition": 6})
    with pytest.raises(ConfigError, match="KAFKA_PARTITION is 6"):
        async with KafkaSink.connect(beyond, unobserved):
            pass


async def test_an_object_above_the_limit_becomes_a_stub_that_still_counts(broker: Broker) -> None:
    settings, seen = kafka_settings(broker), list[Observation]()
    body, list_id = b'"' + b"x" * (9 * MIB) + b'"', new_list()
    big = item(1, "pods", list_id, body)
    async with KafkaSink.connect(settings, seen.append) as kafka:
        await kafka.write(page_of("pods", 0, [item(0, "pods", list_id), big, completed("pods", list_id)]))
    arrived = (await records_of(settings))[PODS]
    assert [record.state for record in arrived] == ["", "oversize", ""]
    assert msgspec.json.decode(arrived[1].body) == {
        "size_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    assert arrived[1].resource_version == big.resource_version
    [stubbed] = [one for one in seen if isinstance(one, Stubbed)]
    assert (stubbed.name, stubbed.size_bytes) == (big.name, len(body))


async def test_a_large_object_that_compresses_well_arrives_whole(broker: Broker) -> None:
    settings = kafka_settings(broker)
    body = b'"' + b"x" * (7 * MIB) + b'"'
    async with KafkaSink.connect(settings, unobserved) as kafka:
        await kafka.write(page_of("pods", 0, [item(1, "pods", new_list(), body)]))
    assert (await records_of(settings))[PODS][0].body == body


async def test_no_broker_is_one_line_within_the_time_given(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inspect.unwrap(topics.connected_admin), "__defaults__", (2.0,))
    settings = kafka_settings(broker, kafka_brokers="127.0.0.1:1,127.0.0.1:2")
    began = time.monotonic()
    with pytest.raises(FatalError, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2.*refused.*KAFKA_BROKERS") as failure:
        async with KafkaSink.connect(settings, unobserved):
            pass
    assert time.monotonic() - began < 30
    assert "\n" not in str(failure.value)
    assert caplog.records == []
    assert probe.CONNECT_TIMEOUT_S == 20


async def test_an_outage_restarts_the_list_and_the_next_one_gets_through(
    own: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kafka_settings(own)
    async with KafkaSink.connect(settings, unobserved) as kafka:
        await kafka.write(page_of("pods", 0, [item(1, "pods", new_list())]))
        monkeypatch.setattr(producer, "SEND_TIMEOUT_S", 1.5)
        monkeypatch.setattr(producer, "CONNECT_TIMEOUT_S", 1.0)
        with frozen(own.pid):
            with pytest.raises(RestartError, match="pods"):
                await kafka.write(page_of("pods", 0, [item(2, "pods", new_list())]))
            with pytest.raises(TransientError):  # no producer to be had: nothing was sent
                await kafka.write(page_of("pods", 0, [item(3, "pods", new_list())]))
        monkeypatch.undo()
        await kafka.write(page_of("pods", 0, [item(4, "pods", new_list())]))


async def test_leaving_in_an_outage_returns(own: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "STOP_TIMEOUT_S", 1.0)
    with ExitStack() as thawed:
        async with KafkaSink.connect(kafka_settings(own), unobserved) as kafka:
            await kafka.write(page_of("pods", 0, [item(1, "pods", new_list())]))
            thawed.enter_context(frozen(own.pid))
            writing = asyncio.create_task(kafka.write(page_of("pods", 0, [item(2, "pods", new_list())])))
            await asyncio.sleep(0.2)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            left = time.monotonic()
        assert time.monotonic() - left < 30


async def test_a_cancelled_write_leaves_a_sink_that_works(broker: Broker) -> None:
    settings = kafka_settings(broker)
    body = b'"' + b"x" * 20_000 + b'"'
    async with KafkaSink.connect(settings, unobserved) as kafka:
        for pause_s in (0.0, 0.001, 0.01):
            list_id = new_list()
            records = [item(i, "pods", list_id, body) for i in range(300)]
            writing = asyncio.create_task(kafka.write(page_of("pods", 0, records)))
            await asyncio.sleep(pause_s)
            writing.cancel()
            await asyncio.wait([writing])
        last = new_list()
        await kafka.write(page_of("pods", 0, [item(1, "pods", last)]))
    assert (await records_of(settings))[PODS][-1].list == last


@pytest.mark.parametrize("code", [45, 47, 59], ids=["out of order", "old epoch", "unknown producer"])
async def test_a_producer_that_kafka_no_longer_takes_is_replaced_and_the_list_starts_again(
    broker: Broker, code: int
) -> None:
    settings = kafka_settings(broker)
    async with KafkaSink.connect(settings, unobserved) as kafka:
        await kafka.write(page_of("pods", 0, [item(1, "pods", new_list())]))
        before = kafka._producer
        assert before is not None
        answer_produce_requests_with(before, code)
        with pytest.raises(RestartError, match="pods"):
            await kafka.write(page_of("pods", 0, [item(2, "pods", new_list())]))
        await kafka.write(page_of("pods", 0, [item(3, "pods", new_list())]))
        assert kafka._producer not in (None, before)
    assert (await records_of(settings))[PODS][-1].name == "o-3"


def watched(resource: str, *names: str) -> Batch:
    """What one session says by watching `resource`."""
    lane = WatchLane(lane_of(resource).unit, "", SESSION)
    records = [
        msgspec.structs.replace(item(number, resource, "", b"{}"), name=name, session=SESSION)
        for number, name in enumerate(names)
    ]
    return Batch(lane=lane, start=0, end=1, records=records)


def progress(partition: int) -> Batch:
    record = Record(
        type=RecordType.WATCH_PROGRESS,
        cluster=lane_of("").unit.cluster,
        cluster_name="test",
        observed_at=NOON,
        body=encode(WatchProgress(NOON)),
        session=SESSION,
        partition=partition,
    )
    return Batch(lane=WatchLane(record.unit, "", SESSION), start=0, end=1, records=[record])


async def test_what_is_watched_is_numbered_by_partition_and_sent_again_in_order_after_an_outage(
    own: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Observation] = []
    settings = kafka_settings(own)
    async with KafkaSink.connect(settings, seen.append) as kafka:
        lane, partition = kafka.progress_lane(WatchLane(lane_of("pods").unit, "", SESSION))
        assert (lane, partition) == (progress(PODS).lane, PODS)
        await kafka.write(watched("pods", "a", "b"))
        monkeypatch.setattr(producer, "SEND_TIMEOUT_S", 1.0)
        with frozen(own.pid):
            writing = [asyncio.create_task(kafka.write(watched("pods", name))) for name in "cd"]
            await asyncio.sleep(1.5)
            assert kafka.next_number(WatchLane(lane_of("pods").unit, "", SESSION)) == 5
            writing.append(asyncio.create_task(kafka.write(progress(PODS))))
            await asyncio.sleep(0)
            assert not any(task.done() for task in writing)
        monkeypatch.undo()
        await asyncio.gather(*writing)
        await kafka.write(watched("secrets", "x"))
    found = await records_of(settings)
    assert any(isinstance(one, Retrying) for one in seen)
    assert [(one.number, one.name) for one in found[partition_for(lane_of("secrets").unit, 6)]] == [(1, "x")]
    newest = 0
    for record in found[PODS]:
        assert record.number <= newest + 1, "no number before those below it"
        newest = max(newest, record.number)
    said = {one.number: (one.name, one.partition) for one in found[PODS]}
    assert said == {1: ("a", -1), 2: ("b", -1), 3: ("c", -1), 4: ("d", -1), 5: ("", PODS)}


async def test_more_partitions_are_noticed_and_kinds_spread_anew(broker: Broker) -> None:
    settings = kafka_settings(broker)
    async with KafkaSink.connect(settings, unobserved) as kafka:
        assert not await kafka.renewed()
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_brokers)
        await admin.start()
        try:
            await admin.create_partitions({settings.kafka_topic: NewPartitions(12)})
        finally:
            await admin.close()
        async with asyncio.timeout(60):
            while not await kafka.renewed():
                await asyncio.sleep(0.2)
        lane = WatchLane(lane_of("pods").unit, "", SESSION)
        assert kafka.progress_lane(lane)[1] == partition_for(lane.unit, 12)
        assert not await kafka.renewed()


async def test_a_watched_object_that_is_refused_becomes_a_stub_before_what_follows_it(broker: Broker) -> None:
    settings = kafka_settings(broker)
    async with KafkaSink.connect(settings, unobserved) as kafka:
        await kafka.write(watched("pods", "a"))
        assert kafka._producer is not None
        left = [3]
        start = kafka._start

        async def refused_as_well() -> AIOKafkaProducer:
            another = await start()
            answer_produce_requests_with(another, 10, left)
            return another

        kafka._start = refused_as_well  # type: ignore[method-assign]
        answer_produce_requests_with(kafka._producer, 10, left)
        await kafka.write(watched("pods", "b", "c", "d", "e"))
        assert left == [0]
    found = [(one.number, one.name, one.state) for one in (await records_of(settings))[PODS]]
    stub = found.index((2, "b", "oversize"))
    assert found[stub:] == [(2, "b", "oversize"), (3, "c", ""), (4, "d", ""), (5, "e", "")]


def answer_produce_requests_with(producer: AIOKafkaProducer, code: int, left: list[int] | None = None) -> None:
    """Every partition of every answer to a ProduceRequest (Kafka's API key 0) says `code`; of as many as are `left`."""
    client = producer.client
    send = client.send

    async def refused(node_id: int, request: Any, *args: Any, **named: Any) -> Any:
        response = await send(node_id, request, *args, **named)
        if request.API_KEY == 0 and (left is None or left[0] > 0):
            if left is not None:
                left[0] -= 1
            response.topics = [(topic, [(one[0], code, *one[2:]) for one in parts]) for topic, parts in response.topics]
        return response

    client.send = refused
