"""argv + environment -> Settings -> command -> exit code. Thin: what a command does stands in `commands.py`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException  # typer brings its own click and names only some of its errors

from clusterinfo import __version__
from clusterinfo import lifecycle as life
from clusterinfo.errors import ClusterinfoError, ConfigError
from clusterinfo.observations import Observe
from clusterinfo.settings import Settings, load, parse_duration

app = typer.Typer(
    name="clusterinfo",
    help="Turns any number of Kubernetes clusters into one PostgreSQL database that can be trusted. "
    "Settings are environment variables (README); a flag beats its variable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

offsets = typer.Typer(help="Where consumers stand, as the database has it.", no_args_is_help=True)
app.add_typer(offsets, name="offsets")

EXIT_ABORTED = 130
DEMO_GRACE_S = 25.0
"""What the demo's servers and processes have to end in; then they are killed."""

Command = Callable[[Settings, Observe, asyncio.Event], Coroutine[Any, Any, int]]

Once = Annotated[bool, typer.Option("--once", help="List everything once, then exit.")]
Interval = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="From one run of lists to the next; 5m unless set (COLLECT_INTERVAL)."),
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
def collect(once: Once = False, interval: Interval = None) -> None:
    """List every kind a cluster serves and send the objects to Kafka, every 5 minutes unless told otherwise."""
    _check_interval(once, interval)
    settings = load(dict(os.environ), collect_interval=interval)

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        from clusterinfo import commands

        return await commands.collect(settings, observe, stopping, once=once)

    _run(settings, main, serve=not once)


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
        typer.Option(metavar="DURATION", help="Longest wait for a batch to fill; 1s unless set (BATCH_WAIT)."),
    ] = None,
    until_idle: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Exit when everything is stored and nothing came for this long."),
    ] = None,
    no_migrate: NoMigrate = False,
) -> None:
    """Store what Kafka holds in PostgreSQL, as one member of the consumer group."""
    settings = load(dict(os.environ), batch_size=batch_size, batch_bytes=batch_bytes, batch_wait=batch_wait)
    until_idle_s = _duration("--until-idle", until_idle)

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        from clusterinfo import commands

        return await commands.consume(settings, observe, stopping, until_idle_s=until_idle_s, do_migrate=not no_migrate)

    _run(settings, main, serve=until_idle_s is None)


@app.command()
def legacy(once: Once = False, interval: Interval = None, no_migrate: NoMigrate = False) -> None:
    """Deprecated, for development: list every kind straight into PostgreSQL, without Kafka."""
    _check_interval(once, interval)
    settings = load(dict(os.environ), collect_interval=interval)

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        from clusterinfo import commands

        return await commands.legacy(settings, observe, stopping, once=once, do_migrate=not no_migrate)

    _run(settings, main, serve=not once)


@app.command()
def migrate(
    print_grants: Annotated[
        bool,
        typer.Option("--print-grants", help="Print the rights a writer and a reader need, as SQL; connect to nothing."),
    ] = False,
) -> None:
    """Bring the database's schema up to date, and do nothing else."""
    if print_grants:
        from clusterinfo.postgres.grants import grants

        settings = load(dict(os.environ))
        typer.echo(grants(settings.db_schema, settings.db_name), nl=False)
        return

    async def main(settings: Settings, observe: Observe, _: asyncio.Event) -> int:
        from clusterinfo import commands

        return await commands.migrate_schema(settings, observe)

    _run(load(dict(os.environ)), main, serve=False)


@offsets.command("reset")
def offsets_reset() -> None:
    """Forget where consumers stand: what Kafka still holds of the topic is read again, and changes nothing twice."""

    async def main(settings: Settings, observe: Observe, _: asyncio.Event) -> int:
        from clusterinfo import commands

        return await commands.reset_offsets(settings, observe)

    _run(load(dict(os.environ)), main, serve=False)


@app.command()
def rbac(
    discover: Annotated[
        bool,
        typer.Option("--discover", help="Ask the cluster (KUBECONFIG, KUBE_CONTEXT) which kinds it serves."),
    ] = False,
    service_account: Annotated[
        str, typer.Option(metavar="NAMESPACE/NAME", help="Whom to bind the role to.")
    ] = "cluster-info/cluster-info-collector",
) -> None:
    """Print the role that a collector with these settings needs, for kubectl: to read, and no Secrets unless named."""

    async def main(settings: Settings, observe: Observe, _: asyncio.Event) -> int:
        from clusterinfo import access

        return await access.print_role(settings, observe, service_account, discover=discover)

    _run(load(dict(os.environ)), main, serve=False)


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
    """Watch a cluster arrive in PostgreSQL, on servers of its own. Needs the extra clusterinfo[sandbox]."""
    if context is not None and objects is not None:
        raise ConfigError("--context and --objects contradict each other: give one of them")
    from clusterinfo.sandbox.demo import DEFAULT_OBJECTS, Demonstration, Options

    show = Demonstration(Options(objects or DEFAULT_OBJECTS, context, keep), dict(os.environ))

    async def main(stopping: asyncio.Event) -> int:
        showing = asyncio.ensure_future(show.run())
        try:
            finished = await life.unless(stopping, showing)
        except asyncio.CancelledError:  # the second signal: end at once, but still end everything
            showing.cancel()
            await asyncio.wait({showing})
            raise
        return 0 if finished or show.shown else life.EXIT_STOPPED_AT_ONCE

    raise typer.Exit(life.run(main, DEMO_GRACE_S))


def _check_interval(once: bool, interval: str | None) -> None:
    if once and interval is not None:
        raise ConfigError("--once and --interval contradict each other: give one of them")


def _duration(flag: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigError(f"{flag} is {value!r}: {error}") from None


def _run(settings: Settings, command: Command, *, serve: bool) -> None:
    """Run a command with logs, metrics and signals around it; ends the process with its exit code."""
    from clusterinfo import telemetry as tell

    shown: Any = nullcontext(tell.log_observation)
    if sys.stderr.isatty():
        from clusterinfo import progress

        shown = progress.shown()
    tell.configure_logging(settings.log_level, settings.log_format)
    with shown as observer:
        telemetry = tell.Telemetry(observer)

        async def main(stopping: asyncio.Event) -> int:
            async with telemetry.served(settings, wanted=serve):
                return await command(settings, telemetry.observe, stopping)

        code = life.run(main, settings.shutdown_grace_s)
    raise typer.Exit(code)


def main() -> None:
    """The executable. Whatever a user can cause ends in one line on stderr and the documented exit code."""
    try:
        code = app(standalone_mode=False)
    except ClusterinfoError as error:
        _say(str(error))
        code = error.exit_code
    except typer.Abort:
        code = EXIT_ABORTED
    except ClickException as error:
        if message := error.format_message():  # none where the help was shown instead
            _say(f"{message.rstrip('.')}; see `clusterinfo --help`")
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> None:
    """The last line: as JSON where a machine reads it, plain for a person."""
    from clusterinfo import telemetry

    line = " ".join(message.split())
    log_format = os.environ.get("LOG_FORMAT", "json")
    if sys.stderr.isatty() or log_format == "console":
        print(f"clusterinfo: {line}", file=sys.stderr)  # noqa: T201 - for a person
        return
    telemetry.configure_logging("info", "json")
    telemetry.log_error(line)
