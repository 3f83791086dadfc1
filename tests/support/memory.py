"""Peak memory of `collect --once` and `consume --until-idle` over clusters of different sizes.

The simulated API, the broker and the database are processes of their own, so that their memory does not count.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.programs import Program, run, simulated_api


@dataclass(frozen=True, slots=True)
class Peaks:
    """MiB of resident memory at the highest, for a cluster of `objects`."""

    objects: int
    collect_mib: float
    consume_mib: float


async def measure(objects: int, bootstrap: str, settings: Mapping[str, str], timeout_s: float = 240) -> Peaks:
    """Collect and consume a cluster of that many objects of 12 kinds.

    `settings`: the DB_* variables of an empty database, and whatever is not to be as it is by default.
    """
    name = f"memory-{uuid.uuid4().hex[:12]}"
    kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": bootstrap, "KAFKA_TOPIC": name, "KAFKA_PARTITION": "auto"}
    async with simulated_api(objects, 12) as api:
        env = api.env | kafka | dict(settings)
        collect = await run("collect", "--once", env=env, timeout_s=timeout_s, launch=Program)
        collect.expect(0)
    consume = await run("consume", "--until-idle", "2s", env=env, timeout_s=timeout_s, launch=Program)
    consume.expect(0)
    return Peaks(objects, collect.peak_mib, consume.peak_mib)
