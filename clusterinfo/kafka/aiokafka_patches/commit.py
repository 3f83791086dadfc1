"""Offsets committed without any effect on the membership.

No issue is known for it (#933 is another fault of the same method: without offsets it commits what was polled):
`AIOKafkaConsumer.commit` retries for ever, and takes "illegal generation" (22), which a commit meets in the middle of a
rebalance, for the end of the membership: it forgets who it is and joins as somebody else, while the group waits for the
one it was. So the request is sent as it is, once, and its answer changes nothing. It can go when `commit` leaves the
membership to the heartbeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import GroupCoordinatorNotAvailableError, NoError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest


async def commit(consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
    """Commit `offsets` (partition -> next offset) for the consumer's group. Safe to cancel.

    Raises KafkaError; nothing follows from it but that the offsets are not shown.
    """
    coordinator = consumer._coordinator
    node = coordinator.coordinator_id
    if node is None:
        raise GroupCoordinatorNotAvailableError
    request = OffsetCommitRequest(
        coordinator.group_id,
        coordinator.generation,
        coordinator.member_id,
        OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        [(topic, [(at.partition, offset, "") for at, offset in of_topic]) for topic, of_topic in _by_topic(offsets)],
    )
    response = await consumer._client.send(node, request, group=ConnectionGroup.COORDINATION)
    for _, partitions in response.topics:
        for _, code in partitions:
            if (error := for_code(code)) is not NoError:
                raise error


def _by_topic(offsets: Mapping[TopicPartition, int]) -> Iterator[tuple[str, list[tuple[TopicPartition, int]]]]:
    for topic, of_topic in groupby(sorted(offsets.items()), key=lambda pair: pair[0].topic):
        yield topic, list(of_topic)
