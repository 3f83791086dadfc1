"""AssignedPartition: one partition of a consumer, read for as long as the consumer has it.

What a call on a consumer that several lanes share needs: every wait ends with the lane, errors of ours come out, and a
partition that was taken away only sets `is_given_up`, since the event that stops the lane is on its way. It knows
nothing of batches.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError

from clusterinfo.errors import one_line
from clusterinfo.kafka.aiokafka_patches import reading
from clusterinfo.kafka.aiokafka_patches.message import Alike, Item, Message
from clusterinfo.kafka.errors import is_final, translate
from clusterinfo.model import PartitionLane
from clusterinfo.observations import Observe, Recovered, Retrying

RETRY_S = 0.5
OFFSETS_TIMEOUT_S = 10.0
NOT_OURS = IllegalStateError, AssertionError
"""How aiokafka says that a partition is not assigned; the latter between a change of a subscription by pattern, since a
topic came, and the assignment that follows from it."""


class AssignedPartition:
    """A partition, and whether its reader may go on.

    Attributes: `lane`; `is_given_up`, set here when the consumer does not have the partition (any more), and by whoever
    wants its reader to end; `waits_since_s`, when the present wait for Kafka began (loop time), else None.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, lane: PartitionLane, *, observe: Observe, stopping: asyncio.Event
    ) -> None:
        self.lane = lane
        self.is_given_up = False
        self.waits_since_s: float | None = None
        self._alike = Alike()
        self._failures: Counter[str] = Counter()  # by step, in a row
        self._consumer = consumer
        self._partition = TopicPartition(lane.topic, lane.partition)
        self._observe = observe
        self._stopping = stopping

    @property
    def is_over(self) -> bool:
        """Whether its reader must end."""
        return self._stopping.is_set() or self.is_given_up

    async def bounds(self) -> tuple[int, int] | None:
        """Offset of the oldest message and of the one to come; None once the lane must stop.

        Requests them until Kafka answers: a broker may be away for hours.
        """
        self._note_wait()
        while not self.is_over:
            try:
                async with asyncio.timeout(OFFSETS_TIMEOUT_S):
                    oldest = await self._consumer.beginning_offsets([self._partition])
                    newest = await self._consumer.end_offsets([self._partition])
                self._note_success("ask for offsets")
                self.waits_since_s = None
                return int(oldest[self._partition]), int(newest[self._partition])
            except (KafkaError, OSError) as error:
                if is_final(error):
                    raise translate(error, f"asking for the offsets of {self.lane}") from error
                await self.wait_after(error, "ask for offsets")
        return None

    async def read(self, wait_s: float, most: int, start: int, size_bytes: int) -> Sequence[Message | Item]:
        """At most `most` messages from offset `start` on that are there, or that come within `wait_s`.

        Never cancel it. Raises TooLargeError if they are larger than `size_bytes` together, KafkaError, and whatever
        else aiokafka makes of a message that nobody should have sent.
        """
        self._note_wait()
        try:
            found = await self._getmany(int(wait_s * 1000), most, start, size_bytes)
        except ConsumerStoppedError:
            self.is_given_up = True
            return ()
        self._note_success("read")
        messages: Sequence[Message | Item] = found.get(self._partition, ())
        if messages:
            self.waits_since_s = None
        return messages

    async def _getmany(self, timeout_ms: int, most: int, start: int, size_bytes: int) -> Any:
        while True:
            try:
                with reading.at_most(size_bytes, start, most, self._alike):
                    return await self._consumer.getmany(self._partition, timeout_ms=timeout_ms, max_records=most)
            except reading.PausedError as pause:
                await pause.end()

    def seek(self, offset: int) -> None:
        """Read on from `offset`."""
        try:
            self._consumer.seek(self._partition, offset)
        except NOT_OURS:
            self.is_given_up = True

    def resume(self) -> None:
        """Have its messages fetched."""
        try:
            self._consumer.resume(self._partition)
        except NOT_OURS:
            self.is_given_up = True

    def pause(self) -> None:
        """Have no more of its messages fetched."""
        try:
            self._consumer.pause(self._partition)
        except NOT_OURS:
            self.is_given_up = True

    async def wait_after(self, error: BaseException, step: str) -> None:
        """Half a second after an error that waiting may help; `step` is what failed."""
        self._failures[step] += 1
        self._observe(Retrying(lane=str(self.lane), step=step, error=one_line(error), wait_s=RETRY_S))
        await asyncio.sleep(RETRY_S)

    def _note_success(self, step: str) -> None:
        if failures := self._failures.pop(step, 0):
            self._observe(Recovered(lane=str(self.lane), step=step, attempts=failures + 1))

    def _note_wait(self) -> None:
        if self.waits_since_s is None:
            self.waits_since_s = asyncio.get_running_loop().time()
