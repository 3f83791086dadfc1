"""argv + environment -> Settings -> command -> exit code: the table of commands. What one does is in `commands/`.

Without `from __future__ import annotations`: typer would compile the text of each annotation, of every command, at
every start (20 ms).
"""

import asyncio
import os
import sys
from typing import Annotated, Literal

import typer
from typer._click.exceptions import (  # typer brings its own click and names only some of its errors
    ClickException,
    NoArgsIsHelpError,
)
from typer.core import TyperArgument

from clusterinfo import __version__
from clusterinfo.commands.output import Output
from clusterinfo.commands.run import run, run_short
from clusterinfo.durations import parse_duration
from clusterinfo.errors import ClusterinfoError, ConfigError, FatalError
from clusterinfo.exit_codes import EXIT_INTERRUPTED
from clusterinfo.model import INT64_MAX, Pace
from clusterinfo.observations import Observe
from clusterinfo.settings import Settings, load

TyperArgument.display_type_rich = lambda *_, **__: None  # type: ignore[method-assign]  # `NAME <str>` in help

app = typer.Typer(
    name="clusterinfo",
    help="Turns any number of Kubernetes clusters into one PostgreSQL database that can be trusted. "
    "Settings are environment variables (docs/SETTINGS.md); a flag beats its variable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # help is plain text, and [brackets] stand in it
)

offsets = typer.Typer(help="Where consumers stand, as the database has it.", no_args_is_help=True)
app.add_typer(offsets, name="offsets")

clusters = typer.Typer(help="The clusters that are stored: whose they are, their names.", no_args_is_help=True)
app.add_typer(clusters, name="clusters")

letters = typer.Typer(help="Dead letters: records that could not be stored, and why.", no_args_is_help=True)
app.add_typer(letters, name="dead-letters")

COMPLETE = "_CLUSTERINFO_COMPLETE"
"""The variable by which a shell asks what can follow."""

Once = Annotated[bool, typer.Option("--once", help="List everything once, then exit.")]
Interval = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="List everything so often, and follow nothing (COLLECT_INTERVAL)."),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Follow, as without a flag, even if COLLECT_INTERVAL is set: "
        "only what cannot be followed is listed so often.",
    ),
]
LeaderElection = Annotated[
    bool | None,
    typer.Option("--leader-election", help="Of several replicas let one work, by a Lease (LEADER_ELECTION)."),
]
Out = Annotated[
    Output, typer.Option("--output", "-o", metavar="FORMAT", help="table, wide (more of it), json, yaml, csv or name.")
]
NoMigrate = Annotated[bool, typer.Option("--no-migrate", help="Do not migrate the schema at start.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"clusterinfo {__version__}")
        raise typer.Exit


@app.command()
def collect(
    once: Once = False, interval: Interval = None, watch: Watch = False, leader_election: LeaderElection = None
) -> None:
    """List every kind a cluster serves and follow it into Kafka."""
    settings, how = _paced(once, interval, watch, leader_election)

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        from clusterinfo.commands import pipelines

        return await pipelines.collect(settings, observe, stopping, how=how)

    run(settings, main, serve=not once, name="collect")


@app.command()
def consume(
    batch_size: Annotated[
        str | None, typer.Option(metavar="N", help="Most records in one transaction; 5000 unless set (BATCH_SIZE).")
    ] = None,
    batch_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most bytes in one transaction; 16MiB unless set (BATCH_BYTES).")
    ] = None,
    batch_wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long a batch waits for more than has come; 20ms unless set (BATCH_WAIT)."
        ),
    ] = None,
    until_idle: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Exit when everything is stored and nothing came for this long."),
    ] = None,
    no_migrate: NoMigrate = False,
) -> None:
    """Store what Kafka holds in PostgreSQL. One member of the consumer group: others share the work."""
    settings = load(dict(os.environ), batch_size=batch_size, batch_bytes=batch_bytes, batch_wait=batch_wait)
    until_idle_s = _duration("--until-idle", until_idle)

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        from clusterinfo.commands import pipelines

        return await pipelines.consume(
            settings, observe, stopping, until_idle_s=until_idle_s, do_migrate=not no_migrate
        )

    run(settings, main, serve=until_idle_s is None, name="consume")


@app.command()
def legacy(once: Once = False, interval: Interval = None, watch: Watch = False, no_migrate: NoMigrate = False) -> None:
    """Deprecated: follow a cluster straight into PostgreSQL. For development, without Kafka."""
    settings, how = _paced(once, interval, watch)

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        from clusterinfo.commands import pipelines

        return await pipelines.legacy(settings, observe, stopping, how=how, do_migrate=not no_migrate)

    run(settings, main, serve=not once, name="legacy")


@app.command()
def migrate(
    print_grants: Annotated[
        bool,
        typer.Option("--print-grants", help="Print the rights a writer and a reader need, as SQL; connect to nothing."),
    ] = False,
) -> None:
    """Bring the database's schema up to date, and do nothing else."""
    from clusterinfo.commands.migrate import migrate_schema, show_grants

    if print_grants:
        show_grants(load(dict(os.environ)))
        return
    run_short(migrate_schema)


@offsets.command("reset")
def offsets_reset(output: Out = Output.TABLE) -> None:
    """Forget where consumers stand. What Kafka still holds of the topic is read again, and changes nothing twice."""
    from clusterinfo.commands.offsets import reset_offsets

    run_short(reset_offsets, output=output)


ClusterName = Annotated[str, typer.Argument(metavar="NAME", help="Its name as views show it, or its id.")]


@clusters.command("list")
def clusters_list(output: Out = Output.TABLE) -> None:
    """Show every cluster, its id, and the topic it belongs to."""
    from clusterinfo.commands.clusters import list_clusters

    run_short(list_clusters, output=output)


@clusters.command("move")
def clusters_move(
    name: ClusterName,
    topic: Annotated[str, typer.Option(metavar="T", help="Its topic from now on; '': the next that speaks of it.")],
    output: Out = Output.TABLE,
) -> None:
    """Give a cluster to another topic. It belongs to the first that spoke of it; others' records are dead letters."""
    from clusterinfo.commands.clusters import move_cluster

    run_short(move_cluster, name, topic, output=output)


@clusters.command("rename")
def clusters_rename(
    name: ClusterName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="What views show it as from now on.")],
    output: Out = Output.TABLE,
) -> None:
    """Show a cluster under another name, until its collector gives it one (CLUSTER_NAME)."""
    from clusterinfo.commands.clusters import rename_cluster

    run_short(rename_cluster, name, new, output=output)


LetterIds = Annotated[list[int] | None, typer.Argument(metavar="ID...", min=1, max=INT64_MAX, show_default=False)]


@letters.command("list")
def letters_list(
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only those whose reason contains this, in any case.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1_000_000, help="At most so many, newest first.")] = 50,
    replayed: Annotated[bool, typer.Option("--all", help="Those that were replayed, too.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Show which records could not be stored, and why."""
    from clusterinfo.commands.dead_letters import list_letters

    run_short(list_letters, reason=reason, limit=limit, replayed=replayed, output=output)


@letters.command("show")
def letters_show(
    letter: Annotated[int, typer.Argument(metavar="ID", min=1, max=INT64_MAX)],
    raw: Annotated[bool, typer.Option("--raw", help="Nothing but the value, byte for byte.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Show one of them whole: reason, headers, key and value. A message of a stranger may hold anything."""
    if raw and output is not Output.TABLE:
        raise ConfigError("--raw and --output contradict each other: give one of them")
    from clusterinfo.commands.dead_letters import show_letter

    run_short(show_letter, letter, raw=raw, output=output)


@letters.command("replay")
def letters_replay(
    ids: LetterIds = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not replayed yet.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Store them again, without Kafka; as harmless as any duplicate. Exit code 1 if one is refused again."""
    _one_of(ids, {"--all": everything})
    from clusterinfo.commands.dead_letters import replay_letters

    run_short(replay_letters, ids or None, output=output)


@letters.command("drop")
def letters_drop(
    ids: LetterIds = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    replayed: Annotated[bool, typer.Option("--replayed", help="All that were replayed.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Delete them for good, without asking."""
    _one_of(ids, {"--all": everything, "--replayed": replayed})
    from clusterinfo.commands.dead_letters import drop_letters

    run_short(drop_letters, ids or None, only_replayed=replayed, output=output)


def _one_of(ids: list[int] | None, flags: dict[str, bool]) -> None:
    """Raise ConfigError unless the letters are named in exactly one way."""
    if [bool(ids), *flags.values()].count(True) != 1:
        raise ConfigError(
            f"say which dead letters: their ids (see `clusterinfo dead-letters list`), {' or '.join(flags)}"
        )


@app.command()
def forget(
    cluster: Annotated[str, typer.Option(metavar="NAME", help="The cluster: its name as views show it, or its id.")],
    resource: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only this kind of it: pods, deployments.apps.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Delete all that is stored of a cluster, history included. A collector that still runs brings it back."""
    if not yes:
        _confirm(f"Delete {resource or 'all that is stored'} of cluster {cluster!r}, history included?")
    from clusterinfo.commands.forget import forget

    run_short(forget, cluster, resource, output=output)


@app.command()
def status(
    stale: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Kinds not verified for so long need attention; 3 intervals of their collector unless set, or "
            "2.5m where they were followed.",
        ),
    ] = None,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Name every kind, not only those that need attention.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every 5 seconds, until Ctrl-C.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Show clusters, what to trust of them, lag, dead letters. Exit code 3: something needs attention."""
    stale_after_s = _duration("--stale", stale)
    from clusterinfo.commands.status import show_status

    run_short(show_status, stale_after_s=stale_after_s, every_kind=kinds, output=output, watch=watch)


Examined = Annotated[
    Literal["collect", "consume", "legacy"] | None,
    typer.Argument(metavar="[COMMAND]", help="Only what this command needs: collect, consume or legacy."),
]


@app.command()
def doctor(command: Examined = None, output: Out = Output.TABLE) -> None:
    """Check API, Kafka, database, rights and clocks. Nothing is written; exit code 1 if a check fails."""
    from clusterinfo.commands.doctor import examine

    run_short(examine, command, output=output)


def _confirm(question: str) -> None:
    """Ask, on a terminal. Raises ConfigError where nobody can answer, FatalError for a no."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "--yes is not given, and stdin is no terminal to ask on: what is forgotten cannot be restored"
        )
    if not typer.confirm(question, err=True):
        raise FatalError("nothing was deleted: the answer was no")


@app.command()
def rbac(
    discover: Annotated[
        bool,
        typer.Option("--discover", help="Ask the cluster (KUBECONFIG, KUBE_CONTEXT) which kinds it serves."),
    ] = False,
    service_account: Annotated[
        str, typer.Option(metavar="NAMESPACE/NAME", help="Whom to bind the role to.")
    ] = "cluster-info/cluster-info-collector",
    leader_election: Annotated[
        bool,
        typer.Option("--leader-election", help="With the Lease by which replicas elect a leader (LEADER_ELECTION)."),
    ] = False,
    output: Out = Output.YAML,
) -> None:
    """Print the role a collector with these settings needs. For kubectl: to read, and no Secrets unless named."""

    from clusterinfo.commands import rbac

    run_short(rbac.print_role, service_account, discover=discover, elects=leader_election, output=output)


@app.command()
def demo(
    objects: Annotated[
        int | None, typer.Option(metavar="N", min=24, help="Objects of the simulated cluster; 5000 unless set.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="C", help="Read your own cluster, this context of your kubeconfig, instead.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it all running until Ctrl-C, and say how to connect.")
    ] = False,
) -> None:
    """Watch a cluster arrive in PostgreSQL, on servers of its own. In a checkout, after pip install -e '.[sandbox]'."""
    if context is not None and objects is not None:
        raise ConfigError("--context and --objects contradict each other: give one of them")
    from clusterinfo.commands.demo import run_demo

    raise typer.Exit(run_demo(objects, context, keep=keep))


Shell = Literal["bash", "zsh", "fish"]


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print what completes commands and flags in a shell. For bash: source <(clusterinfo completion bash)."""
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="clusterinfo", complete_var=COMPLETE, shell=shell))


def _paced(once: bool, interval: str | None, watch: bool, leader_election: bool | None = None) -> tuple[Settings, Pace]:
    """The settings, and how a cluster is collected: it is followed unless a flag or COLLECT_INTERVAL says otherwise."""
    flags = {"--once": once, "--interval": interval is not None, "--watch": watch}
    given = [flag for flag, is_given in flags.items() if is_given]
    if len(given) > 1:
        hint = "" if once else " (with --watch, COLLECT_INTERVAL is how often what cannot be followed is listed)"
        raise ConfigError(f"{' and '.join(given)} contradict each other: give one of them{hint}")
    if once and leader_election:
        raise ConfigError("--once and --leader-election contradict each other: give one of them")
    settings = load(dict(os.environ), collect_interval=interval, leader_election=leader_election)
    if once:
        return settings, Pace.ONCE
    return settings, Pace.LISTS if settings.was_set("collect_interval") and not watch else Pace.FOLLOW


def _duration(flag: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigError(f"{flag} is {value!r}: {error}") from None


def main() -> None:
    """The executable. Whatever a user can cause ends in one line on stderr and the documented exit code."""
    if COMPLETE in os.environ:  # typer does so by itself only where it adds two flags of its own
        from typer._completion_classes import completion_init

        completion_init()
    try:
        code = app(prog_name="clusterinfo", standalone_mode=False)
    except ClusterinfoError as error:
        _report(str(error))
        code = error.exit_code
    except typer.Abort:
        code = EXIT_INTERRUPTED
    except NoArgsIsHelpError as error:
        typer.echo(error.format_message())
        code = error.exit_code
    except ClickException as error:
        message = error.format_message().replace("Value error, ", "")
        _report(f"{message.rstrip('.')}; see `clusterinfo --help`")
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _report(message: str) -> None:
    """The last line: as JSON where a machine reads it, plain for a person."""
    from clusterinfo.telemetry import logs

    line = " ".join(message.split())
    log_format = os.environ.get("LOG_FORMAT")
    if log_format == "console" or (sys.stderr.isatty() and not log_format):
        print(f"clusterinfo: {line}", file=sys.stderr)  # noqa: T201 - for a person
        return
    logs.configure_logging("info", "json")
    logs.log_error(line)
