"""HTTP with one set of credentials: the session, TLS and proxy as they say, the headers of each request.

kubernetes_asyncio does the same, but cannot be had without its models of all kinds, which take 37 MB of memory and most
of a second to import. What an answer means is `client.py`'s business.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from clusterinfo.kubernetes.impersonation import Headers

Header = Callable[[], Awaitable[str]]
"""The value of Authorization as it is now; "" for none."""

CONNECTIONS = 100
"""Of what is asked for; watches are not limited."""
BUFFER_BYTES = 2 * 1024 * 1024
"""Of an answer, read from its socket and not taken yet."""
REDIRECTS = 5
"""Followed in a row, within one origin."""


@dataclass(slots=True, kw_only=True)
class Configuration:
    """Where the API is, whom to trust, and who asks. Certificates and keys are files (PEM)."""

    host: str
    """Scheme, host, port and path, without a slash at its end."""
    authority: str | None = None
    """CA certificates; None: the system's."""
    certificate: tuple[str, str] | None = None
    """Of the client, and its key."""
    verifies: bool = True
    """False: any certificate of the server is accepted."""
    tls_server_name: str | None = None
    """The name that the server's certificate has to have; None: that of the host."""
    proxy: str | None = None
    authorization: Header | None = None
    """Asked before each request."""


class ApiSession:
    """A session of `connections` at most (0: any number), each of which keeps `buffer_bytes` of an answer."""

    def __init__(self, configuration: Configuration, headers: Headers, *, connections: int, buffer_bytes: int) -> None:
        self._configuration = configuration
        # The proxy is known by now; ~/.netrc, which `trust_env` has read, would be read at every request.
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=_tls(configuration)),
            headers=[("User-Agent", "clusterinfo"), *headers],
            read_bufsize=buffer_bytes,
            trust_env=False,
        )

    async def request(
        self, method: str, path: str, query: Sequence[tuple[str, str]], *, accept: str, **arguments: Any
    ) -> aiohttp.ClientResponse:
        """The answer, its body still to be read; `arguments` are those of aiohttp.

        Redirects are followed within their origin only: elsewhere nobody was asked to read this cluster, and whatever
        answers there is not its API. aiohttp would follow, with the headers of impersonation and the client
        certificate. One that leads to another origin is returned as it is.
        """
        url = f"{self._configuration.host}{path}{'?' if query else ''}{urlencode(query)}"
        arguments |= {"headers": await self._headers(accept), "proxy": self._configuration.proxy}
        arguments |= {"server_hostname": self._configuration.tls_server_name, "allow_redirects": False}
        for _ in range(REDIRECTS):
            response = await self.session.request(method, url, **arguments)
            target = redirect_of(response)
            if target is None or target.origin() != response.url.origin():
                break
            response.release()
            url = str(target)
        return response

    async def _headers(self, accept: str) -> dict[str, str]:
        authorization = await self._configuration.authorization() if self._configuration.authorization else ""
        return {"Accept": accept} | ({"Authorization": authorization} if authorization else {})

    async def close(self) -> None:
        """Close its connections; what is under way breaks off."""
        await self.session.close()


def redirect_of(response: aiohttp.ClientResponse) -> URL | None:
    """Where a redirect leads; None if it is none, or leads nowhere."""
    location = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        target = response.url.join(URL(location))
        return target if target.host else None
    except ValueError:
        return None


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.authority)
    if configuration.certificate is not None:
        context.load_cert_chain(*configuration.certificate)
    if not configuration.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # As kubectl does: Go accepts certificate authorities without the extensions that RFC 5280 asks for, Python 3.13 and
    # later only with this switch. Signatures, names and dates are checked all the same.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
