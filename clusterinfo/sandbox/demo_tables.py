"""What the demo shows: questions in SQL and their answers, as tables a person likes to read. Reads only."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
from rich import box
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from clusterinfo.sandbox.demo_runs import Measured
from clusterinfo.sandbox.demo_servers import SCHEMA, ObjectKey, Servers

SEARCH_PATH = f"options=-csearch_path%3D{SCHEMA}"
MOST_KINDS = 40


@dataclass(frozen=True, slots=True)
class Question:
    """One question, in words and in SQL."""

    words: str
    sql: str


KINDS = Question(
    "Which kinds are there, and how far can each be believed?",
    f"""
select kind, api_group, objects, state, age_s::int as seconds_ago
from freshness
where objects > 0
order by objects desc, kind
limit {MOST_KINDS}""",  # noqa: S608 - a constant
)

EMPTY_KINDS = """
select state, count(*) as kinds from freshness where coalesce(objects, 0) = 0 group by state order by kinds desc"""

NOT_LISTED = Question(
    "Which kinds could not be listed, and why? (Nothing of them is ever taken for deleted.)",
    """
select api_group, resource, reach, state, last_error
from freshness
where state in ('forbidden', 'failed', 'unverified')
order by state, api_group, resource limit 20""",
)

QUESTIONS = (
    Question(
        "Which pods are not ready, and why?",
        """
select coalesce(reason, phase) as why, count(*) as pods, min(namespace || '/' || name) as for_example
from pods
where not ready and phase <> 'Succeeded'
group by why order by pods desc limit 5""",
    ),
    Question(
        "Which images are used most?",
        """
select image, count(*) as containers, count(distinct namespace) as namespaces
from container_images
group by image order by containers desc, image limit 5""",
    ),
    Question(
        "Which nodes have given away most of their CPU?",
        """
select n.name as node, sum(p.cpu_request_cores) as requested, n.cpu_allocatable_cores as allocatable,
       round(100 * sum(p.cpu_request_cores) / n.cpu_allocatable_cores) as percent
from nodes n
join pods p on p.cluster = n.cluster and p.node_name = n.name and p.phase in ('Pending', 'Running')
where n.cpu_allocatable_cores > 0
group by n.cluster, n.name, n.cpu_allocatable_cores order by percent desc nulls last, node limit 5""",
    ),
    Question(
        "What is known of Secrets? Keys, and fingerprints in place of values: those never left the collector.",
        """
select namespace || '/' || name as secret, key, value
from resources, jsonb_each_text(object -> 'data') as data (key, value)
where resource = 'secrets' and api_group = ''
order by namespace, name, key limit 4""",
    ),
)


class Tables:
    """Asks `database` and prints to `console`."""

    def __init__(self, database: asyncpg.Connection, console: Console) -> None:
        self.database = database
        self._console = console

    def heading(self, text: str) -> None:
        self._console.print(Text(f"\n{text}", style="bold"), soft_wrap=True)

    def measured(self, run: Measured) -> None:
        """How fast it went."""
        rate = run.rows / run.last_s if run.last_s else 0.0
        self._line(
            f"{run.rows:,} objects of {run.kinds} kinds stored in {run.last_s:.1f} s, {rate:,.0f} rows a second; "
            f"the first row after {run.first_s:.1f} s. Counted from the start of the processes."
        )

    async def compare(self, truth: set[ObjectKey]) -> tuple[int, int]:
        """Compare what is stored with `truth`: how many objects are missing, and how many should not be there."""
        excluded = {
            (row["api_group"], row["resource"])
            for row in await self.database.fetch("select api_group, resource from freshness where state = 'excluded'")
        }
        wanted = {key for key in truth if key[:2] not in excluded}
        rows = await self.database.fetch(
            "select api_group, resource, namespace, name, uid, resource_version from resources"
        )
        stored = {tuple(row) for row in rows}
        left_out = sorted({f"{key[1]}.{key[0]}".rstrip(".") for key in truth - wanted})
        if stored == wanted:
            self._line(
                f"The API holds {len(truth):,} objects, {len(truth) - len(wanted):,} of them left out on purpose "
                f"({', '.join(left_out) or 'none'}); the database holds exactly the other {len(wanted):,}, "
                "each in its present version."
            )
        return len(wanted - stored), len(stored - wanted)

    async def kinds(self) -> None:
        """Kinds and their counts."""
        await self.answer(KINDS)
        others = await self.database.fetch(EMPTY_KINDS)
        self._line(
            "\nKinds without objects: " + (", ".join(f"{row['kinds']} {row['state']}" for row in others) or "none")
        )
        if await self.database.fetchval(f"select exists ({NOT_LISTED.sql})"):
            await self.answer(NOT_LISTED)

    async def queries(self) -> None:
        """A few questions, their SQL and their answers."""
        for question in QUESTIONS:
            await self.answer(question)

    async def changes(self, since: dt.datetime, deployment: tuple[str, str]) -> None:
        """What `resource_changes` and `resources_as_of` return for what has just happened."""
        self.heading("Then a Deployment was scaled, a Pod deleted, a Secret rotated, a ConfigMap created; listed again")
        moment = since.isoformat(sep=" ", timespec="milliseconds")
        await self.answer(
            Question(
                "What has changed?",
                f"""
select change, resource, namespace, name, at
from resource_changes('{moment}', now())
order by resource, name""",  # noqa: S608 - a time of our own
            )
        )
        namespace, name = deployment
        which = f"where resource = 'deployments' and namespace = '{namespace}' and name = '{name}'"
        await self.answer(
            Question(
                "And how was it before?",
                f"""
select 'before' as version, object #>> '{{spec,replicas}}' as replicas, resource_version
from resources_as_of('{moment}')
{which}
union all
select 'now', object #>> '{{spec,replicas}}', resource_version
from resources
{which}""",  # noqa: S608 - names of the simulated cluster, which Kubernetes' rules keep harmless
            )
        )

    async def answer(self, question: Question) -> None:
        """The question, its SQL, and a table of what the database answers."""
        self._console.print(Text(f"\n{question.words}", style="bold cyan"), soft_wrap=True)
        sql = question.sql.strip()
        self._console.print(Syntax(sql, "sql", theme="ansi_dark", background_color="default"))
        statement = await self.database.prepare(sql)
        rows = await statement.fetch()
        columns = [attribute.name for attribute in statement.get_attributes()]
        self._console.print(table(columns, rows) if rows else Text("(no rows)"))

    def _line(self, text: str) -> None:
        self._console.print(Text(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Rows as a table, numbers to the right."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        numeric = all(isinstance(row[place], int | float | Decimal | None) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    return drawn


def cell(value: Any) -> str:
    """A value as people write it; what could move a terminal's cursor becomes `?`."""
    match value:
        case None:
            return "-"
        case int():
            return f"{value:,}"
        case dt.datetime():
            return f"{value:%H:%M:%S}"
        case _:
            return "".join(character if character.isprintable() else "?" for character in str(value))


def print_connection(console: Console, servers: Servers) -> None:
    """How to connect, password included: for a demonstration that goes on."""
    url = f"{servers.postgres.dsn()}?{SEARCH_PATH}"
    lines = [shlex.join(["psql", url])]
    if servers.api:
        lines.append(shlex.join(["kubectl", "--kubeconfig", str(servers.api.kubeconfig), "get", "pods", "-A"]))
    lines.append(f"Kafka: {servers.broker.bootstrap}, topic cluster-info")
    console.print(Text("\nIt goes on running. To connect:", style="bold"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
