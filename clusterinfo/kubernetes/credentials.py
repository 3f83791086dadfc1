"""Credentials for a Kubernetes API: of the Pod's service account, or of a kubeconfig; and how they stay fresh.

kubernetes_asyncio finds them; it is imported only when they are needed: it takes 37 MB.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clusterinfo.errors import ClusterinfoError, ConfigError, TransientError, without_userinfo
from clusterinfo.kubernetes.api_errors import quotable
from clusterinfo.settings import Settings

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

CREDENTIALS_S = 30.0
"""For a kubeconfig's exec plugin to print a token."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


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
        found = _load_in_cluster()
    else:
        try:
            async with asyncio.timeout(CREDENTIALS_S):
                found = await _load_kubeconfig(settings)
        except TimeoutError as error:
            raise TransientError(f"the kubeconfig's plugin gave no credentials within {CREDENTIALS_S:.0f} s") from error
    _obey_ranges(urlsplit(str(found.configuration.host)).hostname or "")
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

    merged, current = _read_kubeconfig(_kubeconfig_paths(settings))
    context = settings.kube_context or current
    _check_context(merged, context, settings)
    configuration = _new_configuration()
    with explained(f"context {context!r} of the kubeconfig cannot be used"):
        loader = KubeConfigLoader(config_dict=merged, active_context=context, config_base_path=None)
        await loader.load_and_set(configuration)
    _check_proxy(configuration.proxy)
    _strip_token(configuration)
    if getattr(loader, "exec_plugin_expiry", None) is not None:
        configuration.refresh_api_key_hook = _exec_refresh(loader)
    chosen: Any = loader.current_context
    return Credentials(configuration, str(chosen["context"]["cluster"]))


def _check_proxy(url: str | None) -> None:
    """aiohttp would take any other proxy for one of HTTP."""
    if url and not url.startswith(("http://", "https://")):
        shown = without_userinfo(url) if "//" in url else without_userinfo(f"//{url}").removeprefix("//")
        raise ConfigError(f"the kubeconfig's proxy-url is {shown!r}: allowed is http:// or https://")


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
def explained(what: str) -> Iterator[None]:
    """Turns what the loader raises for a file a user wrote (for most it has no error of its own) into ConfigError."""
    try:
        yield
    except (ClusterinfoError, TimeoutError):
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {quotable(error)}; check KUBECONFIG and KUBE_CONTEXT") from error


def _read_kubeconfig(paths: str) -> tuple[Any, str | None]:
    """The merged kubeconfig and its current context: of several files the first that sets it, as kubectl has it."""
    import yaml
    from kubernetes_asyncio.config.kube_config import KubeConfigMerger

    with explained(f"KUBECONFIG {paths!r} cannot be read"):
        files = paths.split(os.pathsep)
        filled = [path for path in files if isinstance(yaml.safe_load(Path(path).read_text("utf-8")), dict)]
        if not filled:
            raise ConfigError(f"KUBECONFIG {paths!r} holds no kubeconfig: expected clusters, users, contexts")
        merger = KubeConfigMerger(os.pathsep.join(filled))
    contexts = (loaded.get("current-context") for loaded in merger.config_files.values())
    return merger.config, next((context for context in contexts if context), None)


def _check_context(merged: Any, context: str | None, settings: Settings) -> None:
    with explained("the kubeconfig's contexts cannot be read"):
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
                raise TransientError(f"the kubeconfig's plugin gave no token: {quotable(error)}") from error
            configuration.api_key["BearerToken"] = loader.token.strip()

    return refresh
