"""What the demo shows: questions in SQL and their answers, as tables a person likes to read. Reads only."""

from __future__ import annotations

import datetime as dt
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
from rich.cells import cell_len
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from clusterinfo.sandbox.demo_runs import Measured
from clusterinfo.sandbox.demo_servers import SCHEMA, ObjectKey, Servers
from clusterinfo.sandbox.processes import Process

MOST_KINDS = 40

NUMBERS = {int, float, Decimal}

LIMITS = """
The consumer is started again at once, and goes on where the other one stopped. The broker is for development: it keeps
everything in memory. Nothing of all this outlives the command."""
LIMITS_OF_API = """
What is deleted is gone from the tables at once, and in resource_changes. The API is simulated: kubectl can get,
describe, watch and delete, but not create, change, exec or read logs, and no controller makes anything again."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question, in words and in SQL."""

    words: str
    sql: str


KINDS = Question(
    "Which kinds are there, and how far can each be believed?",
    f"""
select kind, api_group, objects,
       case when following then 'followed' else state end as state,
       round(age_s) || 's' as age
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

# MATERIALIZED: the planner expects few rows of a view's conditions, and joins by loops that read each body again and
# again. Of 2,000 pods it takes 0.3 s, without it 20 s.
QUESTIONS = (
    Question(
        "Why is this Deployment short of replicas?",
        """
with short as materialized (
    select * from deployments where ready_replicas < replicas
), unready as materialized (
    select * from pods where not ready and phase <> 'Succeeded'
), warning as materialized (
    select distinct on (cluster, namespace, object_name) * from events
    where type = 'Warning' and object_kind = 'Pod'
    order by cluster, namespace, object_name, last_seen_at desc
)
select d.namespace, d.name as deployment,
       d.ready_replicas || '/' || d.replicas as ready, p.name as pod,
       coalesce(p.reason, p.phase) as why, w.message as last_warning
from short d
join replicasets r
  on (r.cluster, r.namespace, r.owner_name) = (d.cluster, d.namespace, d.name)
join unready p
  on (p.cluster, p.namespace, p.owner_name) = (r.cluster, r.namespace, r.name)
left join warning w
  on (w.cluster, w.namespace, w.object_name) = (p.cluster, p.namespace, p.name)
order by d.namespace, d.name, p.name limit 5""",
    ),
    Question(
        "Which pods are not ready, and why?",
        """
select coalesce(reason, phase) as why, count(*) as pods,
       min(namespace || '/' || name) as for_example
from pods
where not ready and phase <> 'Succeeded'
group by why order by pods desc, why limit 5""",
    ),
    Question(
        "Which images run, by tag?",
        """
select substring(image from ':([^:/@]+)$') as tag, count(*) as containers,
       count(distinct image) as images, min(image) as for_example
from container_images
group by tag order by containers desc, tag limit 5""",
    ),
    Question(
        "Which nodes have given away most of their CPU?",
        """
select n.name as node, sum(p.cpu_request_cores) as requested,
       n.cpu_allocatable_cores as allocatable,
       round(100 * sum(cpu_request_cores) / n.cpu_allocatable_cores) as percent
from nodes n
join pods p on (p.cluster, p.node_name) = (n.cluster, n.name)
where n.cpu_allocatable_cores > 0 and p.phase in ('Pending', 'Running')
group by n.cluster, n.name, n.cpu_allocatable_cores
order by percent desc nulls last, node limit 5""",
    ),
    Question(
        "What is known of Secrets? Keys and fingerprints: no value left the collector",
        """
select namespace || '/' || name as secret, key, value
from resources, jsonb_each_text(object -> 'data') as data (key, value)
where resource = 'secrets' and api_group = ''
order by namespace, name, key limit 4""",
    ),
)

CHANGES = Question(
    "What has changed in the last minute, and who did it?",
    """
select change, resource || '/' || name as what, changed_by, operation,
       to_char(coalesce(changed_at, at), 'HH24:MI:SS') as time
from resource_changes(now() - interval '1 minute', now())
where at > known_since
order by at desc limit 8""",
)
"""What the first lists found did not change: see `known_since`."""


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
            f"{run.rows:,} objects of {run.kinds} kinds stored in {run.last_s:.1f} s, {rate:,.0f} rows a second;\n"
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
                f"The API holds {len(truth):,} objects, {len(truth) - len(wanted):,} of them left out on purpose\n"
                f"({', '.join(left_out) or 'none'}); the database holds exactly the other {len(wanted):,},\n"
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
        self._line(f"\nThe SQL can be pasted into psql, after `set search_path = {SCHEMA};`.")
        for question in QUESTIONS:
            await self.answer(question)

    async def changes(self, delays_s: Sequence[float]) -> None:
        """What `resource_changes` returns for what has just happened, and how soon it was seen."""
        await self.answer(CHANGES)
        middle_ms, most_ms = 1000 * statistics.median(delays_s), 1000 * max(delays_s)
        self._line(
            f"\n{len(delays_s)} changes, nothing listed again: from the request to the API until SQL shows it\n"
            f"{middle_ms:.0f} ms in the median, {most_ms:.0f} ms at most."
        )

    async def before(self, since: dt.datetime, deployment: tuple[str, str]) -> None:
        """What `resources_as_of` returns of what has just changed."""
        moment = since.isoformat(sep=" ", timespec="milliseconds")
        namespace, name = deployment
        which = f"where resource = 'deployments' and namespace = '{namespace}' and name = '{name}'"
        await self.answer(
            Question(
                "How was it before?",
                f"""
select 'before' as version, object #>> '{{spec,replicas}}' as replicas,
       resource_version
from resources_as_of('{moment}')
{which}
union all
select 'now', object #>> '{{spec,replicas}}', resource_version
from resources
{which}""",  # noqa: S608 - names of the simulated cluster, which Kubernetes' rules keep harmless
            )
        )

    async def answer(self, question: Question) -> None:
        """The question, its SQL, and a table of what the database answers. All of the SQL can be pasted into psql."""
        self._console.print(Text(f"\n-- {question.words}", style="bold cyan"), soft_wrap=True)
        sql = question.sql.strip()
        highlighted = Syntax("", "sql", theme="ansi_dark", background_color="default").highlight(f"{sql};")
        highlighted.rstrip()
        self._console.print(highlighted, soft_wrap=True)
        statement = await self.database.prepare(sql)
        rows = await statement.fetch()
        columns = [attribute.name for attribute in statement.get_attributes()]
        head, *lines = table(columns, rows)
        self._console.print(Text(head, style="bold"), soft_wrap=True)
        self._line("\n".join(lines) if lines else "(no rows)")

    def total(self, measured: Measured, delays_s: Sequence[float], seconds: float) -> None:
        """All of it in a line."""
        followed = f", {len(delays_s)} changes followed" if delays_s else ""
        self._line(
            f"\nIn all {seconds:.1f} s, lists {measured.last_s:.1f} s: {measured.listed:,} objects stored{followed}."
        )

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table as kubectl prints one, heads in capitals: names whole, numbers to the right."""
    drawn = []
    for place, column in enumerate(columns):
        cells = [column.upper(), *(cell(row[place]) for row in rows)]
        width = max(map(cell_len, cells))
        types = {type(row[place]) for row in rows} - {type(None)}
        aligned = str.rjust if types and types <= NUMBERS else str.ljust
        drawn.append([aligned(text, width - cell_len(text) + len(text)) for text in cells])
    return ["   ".join(line).rstrip() for line in zip(*drawn, strict=True)]


def cell(value: Any) -> str:
    """A value as people write it; what could move a terminal's cursor becomes `?`."""
    match value:
        case None:
            return "-"
        case int():
            return f"{value:,}"
        case _:
            return "".join(character if character.isprintable() else "?" for character in str(value))


def print_connection(console: Console, servers: Servers, consumer: Process) -> None:
    """How to reach what goes on running, what it is good for, and what to break."""
    environment = servers.write_environment()
    console.print(Text("\nIt goes on running, and follows what changes. In another terminal:", style="bold"))
    commands = [
        shlex.join(["source", str(environment)]),
        "clusterinfo status",
        "psql -c 'select namespace, name, reason, restarts from pods where not ready limit 10'",
    ]
    if servers.api:
        commands.append("kubectl get pods -A")
    _print_indented(console, commands)
    console.print(Text("\nBreak something, and watch it heal:", style="bold"))
    _print_indented(console, _what_to_break(servers, consumer))
    console.print(Text(LIMITS + (LIMITS_OF_API if servers.api else "")), soft_wrap=True)
    console.print(Text(f"Warnings and errors of each program: {servers.directory}/*.log"), soft_wrap=True)


def _what_to_break(servers: Servers, consumer: Process) -> list[str]:
    kill = [f"kill -9 {consumer.pid}", "clusterinfo status"]
    if not servers.api:
        return kill
    changes = CHANGES.sql.strip().replace("\n", " ")
    return [*kill, "kubectl delete deployments -n ns-000 --all", f'psql -c "{changes}"']


def _print_indented(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
