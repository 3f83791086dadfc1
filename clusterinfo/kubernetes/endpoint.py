"""Where the API is, and which proxy is before it, as client-go reads them (rest/url_utils.go, httpproxy).

Neither address is ever quoted: both may hold a password, in spellings that no rule for URLs would find it in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import yarl

from clusterinfo.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PERCENT = "characters of a user or password that mean something in a URL have to be percent-encoded"


@dataclass(frozen=True, slots=True)
class Address:
    """`url`: scheme, host, port and path of the API, and nothing else; `login`: user and password before the host."""

    url: str
    host: str
    login: tuple[str, str] | None = None
    is_bare: bool = False
    """No scheme was given."""


def api_address(server: str, wrong: Callable[[str], ConfigError]) -> Address:
    """A kubeconfig's `server`. Without a scheme it is HTTP, to client-go and so to us. Raises what `wrong` makes."""
    if not server:
        raise wrong("it has no `server`")
    is_bare = not _SCHEME.match(server)
    split = _split(f"http://{server}" if is_bare else server)
    if split is None or split.scheme not in ("http", "https"):
        raise wrong(f"`server` is no address: expected https://host:port, or http://; {_PERCENT}")
    if is_bare and split.path not in ("", "/"):
        raise wrong("`server` has a path, but no scheme: expected https:// or http:// before it")
    login = (unquote(split.username or ""), unquote(split.password or "")) if "@" in split.netloc else None
    place = split.netloc.rpartition("@")[2]
    return Address(f"{split.scheme}://{place}{split.path.rstrip('/')}", split.hostname or "", login, is_bare)


def proxy_of_kubeconfig(url: str, wrong: Callable[[str], ConfigError]) -> str | None:
    """A kubeconfig's `proxy-url`; None for an empty one. Raises what `wrong` makes."""
    if not url:
        return None
    split = _split(url)
    if split is None:
        raise wrong(f"`proxy-url` is no URL: expected http://host:port or https://host:port; {_PERCENT}")
    if split.scheme not in ("http", "https"):
        raise wrong("`proxy-url` is of another scheme than http:// and https://, the ones allowed")
    return url


def proxy_of_environment(address: Address) -> str | None:
    """What HTTPS_PROXY (for an API without TLS HTTP_PROXY) and NO_PROXY say; None: no proxy. Raises ConfigError."""
    scheme = address.url.partition(":")[0]
    url = getproxies().get(scheme)
    if not url or _is_left_out(address.host):
        return None
    url = url if _SCHEME.match(url) else f"http://{url}"
    split = _split(url)
    if split is None or split.scheme not in ("http", "https"):
        raise ConfigError(
            f"{scheme.upper()}_PROXY names no proxy: expected http://host:port or https://host:port; {_PERCENT}"
        )
    return url


def _split(url: str) -> SplitResult | None:
    """None for what is no absolute URL, to any of those who are to use it."""
    with suppress(ValueError):
        split = urlsplit(url)
        yarl.URL(url)
        if split.hostname and (split.port is None or split.port) and not re.search(r"[\s\x00-\x1f\x7f]", url):
            return split
    return None


def _is_left_out(host: str) -> bool:
    """As Python reads NO_PROXY, and Go's ranges of addresses besides: clusters set `10.0.0.0/8` for all in them."""
    if proxy_bypass(host):
        return True
    with suppress(ValueError):  # a name: ranges do not concern it, in Go neither
        address = ip_address(host)
        entries = (entry for variable in ("no_proxy", "NO_PROXY") for entry in os.environ.get(variable, "").split(","))
        return any(_is_within(address, entry.strip()) for entry in entries)
    return False


def _is_within(address: IPv4Address | IPv6Address, entry: str) -> bool:
    try:
        return "/" in entry and address in ip_network(entry, strict=False)
    except ValueError:
        return False
