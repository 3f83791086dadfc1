"""Authenticated HTTP to one Kubernetes API: answers as raw bytes, their size capped, a deadline on every wait.

`credentials.py` finds the credentials, `errors.py` what a failure means, kubernetes_asyncio makes the aiohttp session.
What a list means is `list_source.py`'s business.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import datetime as dt
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from isal import isal_zlib
from yarl import URL

from clusterinfo.errors import ConfigError, FatalError, TransientError, one_line
from clusterinfo.kubernetes import discovery
from clusterinfo.kubernetes.credentials import Credentials, config_errors, load_credentials
from clusterinfo.kubernetes.errors import (
    ApiStatusError,
    PageTooLargeError,
    RefusedError,
    UnauthorizedError,
    status_error,
    translated,
)
from clusterinfo.kubernetes.without_models import ApiClient
from clusterinfo.model import GroupVersionResource
from clusterinfo.settings import Settings
from clusterinfo.spelling import did_you_mean
from clusterinfo.waiting import retried_within

aiohttp.set_zlib_backend(isal_zlib)  # unpacks gzip in a third of zlib's time

T = TypeVar("T")
JSON = dict[str, Any]

WATCH_BUFFER_BYTES = 64 * 1024
"""Of a watch, read from its socket and not taken yet: the client's 2 MiB would be kept by each of hundreds."""
TLS_BUFFER_BYTES = 16 * 1024
"""A TLS record is no longer (RFC 8446, 5.1)."""
CONNECT_WITHIN_S = 20.0
"""To reach the API for the first time, after which a start gives up (docs/DESIGN.md, section 8)."""
TCP_CONNECT_S = 10.0
FIRST_BYTE_S = 65.0
"""kube-apiserver answers 504 itself after its `--request-timeout`, 60 s by default."""
BETWEEN_CHUNKS_S = 30.0
WHOLE_ANSWER_S = 300.0
"""The life of a continue token: etcd's history is compacted every 5 minutes."""
RETRY_PAUSE_S = 0.5
SMALL_ANSWER_BYTES = 16 * 1024 * 1024
"""Cap on answers that are no pages: discovery of 1,000 custom resources takes 1 MB."""
ERROR_BODY_BYTES = 64 * 1024
REDIRECTS = 5
"""Followed in a row, within one origin."""

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
JSON_TYPE = "application/json"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NOT_AUTOMANAGED = "!kube-aggregator.kubernetes.io/automanaged"
"""The server labels the APIServices that it makes for its own groups and those of CRDs: hundreds, not asked for."""
API_SERVICES_A_PAGE, API_SERVICE_PAGES = 500, 20
NAMESPACES = "/api/v1/namespaces"
NAMESPACES_FOR_A_HINT = 1000
KUBE_SYSTEM = f"{NAMESPACES}/kube-system"
PROBE = "/api"
"""What every authenticated client may read and, unlike /version, nobody else: credentials refused here are no good."""


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Who the cluster is: `id` is CLUSTER_ID, else the uid of its kube-system namespace; `name` a label."""

    id: str
    name: str
    server_version: str


class _Asked(NamedTuple):
    """A request; `body` is sent as JSON."""

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    accept: str = JSON_TYPE
    body: JSON | None = None


class OpenWatch:
    """A watch that was answered 200: what the server sends, as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        _shrink_tls_buffer(response)

    async def read(self, within_s: float) -> bytes:
        """What came next; b"" at its end. Raises TimeoutError after `within_s` of silence, TransientError if it broke
        off.
        """
        async with asyncio.timeout(within_s):
            async with translated():
                return await self._response.content.readany()

    def close(self) -> None:
        """Close its connection, which is its own."""
        self._response.close()


def _shrink_tls_buffer(response: aiohttp.ClientResponse) -> None:
    """Have a connection that stays open for long, and brings little, receive into 16 KiB instead of asyncio's 256.

    asyncio keeps that buffer for each TLS connection (`sslproto.SSLProtocol.max_size`) and asks how large it is to be
    before each read. 300 watches took 100 MB, and take 28 together with `memory.py`. Other event loops have other ways.
    """
    transport = response.connection.transport if response.connection else None
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    if isinstance(protocol, asyncio.sslproto.SSLProtocol):
        protocol.__dict__["max_size"] = TLS_BUFFER_BYTES
        protocol._ssl_buffer = bytearray(TLS_BUFFER_BYTES)  # type: ignore[attr-defined]  # the stubs leave it out
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)  # type: ignore[attr-defined]


class _Sessions:
    """What one set of credentials opened: a session for what is asked for, and one for watches.

    Each watch is a connection for as long as it runs: theirs are not limited in number, and nothing waits behind them.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.api = _open_api(credentials)
        self._watches: ApiClient | None = None

    @property
    def watches(self) -> ApiClient:
        """Opened when it is used: who lists needs none."""
        if self._watches is None:
            self._watches = _open_api(self._credentials, watches=True)
        return self._watches

    async def close(self) -> None:
        """Close them; what is under way breaks off."""
        await self.api.close()
        if self._watches is not None:
            await self._watches.close()


class KubernetesClient:
    """One cluster's API. Made by `connect`; its methods may be called side by side."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials
        self._api = _Sessions(credentials)
        self._retired: _Sessions | None = None
        self._accepted: _Sessions | None = None
        """The session whose credentials were accepted elsewhere when a path refused them."""
        self._renewing = asyncio.Lock()
        self.cluster = ClusterIdentity("", "", "")
        self.answered_at = ""
        """The server's date in its last answer, as HTTP has it."""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        settings: Settings,
        *,
        identify: bool = True,
        credentials: Credentials | None = None,
        within_s: float | None = None,
    ) -> AsyncIterator[KubernetesClient]:
        """Find credentials unless they are given, reach the API, learn which cluster it is; close all at the end.

        Unless told to `identify` it, `cluster` is empty: to ask what is served takes no identity. The first answer has
        to come within `within_s`, or CONNECT_WITHIN_S. Raises ConfigError
        for settings a user can correct, FatalError if the API cannot be reached or refuses us.
        """
        credentials = credentials or await load_credentials(settings)
        client = cls(settings, credentials)
        host, deadline_s = credentials.host, within_s or CONNECT_WITHIN_S
        try:
            if identify:
                client.cluster = await _within(deadline_s, client._identify, host)
            else:
                await _within(deadline_s, client.ping, host)
            yield client
        finally:
            await client._close()

    async def _close(self) -> None:
        await self._api.close()
        if self._retired is not None:
            await self._retired.close()

    async def ping(self) -> None:
        """Return if the API answers. Raises TransientError, ApiStatusError or FatalError if it does not."""
        await self.get("/version")

    async def discover(self, selection: discovery.Selection | None = None) -> discovery.Discovery:
        """The kinds to list, by `selection` or else the settings' INCLUDE and EXCLUDE.

        Raises TransientError, also on documents that are none, ApiStatusError, PageTooLargeError, FatalError. A group
        that does not answer is reported in the result.
        """
        chosen = selection or _selection_of(self._settings)
        return discovery.choose(await self._groups(), chosen)

    async def aggregated_apis(self) -> frozenset[tuple[str, str]]:
        """(group, version) of the APIs that another server than kube-apiserver serves: see `discovery.py`.

        Usually one answer of a few kB. Raises TransientError, ApiStatusError, PageTooLargeError, or FatalError for
        documents that are none or never end.
        """
        found: set[tuple[str, str]] = set()
        query = [("labelSelector", NOT_AUTOMANAGED), ("limit", str(API_SERVICES_A_PAGE))]
        token = ""
        for _ in range(API_SERVICE_PAGES):
            further = [("continue", token)] if token else []
            page, token = discovery.api_services(await self.get(API_SERVICES, query=query + further))
            found |= page
            if not token:
                return frozenset(found)
        raise FatalError(f"{API_SERVICES} has more than {API_SERVICE_PAGES} pages")

    async def missing_namespaces(self, names: Iterable[str]) -> dict[str, str]:
        """Those of `names` that the API says there are not, each with what may be meant, or "".

        Where namespaces may not be read none is missing: that is not known. Raises TransientError, FatalError.
        """
        missing = [name for name in names if await self._is_missing(name)]
        known = await self._namespaces() if missing else []
        return {name: did_you_mean(name, known) for name in missing}

    async def _is_missing(self, namespace: str) -> bool:
        try:
            await self.get(f"{NAMESPACES}/{quote(namespace, safe='')}")
        except ApiStatusError as error:
            return error.status == HTTPStatus.NOT_FOUND
        return False

    async def _namespaces(self) -> list[str]:
        """Some of them, for a hint; none where they may not be listed."""
        try:
            return discovery.names_of(await self.get(NAMESPACES, query=[("limit", str(NAMESPACES_FOR_A_HINT))]))
        except (ApiStatusError, PageTooLargeError):
            return []

    async def get_page(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str = "",
        limit: int,
        continue_token: str = "",
        max_bytes: int,
    ) -> bytes:
        """One page of a list: at most `limit` objects of `namespace` ("" for all), the whole body, decompressed.

        No resourceVersion is sent: a consistent read. Raises PageTooLargeError beyond `max_bytes`, TransientError,
        ApiStatusError, FatalError.
        """
        query = [("limit", str(limit)), *([("continue", continue_token)] if continue_token else [])]
        return await self.get(resource_path(gvr, namespace), query=query, max_bytes=max_bytes)

    async def get(
        self,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        accept: str = JSON_TYPE,
        max_bytes: int = SMALL_ANSWER_BYTES,
    ) -> bytes:
        """The body of a GET.

        A refusal of the credentials is followed by reading them again, once. Refused again, they are to blame if the
        API refuses them elsewhere, too (FatalError); else this path alone refuses them (ApiStatusError).
        """
        asked = _Asked("GET", path, query or [], accept)
        return await self._accepted_by(path, lambda api: self._answer(api, asked, max_bytes))

    async def write(self, method: str, path: str, body: JSON) -> bytes:
        """What the API has after a POST or PUT of `body`; credentials and errors as for `get`.

        An ApiStatusError of 409 means that somebody else was first. Who meets a TransientError does not know whether it
        was written.
        """
        asked = _Asked(method, path, [], JSON_TYPE, body)
        return await self._accepted_by(path, lambda api: self._answer(api, asked, SMALL_ANSWER_BYTES))

    @asynccontextmanager
    async def watch(
        self, gvr: GroupVersionResource, *, namespace: str = "", version: int, timeout_s: int
    ) -> AsyncIterator[OpenWatch]:
        """A watch of what changes after `version`, with bookmarks, for `timeout_s`; closed at the end.

        Raises TransientError, ApiStatusError, FatalError, as `get` does, before there is one.
        """
        path = resource_path(gvr, namespace)
        query = [
            ("watch", "1"),
            ("resourceVersion", str(version)),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(timeout_s)),
        ]
        asked = _Asked("GET", path, query)
        opened = OpenWatch(await self._accepted_by(path, lambda api: self._open_watch(api, asked)))
        try:
            yield opened
        finally:
            opened.close()

    async def _open_watch(self, api: _Sessions, asked: _Asked) -> aiohttp.ClientResponse:
        async with translated(), asyncio.timeout(FIRST_BYTE_S):
            response = await _request(api.watches, asked, read_s=None)
            if response.status != 200:
                async with response:
                    await _read_answer(response, ERROR_BODY_BYTES)  # raises what the status means
                    raise ApiStatusError(response.status, "Unexpected", "no answer to a watch")
            return response

    async def _accepted_by(self, path: str, ask: Callable[[_Sessions], Awaitable[T]]) -> T:
        """What `ask` returns, with credentials that are read again if they are refused: see `get`."""
        api = self._api
        try:
            return await ask(api)
        except RefusedError:
            await self._renew(api)
        api = self._api
        try:
            return await ask(api)
        except UnauthorizedError as error:
            if path != PROBE and await self._accepts(api):
                raise error.answer from error
            raise self._refused(error) from error
        except RefusedError as error:
            raise self._refused(error) from error

    def _refused(self, error: RefusedError) -> FatalError:
        return FatalError(
            f"{self._credentials.host}: {error}; check the credentials in KUBECONFIG or the service account"
        )

    async def _accepts(self, api: _Sessions) -> bool:
        """True if the API accepts the credentials of `api`, whatever they allow. Raises TransientError."""
        try:
            await self._answer(api, _Asked("GET", PROBE), SMALL_ANSWER_BYTES)
        except RefusedError:
            return False
        except ApiStatusError:
            pass  # 403: it knows who asks
        self._accepted = api
        return True

    async def _answer(self, api: _Sessions, asked: _Asked, max_bytes: int) -> bytes:
        async with translated(), asyncio.timeout(WHOLE_ANSWER_S):
            response = await _request(api.api, asked, read_s=FIRST_BYTE_S)
            async with response:
                self.answered_at = response.headers.get("Date", "")
                return await _read_answer(response, max_bytes)

    async def _renew(self, stale: _Sessions) -> None:
        """Read credentials and certificates again, unless somebody did meanwhile or they are known to be good.

        Requests under way keep the session they began with, which is closed at the next renewal: a kind that is refused
        whoever asks, page by page, must not cause one each time.
        """
        async with self._renewing:
            if self._api is not stale or (self._accepted is stale and await self._accepts(stale)):
                return
            self._credentials = await _load_again(self._settings)
            # Before anything is awaited: whoever is cancelled here leaves no session behind that nobody closes.
            retired, self._retired, self._api = self._retired, self._api, _Sessions(self._credentials)
            if retired is not None:
                await retired.close()

    async def _identify(self) -> ClusterIdentity:
        """Who this is (docs/DESIGN.md, 4). With a CLUSTER_ID nobody has to let us read kube-system."""
        version = _decode_version(await self.get("/version"))
        identity = self._settings.cluster_id or await self._kube_system_uid()
        return ClusterIdentity(
            identity, self._settings.cluster_name or self._credentials.cluster_name or identity, version
        )

    async def _kube_system_uid(self) -> str:
        try:
            return _decode_uid(await self.get(KUBE_SYSTEM))
        except ApiStatusError as error:
            raise _unidentified(f"cannot be read ({one_line(error)})") from error

    async def _groups(self) -> list[discovery.ApiGroup]:
        core, groups = await self.get("/api", accept=AGGREGATED), await self.get("/apis", accept=AGGREGATED)
        if discovery.is_aggregated(core) and discovery.is_aggregated(groups):
            return discovery.aggregated_groups(core) + discovery.aggregated_groups(groups)
        index = discovery.legacy_index(await self.get("/api"), await self.get("/apis"))
        documents = {wanted: await self._legacy_document(*wanted) for wanted in index.group_versions()}
        return discovery.legacy_groups(index, documents)

    async def _legacy_document(self, group: str, version: str) -> bytes | str:
        """One `APIResourceList`, or why it did not come, which makes its group count as failing."""
        try:
            return await self.get(version_path(group, version))
        except (TransientError, ApiStatusError, PageTooLargeError) as error:
            return str(error)


def version_path(group: str, version: str) -> str:
    """`/api/v1`, `/apis/apps/v1`."""
    return f"/apis/{quote(group, safe='')}/{quote(version, safe='')}" if group else f"/api/{quote(version, safe='')}"


def resource_path(gvr: GroupVersionResource, namespace: str = "") -> str:
    """`/api/v1/namespaces/default/pods`; `namespace` is "" for all, and for kinds of the cluster."""
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{version_path(gvr.group, gvr.version)}{within}/{quote(gvr.resource, safe='')}"


async def _request(api: ApiClient, asked: _Asked, *, read_s: float | None) -> aiohttp.ClientResponse:
    """The answer, its body still to be read: each part of it within `read_s`."""
    response: aiohttp.ClientResponse = await api.call_api(
        asked.path,
        asked.method,
        query_params=asked.query,
        header_params={"Accept": asked.accept},
        body=asked.body,
        auth_settings=["BearerToken"],
        _preload_content=False,
        _request_timeout=aiohttp.ClientTimeout(
            total=None, connect=TCP_CONNECT_S, sock_connect=TCP_CONNECT_S, sock_read=read_s
        ),
    )
    return response


def _open_api(credentials: Credentials, *, watches: bool = False) -> ApiClient:
    """A session; for `watches` of any number of connections, each of which keeps little."""
    with config_errors("the certificates of the kubeconfig cannot be used"):
        api = ApiClient(credentials.configuration)
    api.user_agent = "clusterinfo"
    session = api.rest_client.pool_manager
    if watches and session.connector is not None:
        session.connector._limit = 0  # unlimited; the client takes what is 0 in its configuration for unset
        session._read_bufsize = WATCH_BUFFER_BYTES
    # The proxy is known by now; ~/.netrc would be read at every request, and each that has a token refused if it names
    # the API's host.
    session._trust_env = False
    session.headers.extend(credentials.headers)  # the client's own are a dict: no name twice
    api.rest_client.pool_manager = _SameOrigin(session)  # type: ignore[assignment]  # what the client uses of it
    return api


class _SameOrigin:
    """A session that follows redirects within their origin only.

    Elsewhere nobody was asked to read this cluster, and whatever answers there is not its API: aiohttp would follow,
    with the headers of impersonation and the client certificate.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, *, url: str, **arguments: Any) -> aiohttp.ClientResponse:
        """The answer; one that leads to another origin is returned as it is."""
        for _ in range(REDIRECTS):
            response = await self._session.request(url=url, allow_redirects=False, **arguments)
            target = _target(response)
            if target is None or target.origin() != response.url.origin():
                break
            response.release()
            url = str(target)
        return response

    def __getattr__(self, name: str) -> Any:
        """Everything else is the session's."""
        return getattr(self._session, name)


def _target(response: aiohttp.ClientResponse) -> URL | None:
    """Where a redirect leads; None if it is none, or leads nowhere."""
    location = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        target = response.url.join(URL(location))
        return target if target.host else None
    except ValueError:
        return None


async def _read_answer(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if target := _target(response):
        host = one_line(str(target.origin()))
        raise ApiStatusError(response.status, "Redirect", f"it leads to {host}, which is another server: not followed")
    if not 200 <= response.status < 300:
        body = await _read_body(response, ERROR_BODY_BYTES, cut=True)
        now = dt.datetime.now(dt.UTC)
        raise status_error(response.status, body, response.headers.get("Retry-After"), now)
    return await _read_body(response, max_bytes)


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int, *, cut: bool = False) -> bytes:
    """The body, decompressed; what passes `max_bytes` is cut, or else raises PageTooLargeError and drops the rest."""
    buffer = io.BytesIO()  # hands out its bytes without a copy
    while chunk := await _read_chunk(response):
        if buffer.tell() + len(chunk) > max_bytes:
            response.close()
            if not cut:
                raise PageTooLargeError(max_bytes, buffer.getvalue())
            break
        buffer.write(chunk)
    return buffer.getvalue()


async def _read_chunk(response: aiohttp.ClientResponse) -> bytes:
    async with asyncio.timeout(BETWEEN_CHUNKS_S):
        return await response.content.readany()


def _selection_of(settings: Settings) -> discovery.Selection:
    redaction = [("REDACT", entry) for entry in settings.redact]
    redaction += [("REDACT_NOT", entry) for entry in settings.redact_not]
    return discovery.Selection(tuple(settings.include), tuple(settings.exclude), tuple(redaction))


async def _load_again(settings: Settings) -> Credentials:
    """What has worked once is no mistake of a user's any more: it is tried again, as while a file is written."""
    try:
        return await load_credentials(settings)
    except ConfigError as error:
        raise TransientError(str(error)) from error


async def _within(seconds: float, step: Callable[[], Awaitable[T]], host: str) -> T:
    """Repeat `step` through TransientErrors for `seconds`; then raise FatalError with the last of them."""
    try:
        return await retried_within(seconds, step, pause_s=RETRY_PAUSE_S)
    except TimeoutError as error:
        raise FatalError(f"{host} was not reached within {seconds:.0f} s: {error.__cause__ or 'no answer'}") from error


def _unidentified(why: str) -> ConfigError:
    return ConfigError(
        f"the cluster is known by the uid of its namespace kube-system, which {why}: grant the right to get that "
        "namespace (`clusterinfo rbac` prints it), or set CLUSTER_ID"
    )


class _Version(msgspec.Struct):
    git_version: str = msgspec.field(name="gitVersion", default="")


class _Uid(msgspec.Struct):
    uid: str = ""


class _Namespace(msgspec.Struct):
    metadata: _Uid


def _decode_version(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Version).git_version
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FatalError(f"/version is not what Kubernetes serves: {error}; is this a Kubernetes API?") from error


def _decode_uid(body: bytes) -> str:
    try:
        uid = msgspec.json.decode(body, type=_Namespace).metadata.uid
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FatalError(f"namespace kube-system cannot be read: {error}") from error
    if not uid:
        raise _unidentified("has no uid")
    return uid
