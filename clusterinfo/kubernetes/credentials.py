"""Credentials for a Kubernetes API: of the Pod's service account, or of a kubeconfig; and how they stay fresh.

kubernetes_asyncio finds them; it is imported only when they are needed: it takes 37 MB.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clusterinfo.errors import ClusterinfoError, ConfigError, TransientError, one_line, without_userinfo
from clusterinfo.kubernetes.impersonation import Headers, impersonation_headers
from clusterinfo.kubernetes.kubeconfig import Kubeconfig, read_kubeconfig
from clusterinfo.settings import Settings

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

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


async def load_credentials(settings: Settings) -> Credentials:
    """In-cluster credentials, or those of a kubeconfig where one is named or there are no others.

    Raises ConfigError (exit 2) that names the variable to set, TransientError if an exec plugin does not answer.
    """
    if settings.kubeconfig is None and settings.kube_context is None and _in_cluster():
        found = _load_in_cluster()
    else:
        try:
            async with asyncio.timeout(CREDENTIALS_S):
                found = await _load_kubeconfig(settings)
        except TimeoutError as error:
            raise TransientError(f"the kubeconfig's plugin gave no credentials within {CREDENTIALS_S:.0f} s") from error
    with config_errors("the address of the API cannot be used"):
        host = urlsplit(str(found.configuration.host)).hostname or ""
    _obey_ranges(host)
    return found


def _obey_ranges(host: str) -> None:
    """Where NO_PROXY has a range with the API's address in it, let it have that address too: Python knows no ranges.

    Go does, so that clusters set `10.0.0.0/8` for all that runs in them.
    """
    with suppress(ValueError):  # a name: ranges do not concern it, in Go neither
        address = ip_address(host)
        for variable in {"no_proxy", "NO_PROXY"} & os.environ.keys():
            entries = [entry.strip() for entry in os.environ[variable].split(",")]
            if host not in entries and any(_is_within(address, entry) for entry in entries):
                os.environ[variable] += f",{host}"


def _is_within(address: IPv4Address | IPv6Address, entry: str) -> bool:
    try:
        return "/" in entry and address in ip_network(entry, strict=False)
    except ValueError:
        return False


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

    paths = _kubeconfig_paths(settings)
    with config_errors(f"KUBECONFIG {os.pathsep.join(paths)!r} cannot be read"):
        merged = read_kubeconfig(paths)
    context = settings.kube_context or merged.current
    _check_context(merged, context, settings)
    configuration = _new_configuration()
    with config_errors(f"context {context!r} of the kubeconfig cannot be used"):
        loader = KubeConfigLoader(config_dict=merged.as_node(), active_context=context, config_base_path=None)
        chosen: Any = loader.current_context
        headers = _check_user(*merged.user_of(chosen["context"]))
        await loader.load_and_set(configuration)
        _check_proxy(configuration.proxy)
        _strip_token(configuration)
    if getattr(loader, "exec_plugin_expiry", None) is not None:
        configuration.refresh_api_key_hook = _exec_refresh(loader)
    return Credentials(configuration, str(chosen["context"]["cluster"]), headers)


def _check_user(name: str, user: Mapping[str, Any], path: str) -> Headers:
    """What the loader ignores, or quotes in its errors: a key or token that stands where a file's name is expected."""
    for member in ("tokenFile", "client-certificate", "client-key"):
        data = "token" if member == "tokenFile" else f"{member}-data"
        if data not in user and member in user and not _is_file(Path(path).parent / str(user[member])):
            raise ConfigError(f"user {name!r} of the kubeconfig: `{member}` names no file, as seen from {path}")
    return impersonation_headers(user, name)


def _check_proxy(url: str | None) -> None:
    """aiohttp would take any other proxy for one of HTTP."""
    if url and not str(url).startswith(("http://", "https://")):
        text = str(url)
        shown = without_userinfo(text) if "//" in text else without_userinfo(f"//{text}").removeprefix("//")
        raise ConfigError(f"the kubeconfig's proxy-url is {shown!r}: allowed is http:// or https://")


def _kubeconfig_paths(settings: Settings) -> list[str]:
    """The files to read, in kubectl's order. Raises ConfigError if there is none that we can see."""
    given = str(settings.kubeconfig) if settings.kubeconfig else "~/.kube/config"
    if "\n" in given or given.lstrip().startswith("{"):
        raise ConfigError("KUBECONFIG holds a kubeconfig itself, or part of one: expected the name of a file that does")
    paths = [Path(path).expanduser() for path in given.split(os.pathsep) if path]
    with config_errors(f"KUBECONFIG {given!r} cannot be read"):
        found = [str(path) for path in paths if _is_file(path)]
    if found:
        return found
    looked_for = ", ".join(str(path) for path in paths)
    if settings.kubeconfig:
        raise ConfigError(f"KUBECONFIG is {given!r}: there is no such file ({looked_for}); name a kubeconfig file")
    raise ConfigError(
        f"there is no kubeconfig: KUBECONFIG is not set, {looked_for} does not exist, and this is no Pod with a "
        "service account; set KUBECONFIG to a kubeconfig file"
    )


def _is_file(path: Path) -> bool:
    """False if there is none. Raises PermissionError where we may not look; Path.is_file() of 3.14 hides that."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        raise
    except (OSError, ValueError):  # it does not exist, or its name is too long
        return False


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


def _check_context(merged: Kubeconfig, context: str | None, settings: Settings) -> None:
    known = sorted(str(entry["name"]) for entry in merged.sections["contexts"])
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
                raise TransientError(f"the kubeconfig's plugin gave no token: {one_line(error)}") from error
            configuration.api_key["BearerToken"] = loader.token.strip()

    return refresh
