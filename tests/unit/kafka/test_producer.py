"""Which partition a unit goes to."""

from __future__ import annotations

import pytest

from clusterinfo.kafka.producer import partition_for
from clusterinfo.model import Unit


# Computed by org.apache.kafka.common.utils.Utils of kafka-clients 4.1.0: toPositive(murmur2(text)) % 12
@pytest.mark.parametrize(
    ("unit", "partition"),
    [
        (Unit("5f0c9f2e-7d2c-4b0e-9a55-0a6a9d6a1b11", "", "pods"), 3),
        (Unit("5f0c9f2e-7d2c-4b0e-9a55-0a6a9d6a1b11", "apps", "deployments"), 10),
        (Unit("prod-eu", "", "secrets"), 9),
        (Unit("größe", "example.com", "widgets"), 4),
        (Unit("a", "b", "c"), 10),
        (Unit("c1", "", ""), 2),
    ],
)
def test_a_unit_has_the_partition_that_java_would_give_it(unit: Unit, partition: int) -> None:
    assert partition_for(unit, 12) == partition
