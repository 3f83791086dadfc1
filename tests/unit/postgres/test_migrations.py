"""The migrations as the program finds them."""

from __future__ import annotations

from clusterinfo.postgres.migrations import migrations


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
