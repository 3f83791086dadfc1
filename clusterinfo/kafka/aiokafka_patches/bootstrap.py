"""A client that is cancelled while it bootstraps closes the connection that it did so by.

aiokafka's own (0.14.0) closes it after an answer and after an error, and forgets it when it is cancelled, as by a
deadline: it stays open until it is collected, and says so in the log. No issue is known. It can go when aiokafka closes
it in any case.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from aiokafka import client
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn

_bootstrap = AIOKafkaClient.bootstrap
_made: ContextVar[list[AIOKafkaConnection] | None] = ContextVar("made", default=None)


def install() -> None:
    """Make aiokafka's clients bootstrap so. Calling it again changes nothing."""
    client.create_conn = _remembered_conn
    AIOKafkaClient.bootstrap = _closing_bootstrap


async def _closing_bootstrap(self: AIOKafkaClient) -> None:
    made: list[AIOKafkaConnection] = []
    token = _made.set(made)
    try:
        await _bootstrap(self)
    except BaseException:
        for connection in made:
            connection.close()  # again does no harm
        raise
    finally:
        _made.reset(token)


async def _remembered_conn(*where: Any, **arguments: Any) -> AIOKafkaConnection:
    connection = await create_conn(*where, **arguments)
    if (made := _made.get()) is not None:
        made.append(connection)
    return connection
