"""Notices when another Kafka cluster answers where the first one did: a broker was recreated, an address reassigned.

Stored offsets belong to one cluster; with them another cluster's messages would be skipped, or mixed in. aiokafka
requests metadata whenever a connection breaks, and every five minutes; who answers is in each of them. No issue is
known. It can go when aiokafka keeps the cluster id of its metadata, or has a hook for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer


def notice_other_cluster(consumer: AIOKafkaConsumer, expected: str, on_other: Callable[[str], None]) -> None:
    """Call `on_other` with the id whenever a cluster other than `expected` sends its metadata to `consumer`.

    aiokafka keeps no cluster id and has no hook for it: the one method that takes metadata in is wrapped. Call this
    before the consumer starts.
    """
    cluster: Any = consumer._client.cluster
    update = cluster.update_metadata

    def noticing(metadata: Any) -> Any:
        found = getattr(metadata, "cluster_id", None)  # absent before version 2 of the answer
        if found and found != expected:
            on_other(found)
        return update(metadata)

    cluster.update_metadata = noticing
