"""Credentials for a Kubernetes API: of the Pod's service account, or of a kubeconfig; and how they stay fresh.

What a kubeconfig means is the business of `kubeconfig.py`, `endpoint.py`, `authentication.py` and `exec_plugin.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clusterinfo.errors import ClusterinfoError, ConfigError, TransientError, one_line, without_userinfo
from clusterinfo.kubernetes import authentication, endpoint
from clusterinfo.kubernetes.authentication import Header, Pair
from clusterinfo.kubernetes.exec_plugin import ExecPlugin, told_of_cluster
from clusterinfo.kubernetes.impersonation import Headers, impersonation_headers
from clusterinfo.kubernetes.kubeconfig import Cluster, Entry, Kubeconfig, User, is_file, read_kubeconfig
from clusterinfo.kubernetes.without_models import ConfigException, Configuration, FileOrData, InClusterConfigLoader
from clusterinfo.settings import Settings

CREDENTIALS_S = 30.0
"""For a kubeconfig's exec plugin to print a token."""
READABLE = "run as its owner (Docker Compose: COLLECTOR_UID=$(id -u) docker compose up -d), or let that user read it"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(slots=True)
class Credentials:
    """A configuration of kubernetes_asyncio, and how it stays fresh."""

    configuration: Configuration
    cluster_name: str = ""
    """As the kubeconfig calls the cluster; "" in a cluster."""
    headers: Headers = field(default_factory=list)
    """To be sent with every request, beside the token."""

    @property
    def host(self) -> str:
        """The API's address, for a message."""
        return without_userinfo(str(self.configuration.host))


async def load_credentials(settings: Settings) -> Credentials:
    """In-cluster credentials, or those of a kubeconfig where one is named or there are no others.

    Raises ConfigError (exit 2) that names the variable to set, TransientError if an exec plugin does not answer.
    """
    if _reads_own_cluster(settings):
        found = _load_in_cluster(settings)
    else:
        try:
            async with asyncio.timeout(CREDENTIALS_S):
                found = await _load_kubeconfig(settings)
        except TimeoutError as error:
            raise TransientError(f"the kubeconfig's plugin gave no credentials within {CREDENTIALS_S:.0f} s") from error
    return found


def pod_namespace(settings: Settings) -> str:
    """The namespace of the Pod that this is, if it reads the cluster that it runs in; else "". Raises ConfigError."""
    if not _reads_own_cluster(settings):
        return ""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the Pod's namespace is not known ({error}): set LEADER_ELECTION_LEASE") from error


def _reads_own_cluster(settings: Settings) -> bool:
    return settings.kubeconfig is None and settings.kube_context is None and _in_cluster()


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()


def _load_in_cluster(settings: Settings) -> Credentials:
    configuration = _new_configuration()
    loader = InClusterConfigLoader(str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt"))
    try:
        loader.load_and_set(configuration)
    except (ConfigException, OSError) as error:
        raise ConfigError(f"the Pod's service account cannot be used: {error}; or set KUBECONFIG") from error
    _strip_token(configuration)
    address = endpoint.api_address(str(configuration.host), ConfigError)
    configuration.proxy = endpoint.proxy_of_environment(address)
    reread: Callable[[Configuration], object] = configuration.refresh_api_key_hook  # type: ignore[assignment]

    def refresh(current: Configuration) -> None:
        reread(current)  # reads the file again when a minute has passed
        _strip_token(current)

    configuration.refresh_api_key_hook = refresh
    return Credentials(configuration, headers=_compression(settings, unless_set="none"))


def _new_configuration() -> Configuration:
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
    paths = _kubeconfig_paths(settings)
    with config_errors(f"KUBECONFIG {os.pathsep.join(paths)!r} cannot be read"):
        merged = read_kubeconfig(paths)
    context = _context(merged, settings)
    with config_errors(f"context {context.name!r} of the kubeconfig cannot be used"):
        cluster, user = merged.cluster_of(context), merged.user_of(context)
        return await _of_entries(cluster, user, settings)


async def _of_entries(cluster: Entry, user: Entry, settings: Settings) -> Credentials:
    given, asker = cluster.read(Cluster), user.read(User)
    authentication.check_user(asker, user)
    address, authority = endpoint.api_address(given.server, cluster.wrong), _authority(given, cluster)
    proxy = endpoint.proxy_of_kubeconfig(given.proxy_url, cluster.wrong) or endpoint.proxy_of_environment(address)
    own, header = authentication.client_certificate(asker, user), _header(address, asker, user)
    if address.is_bare and (own or header or asker.exec or authority):
        raise cluster.wrong(
            "`server` has no scheme: expected https:// (kubectl takes it for HTTP, without credentials)"
        )
    compression = _compression(settings, unless_set="none" if given.disable_compression else "gzip")
    headers = impersonation_headers(user.value, user.name) + compression
    configuration = _configured(given, address.url, proxy, authority)
    if own is None and header is None and asker.exec is not None:
        told = told_of_cluster(given, address.url, authority) if asker.exec.provide_cluster_info else None
        await _ask_plugin(configuration, ExecPlugin(asker.exec, user, told))
    else:
        _authenticate(configuration, own, header)
    return Credentials(configuration, cluster.name, headers)


def _configured(given: Cluster, url: str, proxy: str | None, authority: bytes) -> Configuration:
    configuration = _new_configuration()
    configuration.host, configuration.proxy = url, proxy
    configuration.verify_ssl = not given.insecure_skip_tls_verify
    configuration.tls_server_name = given.tls_server_name or None
    configuration.ssl_ca_cert = _as_file(authority) if authority else None
    return configuration


def _header(address: endpoint.Address, asker: User, user: Entry) -> Header | None:
    """Go's HTTP client lets a login in the address go before everything else."""
    if address.login is not None:
        return authentication.fixed(authentication.basic(*address.login))
    return authentication.own_header(asker, user)


def _compression(settings: Settings, *, unless_set: str) -> Headers:
    """In which encoding answers are asked for.

    Within a cluster plain: there are more than the 30 MB/s from which on "opting out of response compression" pays
    (kubernetes/kubernetes#112580). Elsewhere in gzip, as every client of Go's asks: 7 times fewer bytes.
    """
    is_plain = (settings.kube_compression or unless_set) == "none"
    return [("Accept-Encoding", "identity" if is_plain else "gzip")]


def _authority(given: Cluster, cluster: Entry) -> bytes:
    """The CA certificates (PEM) to trust; nothing: the system's. Raises ConfigError, PermissionError."""
    file, data = given.certificate_authority, given.certificate_authority_data
    authentication.check_one_of(file, data, "certificate-authority", cluster)
    if (file or data) and given.insecure_skip_tls_verify:
        raise cluster.wrong("it has a certificate authority and `insecure-skip-tls-verify`: leave out either")
    if file:
        return Path(cluster.file("certificate-authority", file)).read_bytes()
    return cluster.data("certificate-authority-data", data)


def _authenticate(configuration: Configuration, own: Pair | None, header: Header | None) -> None:
    if own is not None:
        configuration.cert_file, configuration.key_file = _as_file(own.certificate), _as_file(own.key)
    if header is not None:
        configuration.api_key["BearerToken"] = ""  # without it nobody asks the hook
        configuration.refresh_api_key_hook = _asked_each_time(header)


async def _ask_plugin(configuration: Configuration, plugin: ExecPlugin) -> None:
    """A certificate that has expired is answered with 401, and all is read again; a token is asked for before."""
    status = await plugin.status()
    certificate, key = status.client_certificate_data.encode(), status.client_key_data.encode()
    own = Pair(certificate, key) if key else None
    _authenticate(configuration, own, _plugin_header(plugin) if status.token else None)


def _plugin_header(plugin: ExecPlugin) -> Header:
    """What has worked once is no mistake of a user's any more: it is tried again, as while a plugin is updated."""

    async def header() -> str:
        try:
            async with asyncio.timeout(CREDENTIALS_S):
                return f"Bearer {(await plugin.status()).token.strip()}"
        except TimeoutError as error:
            raise TransientError(f"the kubeconfig's plugin gave no token within {CREDENTIALS_S:.0f} s") from error
        except ConfigError as error:
            raise TransientError(str(error)) from error

    return header


def _asked_each_time(header: Header) -> Callable[[Configuration], Awaitable[None]]:
    """What kubernetes_asyncio calls before each request."""

    async def refresh(configuration: Configuration) -> None:
        configuration.api_key["BearerToken"] = await header()

    return refresh


def _as_file(content: bytes | str) -> str:
    """The name of a file with `content`, where that is no name itself; it goes when the program ends.

    OpenSSL reads keys from files only.
    """
    if isinstance(content, str):
        return content
    return str(FileOrData({"data": content}, "file", "data", base64_file_content=False).as_file())


def _kubeconfig_paths(settings: Settings) -> list[str]:
    """The files to read, in kubectl's order. Raises ConfigError if there is none that we can see."""
    given = str(settings.kubeconfig) if settings.kubeconfig else "~/.kube/config"
    if "\n" in given or given.lstrip().startswith("{"):
        raise ConfigError("KUBECONFIG holds a kubeconfig itself, or part of one: expected the name of a file that does")
    paths = [Path(path).expanduser() for path in given.split(os.pathsep) if path]
    with config_errors(f"KUBECONFIG {given!r} cannot be read"):
        found = [str(path) for path in paths if is_file(path)]
    if found:
        return found
    looked_for = ", ".join(str(path) for path in paths)
    if settings.kubeconfig:
        is_there = any(map(os.path.exists, paths))  # a name that is too long has Path.exists() raise
        problem = "that is no regular file" if is_there else "there is no such file"
        raise ConfigError(f"KUBECONFIG is {given!r}: {problem} ({looked_for}); name a kubeconfig file")
    raise ConfigError(
        f"there is no kubeconfig: KUBECONFIG is not set, {looked_for} does not exist, and this is no Pod with a "
        "service account; set KUBECONFIG to a kubeconfig file"
    )


@contextmanager
def config_errors(what: str) -> Iterator[None]:
    """Turns what the loader raises for a file a user wrote (for most it has no error of its own) into ConfigError."""
    try:
        yield
    except (ClusterinfoError, TimeoutError):
        raise
    except PermissionError as error:
        file = error.filename or "a file that it names"  # ssl names none
        raise ConfigError(f"{what}: {file} is not readable by uid {os.geteuid()}; {READABLE}") from error
    except Exception as error:
        raise ConfigError(f"{what}: {one_line(error)}; check KUBECONFIG and KUBE_CONTEXT") from error


def _context(merged: Kubeconfig, settings: Settings) -> Entry:
    """Raises ConfigError, with the contexts that there are."""
    name = settings.kube_context or merged.current
    contexts = merged.sections["contexts"]
    if name and name in contexts:
        return contexts[name]
    known = sorted(filter(None, contexts))
    allowed = f"allowed is one of {', '.join(known)}" if known else "the kubeconfig has no contexts"
    if settings.kube_context:
        raise ConfigError(f"KUBE_CONTEXT is {name!r}: {allowed}")
    found = f"its current-context is {name!r}" if name else "the kubeconfig has no current-context"
    raise ConfigError(f"KUBE_CONTEXT is not set and {found}: {allowed}")
