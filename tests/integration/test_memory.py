"""Memory depends on the settings, never on the size of the cluster. `python -m tests.bench --memory` measures more."""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.integration.brokers import Broker
from tests.support.memory import Peaks, measure

pytestmark = pytest.mark.embedded_only

SMALL, LARGE = 2_000, 8_000
MOST_MIB = 160e6 / 2**20
GROWTH_MIB = 24.0
"""A budget of bytes in flight, 16 MiB, which the small cluster does not fill, and half of one."""
SETTINGS = {"PAGE_SIZE": "100", "BATCH_SIZE": "500", "BATCH_BYTES": "1MiB", "KAFKA_TOPIC_PARTITIONS": "6"}
"""Small pages and batches, of which the small cluster too has more than fit into memory at once."""


async def test_four_times_the_objects_take_no_more_memory(database: Database, broker: Broker) -> None:
    peaks: list[Peaks] = []
    for objects in (SMALL, LARGE):
        peaks.append(await measure(objects, broker.bootstrap, database.env | SETTINGS))
    small, large = peaks
    assert large.collect_mib < small.collect_mib + GROWTH_MIB
    assert large.consume_mib < small.consume_mib + GROWTH_MIB
    assert max(large.collect_mib, large.consume_mib) < MOST_MIB
