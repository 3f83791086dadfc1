"""Stored offsets committed to Kafka, for whoever watches the group's lag. Those that count are in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from clusterinfo.errors import one_line
from clusterinfo.kafka.aiokafka_patches.commit import commit
from clusterinfo.observations import Observe, Warned

COMMIT_TIMEOUT_S = 3.0
FAILURES_ALLOWED = 10  # in a row; a few belong to every rebalance


class CommittedOffsets:
    """What of the stored offsets Kafka has."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._committed: dict[TopicPartition, int] = {}
        self._failures = 0

    async def commit(self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
        """Commit those of `positions` (partition -> next offset; -1: not known) that changed, within 3 s.

        Best effort: failures are observed as one warning once ten came in a row.
        """
        offsets = {of: at for of, at in positions.items() if at >= 0 and self._committed.get(of) != at}
        if not offsets:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await commit(consumer, offsets)
        except (KafkaError, TimeoutError) as error:
            self._failures += 1
            if self._failures == FAILURES_ALLOWED:
                self._observe(Warned(message=f"offsets are not committed to Kafka for now: {one_line(error)}"))
        else:
            self._failures = 0
            self._committed.update(offsets)
