"""A batch that cannot be stored at once, as smaller ones that may be. Pure."""

from __future__ import annotations

import msgspec

from clusterinfo.model import Batch, PartitionLane, Record, Rejected
from clusterinfo.postgres.errors import is_of_the_record, said
from clusterinfo.wire import attributes_of, key_of


def divide(batch: Batch, error: BaseException) -> list[Batch]:
    """Two halves of a partition's batch; of a single record that PostgreSQL refused, the batch that sets it aside.

    Empty where there is nothing to divide: a list's page moves as one, and a single record that takes too long is no
    record's fault.
    """
    messages: list[Record | Rejected] = [*batch.records, *batch.rejected]
    messages.sort(key=lambda message: message.offset)
    if not isinstance(batch.lane, PartitionLane) or not messages:
        return []
    if len(messages) > 1:
        middle = len(messages) // 2
        cut = messages[middle].offset
        return [_part(batch, batch.start, cut, messages[:middle]), _part(batch, cut, batch.end, messages[middle:])]
    (message,) = messages
    if not isinstance(message, Record) or not is_of_the_record(error):
        return []
    rejected = Rejected(
        offset=message.offset,
        reason=f"PostgreSQL refused the record: {said(error)}",
        key=key_of(message),
        headers=[*attributes_of(message)],
        value=message.body,
        sqlstate=getattr(error, "sqlstate", None),
    )
    return [_part(batch, batch.start, batch.end, [rejected])]


def _part(batch: Batch, start: int, end: int, messages: list[Record | Rejected]) -> Batch:
    records = [message for message in messages if isinstance(message, Record)]
    rejected = [message for message in messages if isinstance(message, Rejected)]
    size_bytes = sum(len(record.body) for record in records)
    return msgspec.structs.replace(
        batch,
        start=start,
        end=end,
        records=records,
        rejected=rejected,
        size_bytes=size_bytes,
        gap=batch.gap and start == batch.start,
    )
