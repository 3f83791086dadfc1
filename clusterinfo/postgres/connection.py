"""What this package needs of asyncpg's connections and pools, as types: asyncpg itself has none.

Structural: asyncpg's classes fit, and so does what stands in for them in tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Row(Protocol):
    """A row of a result: a value by its column's name; iterated, the values in the order of the columns."""

    def __getitem__(self, key: str, /) -> Any:
        """The value of a column. Raises KeyError if there is none."""

    def __iter__(self) -> Iterator[Any]:
        """The values."""


class Connection(Protocol):
    """A connection that one task uses at a time. Its methods raise what `errors.FOREIGN` names."""

    async def execute(self, query: str, /, *arguments: object) -> str:
        """Run a statement, or several without arguments; return the command tag (`UPDATE 1`)."""

    async def fetch(self, query: str, /, *arguments: object) -> Sequence[Row]:
        """All rows."""

    async def fetchrow(self, query: str, /, *arguments: object) -> Row | None:
        """The first row; None if there is none."""

    async def fetchval(self, query: str, /, *arguments: object) -> Any:
        """The first row's first value; None if there is no row."""

    async def copy_records_to_table(
        self,
        table_name: str,
        /,
        *,
        records: Iterable[Sequence[object]] | AsyncIterable[Sequence[object]],
        columns: Sequence[str],
    ) -> str:
        """COPY `records` into a table; return the command tag."""

    async def copy_to_table(
        self,
        table_name: str,
        /,
        *,
        source: AsyncIterable[bytes],
        columns: Sequence[str],
        format: str,  # noqa: A002 - asyncpg's name for it
    ) -> str:
        """COPY what `source` gives, in a format of COPY, into a table; return the command tag."""

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[object]:
        """A transaction around a block, or a savepoint where one is under way: rolled back if the block raises."""


class Pool(Protocol):
    """Connections that are lent out, one to each borrower."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Borrow a connection for a block; TimeoutError if none is free, or can be made, within `timeout` seconds."""

    async def expire_connections(self) -> None:
        """Replace every connection before it is lent again."""

    def get_size(self) -> int:
        """How many connections there are."""

    def get_idle_size(self) -> int:
        """How many of them are not lent out."""

    def get_max_size(self) -> int:
        """How many there may be."""
