"""Showing stored offsets in Kafka, without a say in the membership.

`AIOKafkaConsumer.commit` does more than commit: it retries for ever, and takes "illegal generation" (22), which a
commit meets in the middle of a rebalance, for the end of the membership: it forgets who it is and joins as somebody
else, while the group waits for the one it was. So the request is sent as it is, once, and its answer changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, NoError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from clusterinfo.kafka import client
from clusterinfo.observations import Observe, Warned

COMMIT_TIMEOUT_S = 3.0
COMMIT_FAILURES_TOLD = 10  # in a row; a few belong to every rebalance


class ShownOffsets:
    """What of the stored offsets Kafka has been told, for those who look at the lag. Ours are in the database."""

    def __init__(self, topic: str, observe: Observe) -> None:
        self._topic = topic
        self._observe = observe
        self._committed: dict[int, int] = {}
        self._failures = 0

    async def show(self, consumer: AIOKafkaConsumer, positions: Mapping[int, int]) -> None:
        """Commit those of `positions` (partition -> next offset; -1: not known) that changed, within 3 s.

        Best effort: failures are observed as one warning once ten came in a row.
        """
        offsets = {n: at for n, at in positions.items() if at >= 0 and self._committed.get(n) != at}
        if not offsets:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await commit(consumer, self._topic, offsets)
        except (KafkaError, TimeoutError) as error:
            self._failures += 1
            if self._failures == COMMIT_FAILURES_TOLD:
                self._observe(Warned(message=f"offsets are not shown in Kafka for now: {client.explain(error)}"))
        else:
            self._failures = 0
            self._committed.update(offsets)


async def commit(consumer: AIOKafkaConsumer, topic: str, offsets: Mapping[int, int]) -> None:
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
        [(topic, [(partition, offset, "") for partition, offset in offsets.items()])],
    )
    response = await consumer._client.send(node, request, group=ConnectionGroup.COORDINATION)
    for _, partitions in response.topics:
        for _, code in partitions:
            if (error := for_code(code)) is not NoError:
                raise error
