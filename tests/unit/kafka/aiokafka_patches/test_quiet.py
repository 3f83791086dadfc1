"""Of what aiokafka logs, the lines that every first start and every rebalance brings are dropped, and no others."""

from __future__ import annotations

import inspect
import logging
import re

import pytest
from aiokafka.consumer import group_coordinator
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaConnectionError,
    RebalanceInProgressError,
)

from clusterinfo.kafka.aiokafka_patches import quiet

LOOKUP, HEARTBEAT, COMMIT = quiet.EXPECTED


@pytest.mark.parametrize(
    ("message", "arguments", "is_logged"),
    [
        (LOOKUP, (GroupCoordinatorNotAvailableError(),), False),
        (LOOKUP, (KafkaConnectionError(),), True),
        (HEARTBEAT, ("group",), False),
        (COMMIT, ("group", RebalanceInProgressError("group")), False),
        (COMMIT, ("group", IllegalGenerationError("group")), True),
        ("Heartbeat session expired - marking coordinator dead", (), True),
    ],
)
def test_only_what_is_expected_is_dropped(
    message: str, arguments: tuple[object, ...], is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.install()
    logging.getLogger("aiokafka.consumer.group_coordinator").error(message, *arguments)
    assert bool(caplog.records) is is_logged


@pytest.mark.parametrize("message", quiet.EXPECTED)
def test_aiokafka_still_says_so(message: str) -> None:
    assert message in re.sub(r'"\s+"', "", inspect.getsource(group_coordinator))
