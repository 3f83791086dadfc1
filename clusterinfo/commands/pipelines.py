"""The composition root: opens the ends, joins them. The only place where Kubernetes, Kafka and PostgreSQL meet."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from clusterinfo.errors import ClusterinfoError, ConfigError, TransientError
from clusterinfo.exit_codes import EXIT_ATTENTION, EXIT_DONE, EXIT_STOPPED
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import Collector
from clusterinfo.observations import Connected, Noted, Observe, Warned
from clusterinfo.postgres.admin.history import maintain_history
from clusterinfo.postgres.connection import Pool
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.migrations import migrate, open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S, open_pool, ping
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.pump import Sink, pump
from clusterinfo.settings import Settings
from clusterinfo.telemetry.probes import probed
from clusterinfo.waiting import unless

HISTORY_INTERVAL_S = 6 * 3600.0
"""How often the history's partitions are looked after: they are made two months ahead, so any part of a day will do."""
HISTORY_RETRY_S = 300.0
"""The same after it could not be done, as while somebody reads the history for long: nothing depends on it today."""

LEGACY_NOTICE = "storing directly in PostgreSQL is deprecated, for development only, and may be removed"
LEGACY_REMEDY = "set KAFKA_ENABLED=true and run `clusterinfo consume` beside `clusterinfo collect`"


# --- collect and legacy ----------------------------------------------------------------------------------------------


async def collect(settings: Settings, observe: Observe, stopping: asyncio.Event, *, once: bool) -> int:
    """List everything into Kafka, once or every COLLECT_INTERVAL; without KAFKA_ENABLED straight into the database."""
    if not settings.kafka_enabled:
        return await legacy(settings, observe, stopping, once=once, do_migrate=True)
    from clusterinfo.kafka.producer import KafkaSink

    async with AsyncExitStack() as stack:
        ends = KubernetesClient.connect(settings), KafkaSink.connect(settings, observe)
        if (opened := await _open(stack, stopping, *ends)) is None:
            return EXIT_STOPPED if once else EXIT_DONE
        client, sink = opened
        observe(Connected())
        async with probed(observe, Kubernetes=client.ask, Kafka=sink.ping):
            return await _collect_into(sink, client, settings, observe, stopping, once=once)


async def legacy(settings: Settings, observe: Observe, stopping: asyncio.Event, *, once: bool, do_migrate: bool) -> int:
    """List everything straight into the database."""
    observe(Warned(message=LEGACY_NOTICE, remedy=LEGACY_REMEDY))
    async with AsyncExitStack() as stack:
        ends = KubernetesClient.connect(settings), _database(settings, observe, do_migrate=do_migrate)
        if (opened := await _open(stack, stopping, *ends)) is None:
            return EXIT_STOPPED if once else EXIT_DONE
        client, sink = opened
        observe(Connected())
        async with probed(observe, Kubernetes=client.ask):
            return await _collect_into(sink, client, settings, observe, stopping, once=once)


async def _open(
    stack: AsyncExitStack, stopping: asyncio.Event, *ends: AbstractAsyncContextManager[Any]
) -> list[Any] | None:
    """Open the ends one after another; None if `stopping` is set first."""

    async def enter() -> list[Any]:
        return [await stack.enter_async_context(end) for end in ends]

    return await unless(stopping, enter())


async def _collect_into(
    sink: Sink, client: KubernetesClient, settings: Settings, observe: Observe, stopping: asyncio.Event, *, once: bool
) -> int:
    result = await Collector(client, sink, settings, observe).run(stopping, once=once)
    if result is None:
        return EXIT_STOPPED if once else EXIT_DONE
    return EXIT_DONE if result.is_whole else EXIT_ATTENTION


# --- consume ---------------------------------------------------------------------------------------------------------


async def consume(
    settings: Settings,
    observe: Observe,
    stopping: asyncio.Event,
    *,
    until_idle_s: float | None,
    do_migrate: bool,
) -> int:
    """Store what Kafka holds, as one member of the consumer group, until asked to stop or (`until_idle_s`) idle."""
    if settings.was_set("kafka_enabled") and not settings.kafka_enabled:
        raise ConfigError(
            "KAFKA_ENABLED is false, but `clusterinfo consume` reads from Kafka: set it to true, or run "
            "`clusterinfo legacy` to store directly"
        )
    from clusterinfo.kafka.consumer.group import ConsumerGroup

    async with AsyncExitStack() as stack:
        ends = _database(settings, observe, do_migrate=do_migrate), ConsumerGroup.connect(settings, observe)
        if (opened := await _open(stack, stopping, *ends)) is None:
            return EXIT_DONE
        sink, group = opened
        observe(Connected())
        await group.run(
            lambda lane, source, ending: pump(source, sink, lane, observe, ending), stopping, until_idle_s=until_idle_s
        )
    return EXIT_DONE


# --- the database ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _database(settings: Settings, observe: Observe, *, do_migrate: bool) -> AsyncIterator[PostgresSink]:
    """A sink on a schema that is up to date, and the keeper of its history beside it."""
    _warn_of_plain_connection(settings, observe)
    if do_migrate:
        await migrate_schema(settings, observe)
    async with open_migrated_pool(settings) as pool:
        wait_s = await _look_after_history(pool, settings, observe)
        sink = await PostgresSink.on(pool, settings, observe)
        keeper = asyncio.create_task(_keep_history(pool, settings, observe, wait_s))
        try:
            async with probed(observe, PostgreSQL=partial(ping, pool)):
                yield sink
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})


async def migrate_schema(settings: Settings, observe: Observe) -> int:
    """Bring the schema up to date."""
    async with open_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        for name in await migrate(connection, settings.db_schema):
            observe(Noted(message=f"applied migration {name}"))
    return EXIT_DONE


async def _look_after_history(pool: Pool, settings: Settings, observe: Observe) -> float:
    """Look after the history's partitions; return in how many seconds to do so again. Raises FatalError."""
    today = dt.datetime.now(dt.UTC).date()
    try:
        async with pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
            await maintain_history(connection, settings.db_schema, today, settings.history_retention)
    except (*FOREIGN, TransientError) as error:
        failed = error if isinstance(error, TransientError) else translate(error, "maintaining the history")
        if not isinstance(failed, TransientError):
            raise failed from error
        observe(Warned(message=f"the history's partitions were not looked after: {failed}"))
        return HISTORY_RETRY_S
    return HISTORY_INTERVAL_S


async def _keep_history(pool: Pool, settings: Settings, observe: Observe, wait_s: float) -> None:
    while True:
        await asyncio.sleep(wait_s)
        try:
            wait_s = await _look_after_history(pool, settings, observe)
        except ClusterinfoError as error:
            observe(Warned(message=f"the history's partitions were not looked after: {error}"))
            wait_s = HISTORY_RETRY_S


def _warn_of_plain_connection(settings: Settings, observe: Observe) -> None:
    local = settings.db_host in ("localhost", "127.0.0.1", "::1") or settings.db_host.startswith("/")
    if settings.db_ssl_mode == "disable" and not local:
        observe(
            Warned(
                message=f"the connection to PostgreSQL at {settings.db_host} is not encrypted",
                remedy="set DB_SSL_MODE=verify-full and DB_SSL_ROOT_CERT",
            )
        )
