"""Fixtures of the contract: each makes a case of one implementation. The servers are the sandbox's."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from tests.contract.sink_cases import (
    kafka_sink,
    names_sink,
    numbering_lanes,
    postgres_sink_of_a_list,
    postgres_sink_of_a_partition,
    store_of_the_tests,
)
from tests.contract.source_cases import list_source, partition_source, watch_source
from tests.integration.brokers import broker, no_authorities

__all__ = [
    "broker",
    "kafka_sink",
    "list_source",
    "names_sink",
    "no_authorities",
    "numbering_lanes",
    "partition_source",
    "postgres_sink_of_a_list",
    "postgres_sink_of_a_partition",
    "store_of_the_tests",
    "watch_source",
]


@pytest.fixture(autouse=True, scope="module")
def what_was_there() -> None:
    """What there is before the first test is of the whole run: no test's collection need go through it.

    Nor that of any test to come: to unfreeze it would give back what was frozen before, half a million objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
async def nothing_unseen() -> AsyncIterator[None]:
    """No error is left for the event loop to report: one in a task or a future that nobody asked."""
    loop, reported = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: reported.append(str(context)))
    yield
    gc.collect()
    loop.set_exception_handler(None)
    assert reported == []
