"""The rights of the two roles beside the owner, as SQL: one that stores and one that reads. Pure; nothing connects.

The owner is whoever runs `clusterinfo migrate`: schema and tables are its own, and the migration gives both roles what
they need if they are there, or if it may make them. Partitions of the history are made for the writer by functions that
run as the owner (see schema/0005_roles.sql), so that it needs no right to create.
"""

from __future__ import annotations

from string import Template

WRITER, READER = "clusterinfo_writer", "clusterinfo_reader"

_GRANTS = Template("""\
-- Run this as the role that runs `clusterinfo migrate` (the owner of schema $schema), after its first run, and again
-- whenever you like. Making roles needs CREATEROLE: if the owner lacks it, let somebody else run the first statement.
do $$$$
declare
    wanted text;
begin
    foreach wanted in array array['$writer', '$reader'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I nologin', wanted);
        end if;
    end loop;
end
$$$$;

-- Who stores (`clusterinfo consume --no-migrate`, `clusterinfo legacy --no-migrate`) makes and alters no table of ours;
-- what it stages lies in temporary tables.
grant temporary on database "$database" to $writer;

-- The rest of what both may do, which the schema knows: schema/0005_roles.sql.
select $schema.grant_rights();

-- Neither logs in by itself. For each user of yours: grant $writer to <user>; or grant $reader to <user>;
""")


def grants(schema: str, database: str) -> str:
    """Statements that give both roles what they need in `schema` of `database`, and nothing else; for the owner."""
    quoted = database.replace('"', '""')
    return _GRANTS.substitute(schema=schema, database=quoted, writer=WRITER, reader=READER)
