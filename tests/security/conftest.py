"""Servers that ask for certificates, passwords and rights. Not among `testpaths`: they need Java, Maven and Debian's
PostgreSQL (the embedded one has no TLS); .ci/run has all three.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.kafka.apache import ApacheKafka
from tests.security.brokers import guarded_kafka
from tests.security.certificates import Certificates, make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Right and wrong ones, in files that everybody may read."""
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
async def kafka(certificates: Certificates) -> AsyncIterator[ApacheKafka]:
    """The session's broker; see `brokers.py`."""
    async with guarded_kafka(certificates) as running:
        yield running
