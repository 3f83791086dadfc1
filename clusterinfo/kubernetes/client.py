"""Authenticated HTTP to one Kubernetes API; foreign errors become ours here, from a table.

The only module that imports kubernetes_asyncio, and only when a connection is made: it costs about a second and 70 MB.
That library finds the credentials and makes the aiohttp session; answers are read as raw bytes, with a cap on their
size and a deadline on every wait. What a list means is `source.py`'s business.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from clusterinfo.errors import ClusterinfoError, ConfigError, FatalError, TransientError
from clusterinfo.kubernetes import discovery
from clusterinfo.kubernetes.pages import parse_status
from clusterinfo.model import GroupVersionResource
from clusterinfo.settings import Settings

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

T = TypeVar("T")

CONNECT_WITHIN_S = 20.0
"""To reach the API for the first time, after which a start gives up: see DESIGN, "Draining"."""
TCP_CONNECT_S = 10.0
FIRST_BYTE_S = 65.0
"""kube-apiserver answers 504 itself after its `--request-timeout`, 60 s by default."""
BETWEEN_CHUNKS_S = 30.0
WHOLE_ANSWER_S = 300.0
"""The life of a continue token: etcd's history is compacted every 5 minutes."""
CREDENTIALS_S = 30.0
"""For a kubeconfig's exec plugin to print a token."""
RETRY_PAUSE_S = 0.5
SMALL_ANSWER_BYTES = 16 * 1024 * 1024
"""Cap on answers that are no pages: discovery of 1,000 custom resources takes 1 MB."""
ERROR_BODY_BYTES = 64 * 1024

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
JSON = "application/json"


class ApiStatusError(ClusterinfoError):
    """The API refused a request, and will refuse it again: `status` (HTTP), `reason` and `message` as it says why."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if message else f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiTransientError(TransientError):
    """The API could not answer now: `status` (HTTP) says how it put it."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status


class PageTooLargeError(ClusterinfoError):
    """An answer was dropped because it passed `limit_bytes`: ask for fewer objects."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the answer is longer than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class _RefusedError(Exception):
    """Credentials or certificates are not, or no longer, accepted: read them again, once."""


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Who the cluster is: `id` the uid of its kube-system namespace, or its name where `identity_known` is False."""

    id: str
    name: str
    server_version: str
    identity_known: bool


# --- credentials -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Credentials:
    """A configuration of kubernetes_asyncio, and how it stays fresh."""

    configuration: Configuration
    cluster_name: str = ""
    """As the kubeconfig calls the cluster; "" in a cluster."""


async def load_credentials(settings: Settings) -> Credentials:
    """In-cluster credentials, or those of a kubeconfig where one is named or there are no others.

    Raises ConfigError (exit 2) that names the variable to set, TransientError if an exec plugin does not answer.
    """
    if settings.kubeconfig is None and settings.kube_context is None and _in_cluster():
        return _load_in_cluster()
    try:
        async with asyncio.timeout(CREDENTIALS_S):
            return await _load_kubeconfig(settings)
    except TimeoutError as error:
        raise TransientError(f"the kubeconfig's plugin gave no credentials within {CREDENTIALS_S:.0f} s") from error


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()


def _load_in_cluster() -> Credentials:
    from kubernetes_asyncio.config import ConfigException
    from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader

    configuration = _new_configuration()
    loader = InClusterConfigLoader(str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt"))
    try:
        loader.load_and_set(configuration)
    except (ConfigException, OSError) as error:
        raise ConfigError(f"the Pod's service account cannot be used: {error}; or set KUBECONFIG") from error
    _strip_token(configuration)
    reread: Callable[[Configuration], object] = configuration.refresh_api_key_hook  # type: ignore[assignment]

    def refresh(current: Configuration) -> None:
        reread(current)  # reads the file again when a minute has passed
        _strip_token(current)

    configuration.refresh_api_key_hook = refresh
    return Credentials(configuration)


def _new_configuration() -> Configuration:
    from kubernetes_asyncio.client import Configuration

    configuration = Configuration()
    # As kubectl does: Go accepts certificate authorities without the extensions that RFC 5280 asks for, Python 3.13 and
    # later only with this switch. Signatures, names and dates are checked all the same.
    configuration.disable_strict_ssl_verification = True
    return configuration


def _strip_token(configuration: Configuration) -> None:
    """A token file often ends in a newline, which no HTTP header may hold."""
    if token := configuration.api_key.get("BearerToken"):
        configuration.api_key["BearerToken"] = token.strip()


async def _load_kubeconfig(settings: Settings) -> Credentials:
    from kubernetes_asyncio.config.kube_config import KubeConfigLoader

    merged, current = _read_kubeconfig(_kubeconfig_paths(settings))
    context = settings.kube_context or current
    _check_context(merged, context, settings)
    configuration = _new_configuration()
    with _explained(f"context {context!r} of the kubeconfig cannot be used"):
        loader = KubeConfigLoader(config_dict=merged, active_context=context, config_base_path=None)
        await loader.load_and_set(configuration)
    _strip_token(configuration)
    if getattr(loader, "exec_plugin_expiry", None) is not None:
        configuration.refresh_api_key_hook = _exec_refresh(loader)
    chosen: Any = loader.current_context
    return Credentials(configuration, str(chosen["context"]["cluster"]))


def _kubeconfig_paths(settings: Settings) -> str:
    """The files to read, colon-separated, as kubectl takes them. Raises ConfigError if there is none."""
    given = str(settings.kubeconfig) if settings.kubeconfig else "~/.kube/config"
    paths = [Path(path).expanduser() for path in given.split(os.pathsep) if path]
    if any(path.is_file() for path in paths):
        return os.pathsep.join(str(path) for path in paths if path.is_file())
    looked_for = ", ".join(str(path) for path in paths)
    if settings.kubeconfig:
        raise ConfigError(f"KUBECONFIG is {given!r}: there is no such file ({looked_for}); name a kubeconfig file")
    raise ConfigError(
        f"there is no kubeconfig: KUBECONFIG is not set, {looked_for} does not exist, and this is no Pod with a "
        "service account; set KUBECONFIG to a kubeconfig file"
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns what the loader raises for a file a user wrote (for most it has no error of its own) into ConfigError."""
    try:
        yield
    except (ClusterinfoError, TimeoutError):
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {_quotable(error)}; check KUBECONFIG and KUBE_CONTEXT") from error


def _read_kubeconfig(paths: str) -> tuple[Any, str | None]:
    """The merged kubeconfig and its current context: of several files the first that sets it, as kubectl has it."""
    from kubernetes_asyncio.config.kube_config import KubeConfigMerger

    with _explained(f"KUBECONFIG {paths!r} cannot be read"):
        merger = KubeConfigMerger(paths)
    contexts = (loaded.get("current-context") for loaded in merger.config_files.values())
    return merger.config, next((context for context in contexts if context), None)


def _check_context(merged: Any, context: str | None, settings: Settings) -> None:
    with _explained("the kubeconfig's contexts cannot be read"):
        known = sorted(str(entry["name"]) for entry in merged.value["contexts"])
    if context in known:
        return
    allowed = f"allowed is one of {', '.join(known)}" if known else "the kubeconfig has no contexts"
    if settings.kube_context:
        raise ConfigError(f"KUBE_CONTEXT is {context!r}: {allowed}")
    found = f"its current-context is {context!r}" if context else "the kubeconfig has no current-context"
    raise ConfigError(f"KUBE_CONTEXT is not set and {found}: {allowed}")


def _exec_refresh(loader: Any) -> Callable[[Configuration], Awaitable[None]]:
    """A hook that asks the exec plugin again when its token nears its end; the library itself asks once only."""
    lock = asyncio.Lock()

    async def refresh(configuration: Configuration) -> None:
        async with lock:
            try:
                async with asyncio.timeout(CREDENTIALS_S):
                    await loader.load_from_exec_plugin()  # returns at once while the token is good for 5 minutes
            except Exception as error:
                raise TransientError(f"the kubeconfig's plugin gave no token: {_quotable(error)}") from error
            configuration.api_key["BearerToken"] = loader.token.strip()

    return refresh


# --- errors ----------------------------------------------------------------------------------------------------------

TRANSIENT_STATUS = frozenset((408, 429))
"""And every 5xx. Source: Kubernetes API concepts; 429 and 503 may carry Retry-After."""

_USERINFO = re.compile(r"//[^/@\s]*@")


def _quotable(error: BaseException) -> str:
    """An error in one short line without userinfo."""
    text = _USERINFO.sub("//", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def parse_retry_after(value: str | None, now: dt.datetime) -> float | None:
    """`Retry-After` -> seconds from `now`, None if absent or unreadable.

    "The Retry-After field value can be either an HTTP-date or a number of seconds": RFC 9110, 10.2.3.
    """
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def status_error(status: int, body: bytes, retry_after: str | None, now: dt.datetime) -> ClusterinfoError:
    """An answer other than 2xx -> the error it means: ApiTransientError or ApiStatusError."""
    told = parse_status(body)
    plain = body[:200].decode(errors="replace").strip() if not told.reason and not told.message else ""
    message = " ".join((told.message or plain)[:300].split())
    if status in TRANSIENT_STATUS or status >= 500:
        wait_s = parse_retry_after(retry_after, now)
        return ApiTransientError(f"the API answered {status} {message}".rstrip(), status=status, retry_after_s=wait_s)
    return ApiStatusError(status, told.reason or _REASONS.get(status, "Unknown"), message)


# What the server calls them, for answers without a Status document. Source: k8s.io/apimachinery, metav1.StatusReason.
_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Expired",
}


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Transport errors as ours; which certificate errors mean that credentials are to be read again."""
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise _RefusedError(f"TLS with the API failed: {_quotable(error)}") from error
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise TransientError(f"the API did not answer in time: {_quotable(error)}") from error
    except aiohttp.ClientConnectorError as error:
        raise TransientError(f"the API cannot be reached: {_quotable(error)}") from error
    except aiohttp.ClientPayloadError as error:
        raise TransientError(f"the answer broke off: {_quotable(error)}") from error
    except (aiohttp.InvalidURL, ValueError) as error:
        raise FatalError(f"no request can be made with these settings: {_quotable(error)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransientError(f"the connection to the API failed: {_quotable(error)}") from error


# --- the client ------------------------------------------------------------------------------------------------------


class KubernetesClient:
    """One cluster's API. Made by `connect`; its methods may be called side by side."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials
        self._api = _open_api(credentials)
        self._retired: ApiClient | None = None
        self._renewing = asyncio.Lock()
        self.cluster = ClusterIdentity("", "", "", identity_known=False)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator[KubernetesClient]:
        """Find credentials, reach the API within 20 s, learn which cluster it is; close everything at the end.

        Raises ConfigError for settings a user can correct, FatalError if the API cannot be reached or refuses us.
        """
        credentials = await load_credentials(settings)
        client = cls(settings, credentials)
        try:
            client.cluster = await _within(CONNECT_WITHIN_S, client._identify, str(credentials.configuration.host))
            yield client
        finally:
            await client._close()

    async def _close(self) -> None:
        await self._api.close()
        if self._retired is not None:
            await self._retired.close()

    async def discover(self, selection: discovery.Selection | None = None) -> discovery.Discovery:
        """The kinds to list, by `selection` or else the settings' INCLUDE and EXCLUDE.

        Raises TransientError, ApiStatusError, or FatalError on documents that are none. A group that does not answer is
        reported in the result.
        """
        chosen = selection or discovery.Selection(tuple(self._settings.include), tuple(self._settings.exclude))
        return discovery.choose(await self._groups(), chosen)

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
        accept: str = JSON,
        max_bytes: int = SMALL_ANSWER_BYTES,
    ) -> bytes:
        """The body of a GET. A refusal of the credentials is followed by reading them again, once; then FatalError."""
        api = self._api
        try:
            return await self._get(api, path, query or [], accept, max_bytes)
        except _RefusedError:
            await self._renew(api)
        try:
            return await self._get(self._api, path, query or [], accept, max_bytes)
        except _RefusedError as error:
            host = self._credentials.configuration.host
            raise FatalError(f"{host}: {error}; check the credentials in KUBECONFIG or the service account") from error

    async def _get(self, api: ApiClient, path: str, query: list[tuple[str, str]], accept: str, max_bytes: int) -> bytes:
        async with _translated(), asyncio.timeout(WHOLE_ANSWER_S):
            response = await api.call_api(
                path,
                "GET",
                query_params=query,
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(
                    total=None, connect=TCP_CONNECT_S, sock_connect=TCP_CONNECT_S, sock_read=FIRST_BYTE_S
                ),
            )
            async with response:
                return await _read_answer(response, max_bytes)

    async def _renew(self, stale: ApiClient) -> None:
        """Read credentials and certificates again, unless somebody did meanwhile.

        Requests under way keep the session they began with, which is closed at the next renewal.
        """
        async with self._renewing:
            if self._api is not stale:
                return
            self._credentials = await load_credentials(self._settings)
            fresh = _open_api(self._credentials)
            if self._retired is not None:
                await self._retired.close()
            self._retired, self._api = self._api, fresh

    async def _identify(self) -> ClusterIdentity:
        """Who this is: the uid of kube-system; only a 403 on it makes the name the identity (see DESIGN, section 4)."""
        version = _decode_version(await self.get("/version"))
        given = self._settings.cluster_name or self._credentials.cluster_name
        try:
            uid = _decode_uid(await self.get("/api/v1/namespaces/kube-system"))
        except ApiStatusError as error:
            if error.status != 403:
                raise FatalError(f"namespace kube-system, whose uid identifies the cluster: {error}") from error
            return _named(given, version)
        return ClusterIdentity(uid, given or uid, version, identity_known=True)

    async def _groups(self) -> list[discovery.ApiGroup]:
        core, groups = await self.get("/api", accept=AGGREGATED), await self.get("/apis", accept=AGGREGATED)
        if discovery.is_aggregated(core) and discovery.is_aggregated(groups):
            return discovery.aggregated_groups(core) + discovery.aggregated_groups(groups)
        index = discovery.legacy_index(await self.get("/api"), await self.get("/apis"))
        documents = {wanted: await self._legacy_document(*wanted) for wanted in index.group_versions()}
        return discovery.legacy_groups(index, documents)

    async def _legacy_document(self, group: str, version: str) -> bytes | None:
        """One `APIResourceList`; None if its server does not answer, which makes its group count as failing."""
        try:
            return await self.get(version_path(group, version))
        except (TransientError, ApiStatusError):
            return None


def version_path(group: str, version: str) -> str:
    """`/api/v1`, `/apis/apps/v1`."""
    return f"/apis/{quote(group, safe='')}/{quote(version, safe='')}" if group else f"/api/{quote(version, safe='')}"


def resource_path(gvr: GroupVersionResource, namespace: str = "") -> str:
    """`/api/v1/namespaces/default/pods`; `namespace` is "" for all, and for kinds of the cluster."""
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{version_path(gvr.group, gvr.version)}{within}/{quote(gvr.resource, safe='')}"


def _open_api(credentials: Credentials) -> ApiClient:
    from kubernetes_asyncio.client import ApiClient

    with _explained("the certificates of the kubeconfig cannot be used"):
        api = ApiClient(credentials.configuration)
    api.user_agent = "clusterinfo"
    return api


async def _read_answer(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if response.status == 401:
        raise _RefusedError("the API does not accept our credentials (401 Unauthorized)")
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
                raise PageTooLargeError(max_bytes)
            break
        buffer.write(chunk)
    return buffer.getvalue()


async def _read_chunk(response: aiohttp.ClientResponse) -> bytes:
    async with asyncio.timeout(BETWEEN_CHUNKS_S):
        return await response.content.readany()


async def _within(seconds: float, step: Callable[[], Awaitable[T]], host: str) -> T:
    """Repeat `step` through TransientErrors for `seconds`; then raise FatalError with the last of them."""
    last: TransientError | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await step()
                except TransientError as error:
                    last = error
                    await asyncio.sleep(RETRY_PAUSE_S)
    except TimeoutError:
        raise FatalError(f"{host} was not reached within {seconds:.0f} s: {last or 'no answer'}") from last


def _named(name: str, version: str) -> ClusterIdentity:
    if not name:
        raise ConfigError(
            "the cluster has no name: namespace kube-system, whose uid identifies it, may not be read; allow get on it "
            "or set CLUSTER_NAME"
        )
    return ClusterIdentity(name, name, version, identity_known=False)


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
        raise FatalError("namespace kube-system has no uid, by which the cluster would be known")
    return uid
