"""A PostgreSQL with two sinks, for all histories of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.bench import Bench
from tests.model.hunting import on_a_server


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One bench: histories share its database."""
    with on_a_server() as bench:
        yield bench
