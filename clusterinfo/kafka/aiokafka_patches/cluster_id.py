"""Notices when another Kafka cluster answers where the first one did: a broker made anew, an address given away.

Stored offsets belong to one cluster; with them another cluster's messages would be skipped, or mixed in. aiokafka asks
for metadata whenever a connection breaks, and every five minutes; who answers is in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer


def notice_other_cluster(consumer: AIOKafkaConsumer, expected: str, on_other: Callable[[str], None]) -> None:
    """Call `on_other` with the id whenever a cluster other than `expected` tells its metadata to `consumer`.

    aiokafka keeps no cluster id and has no hook for it: the one method that takes metadata in is wrapped. Call this
    before the consumer starts.
    """
    cluster: Any = consumer._client.cluster
    update = cluster.update_metadata

    def noticing(metadata: Any) -> Any:
        told = getattr(metadata, "cluster_id", None)  # absent before version 2 of the answer
        if told and told != expected:
            on_other(told)
        return update(metadata)

    cluster.update_metadata = noticing
