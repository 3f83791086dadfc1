"""A PostgreSQL with two sinks, for all histories of a module; and with this folder, the tests that miss guards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model import gate
from tests.model.bench import Bench
from tests.model.hunting import on_a_server


def pytest_configure(config: pytest.Config) -> None:
    """Whoever runs this folder as a whole runs the mutation gate as a whole."""
    if gate.is_whole(config):
        config.pluginmanager.register(gate)
        gate.add_tests(config)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One bench: histories share its database."""
    with on_a_server() as bench:
        yield bench
