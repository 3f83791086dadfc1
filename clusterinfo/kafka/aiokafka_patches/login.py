"""A client that connects with the password and certificates as they are by then.

No issue is known: aiokafka keeps what it was built with, in two attributes that it reads whenever it connects. It can
go when aiokafka takes providers for both, as it does for the token of OAUTHBEARER.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable

from aiokafka.client import AIOKafkaClient

from clusterinfo.errors import ConfigError


def refresh_credentials(
    client: AIOKafkaClient,
    *,
    password: Callable[[], str | None],
    ssl_context: Callable[[], ssl.SSLContext | None],
) -> None:
    """From now on `client` (of a producer or consumer) asks these for every connection.

    An `ssl_context` that raises ConfigError (half of a pair of files is written) means the one before, until the next
    connection.
    """
    client._last_context = client._ssl_context
    client._make_context = ssl_context
    client._password = password
    client.__class__ = _RefreshingClient


class _RefreshingClient(AIOKafkaClient):  # type: ignore[misc]  # aiokafka is untyped
    """Properties in place of the two attributes."""

    _password: Callable[[], str | None]
    _make_context: Callable[[], ssl.SSLContext | None]
    _last_context: ssl.SSLContext | None

    @property
    def _sasl_plain_password(self) -> str | None:
        return self._password()

    @property
    def _ssl_context(self) -> ssl.SSLContext | None:
        with contextlib.suppress(ConfigError):
            self._last_context = self._make_context()
        return self._last_context
