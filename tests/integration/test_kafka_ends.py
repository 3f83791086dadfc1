"""Where partitions end, and what came since a moment, as a broker tells a client that reads nothing."""

from __future__ import annotations

import time

from clusterinfo.kafka.end_offsets import End, end_offsets, ends_since
from tests.integration.brokers import Broker, kafka_settings
from tests.support.members import fill


async def test_what_came_since_a_moment_is_told_with_its_date(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    at = settings.kafka_topic, 0
    began_s = time.time()
    await fill(settings, each=30)
    (first,) = (await ends_since(settings, {})).values()
    between_s = time.time()
    await fill(settings, each=30)
    (second,) = (await ends_since(settings, {at: between_s})).values()
    (none,) = (await ends_since(settings, {at: time.time() + 60})).values()

    end = first.offset
    assert (await end_offsets(settings)) == {at: second.offset}
    assert (first.next_offset, second.next_offset, none) == (0, end, End(second.offset, -1, 0.0))
    assert began_s - 0.001 <= first.next_sent_s <= between_s <= second.next_sent_s + 0.001 <= time.time() + 0.001


async def test_a_topic_that_is_missing_has_no_ends(broker: Broker) -> None:
    settings = kafka_settings(broker)
    assert await ends_since(settings, {(settings.kafka_topic, 0): 1.0}) == {}
    assert await end_offsets(settings) == {}
