"""docs/DATA.md: views, functions and tables, as the comments in the database have them.

`python -m tests.support.data_document` writes them, from a schema it migrates on a server of its own.
"""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg

from clusterinfo.postgres.migrations import migrate
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.support.generated import Region

DOCUMENT = "docs/DATA.md"
SCHEMA = "clusterinfo"
COMMAND = "python -m tests.support.data_document"
FOR_PEOPLE = ("known_since", "resources_as_of", "resource_changes", "not_observed")
"""Functions that are asked; the others are what views are made of."""

RELATIONS = """
select c.relname as name, obj_description(c.oid) as meaning, array_agg(row(
    a.attname, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum)) order by a.attnum) as columns
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = $1::regnamespace and c.relkind = any ($2::"char"[]) and not c.relispartition
  and c.relname <> 'schema_migration'
group by c.oid
order by c.oid"""

FUNCTIONS = """
select p.proname as name, pg_get_function_arguments(p.oid) as arguments, obj_description(p.oid) as meaning
from pg_proc p
where p.pronamespace = $1::regnamespace and p.proname = any ($2)
order by p.oid"""


async def views(connection: asyncpg.Connection) -> str:
    """Views, then functions."""
    found = [_relation(row) for row in await connection.fetch(RELATIONS, SCHEMA, [b"v"])]
    for row in await connection.fetch(FUNCTIONS, SCHEMA, FOR_PEOPLE):
        arguments = row["arguments"].partition(", OUT ")[0]
        found.append(f"### `{row['name']}({arguments})`\n\n{row['meaning']}")
    return "\n\n".join(found)


async def tables(connection: asyncpg.Connection) -> str:
    """Tables, in the order they are made in."""
    return "\n\n".join(_relation(row) for row in await connection.fetch(RELATIONS, SCHEMA, [b"r", b"p"]))


async def regions(connection: asyncpg.Connection) -> list[Region]:
    """The generated parts of the document."""
    made = {"views": await views(connection), "tables": await tables(connection)}
    return [Region(DOCUMENT, name, partial(str, text)) for name, text in made.items()]


def _relation(row: asyncpg.Record) -> str:
    lines = [f"### {row['name']}", "", _cell(row["meaning"]), "", "| column | type | meaning |", "|---|---|---|"]
    types = {"timestamp with time zone": "timestamptz", "double precision": "float8"}
    lines += [f"| `{name}` | {types.get(kind, kind)} | {_cell(meaning)} |" for name, kind, meaning in row["columns"]]
    return "\n".join(lines)


def _cell(text: str | None) -> str:
    """A comment as a table can hold it. Raises AssertionError for one that is missing."""
    assert text, "a view, table or column has no comment: see clusterinfo/postgres/schema"
    return text.replace("|", "\\|").replace("<", "&lt;")


async def _write() -> None:
    async with EmbeddedPostgres() as server:
        connection = await asyncpg.connect(server.dsn(), timeout=60)
        await migrate(connection, SCHEMA)
        for region in await regions(connection):
            region.write()
        await connection.close()


if __name__ == "__main__":
    asyncio.run(_write())
