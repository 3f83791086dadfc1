"""A kubeconfig's user -> how requests say who they are from, by client-go's rules (tools/clientcmd: validation.go,
client_config.go). Members are named in messages, their values are not.

Of several ways: user and password in the server's address, then a token (its file before the token itself), then
`username` and `password`, then an exec plugin, which is not run where there is one of the others or a certificate.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from clusterinfo.errors import ConfigError
from clusterinfo.kubernetes.exec_plugin import check_plugin, is_sendable
from clusterinfo.kubernetes.kubeconfig import AuthProvider, Entry, User

TOKEN_FILE_S = 60.0
"""From one look at a token's file to the next. Source: client-go, transport/token_source.go."""

Header = Callable[[], Awaitable[str]]
"""The value of Authorization as it is now; "" for none."""

_GONE = {
    "gcp": "the exec plugin gke-gcloud-auth-plugin took its place (`gcloud container clusters get-credentials`)",
    "azure": "the exec plugin kubelogin took its place (`kubelogin convert-kubeconfig`)",
}
"""Auth providers that client-go had until 1.26."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A client certificate and its key: PEM, or the files that hold it."""

    certificate: bytes | str
    key: bytes | str


def check_user(user: User, entry: Entry) -> None:
    """Raises ConfigError for what client-go refuses."""
    for member in ("client-certificate", "client-key"):
        name = member.replace("-", "_")
        if user.client_certificate or user.client_certificate_data:
            check_one_of(getattr(user, name), getattr(user, f"{name}_data"), member, entry)
    if (user.client_certificate or user.client_certificate_data) and not (user.client_key or user.client_key_data):
        raise entry.wrong("`client-certificate` has no key: `client-key` or `client-key-data` is missing")
    if user.token and (user.username or user.password):
        raise entry.wrong("it has a token and a user name with password: leave out either")
    if user.exec is not None:
        if user.auth_provider is not None:
            raise entry.wrong("it has `exec` and `auth-provider`: leave out either")
        check_plugin(user.exec, entry)


def check_one_of(file: str, data: str, member: str, entry: Entry) -> None:
    """Raises ConfigError if a member names a file, and what would be in it is given, too."""
    if file and data:
        raise entry.wrong(f"it has `{member}` and `{member}-data`: leave out either")


def client_certificate(user: User, entry: Entry) -> Pair | None:
    """That of the kubeconfig itself. A key without certificate means nothing. Raises ConfigError, PermissionError."""
    if not user.client_certificate and not user.client_certificate_data:
        return None
    return Pair(
        _content("client-certificate", user.client_certificate, user.client_certificate_data, entry),
        _content("client-key", user.client_key, user.client_key_data, entry),
    )


def _content(member: str, file: str, data: str, entry: Entry) -> bytes | str:
    return entry.data(f"{member}-data", data) if data else entry.file(member, file)


def own_header(user: User, entry: Entry) -> Header | None:
    """Of the ways that need no plugin the first there is; None without any. Raises ConfigError, PermissionError."""
    if user.token_file:
        return _TokenFile(user.token, user.token_file, entry).header
    if user.token:
        return fixed(f"Bearer {user.token.strip()}")
    if user.username:
        return fixed(basic(user.username, user.password))
    if user.auth_provider is not None:
        return fixed(f"Bearer {_id_token(user.auth_provider, entry)}")
    return None


def fixed(value: str) -> Header:
    """A header that stays as it is."""

    async def header() -> str:
        return value

    return header


def basic(username: str, password: str) -> str:
    """RFC 7617."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


class _TokenFile:
    """A token's file, looked at again every minute; while it cannot be read or sent, what was known before."""

    def __init__(self, token: str, file: str, entry: Entry) -> None:
        self._known = token.strip()
        self._path = Path(entry.path).parent / file
        self._read_at_s = float("-inf")
        if not self._known:
            entry.file("tokenFile", file)
        self._look()
        if not self._known:
            raise entry.wrong("the file that `tokenFile` names holds no token, and there is no other")

    async def header(self) -> str:
        if time.monotonic() - self._read_at_s >= TOKEN_FILE_S:
            self._look()
        return f"Bearer {self._known}"

    def _look(self) -> None:
        self._read_at_s = time.monotonic()
        try:
            found = self._path.read_text("utf-8").strip()
            if not self._known or (found and is_sendable(found)):
                self._known = found
        except (OSError, UnicodeDecodeError):
            if not self._known:
                raise


def _id_token(provider: AuthProvider, entry: Entry) -> str:
    """Of the one auth provider that client-go still has. Getting a new token is left to kubectl, which stores it."""
    if provider.name != "oidc":
        gone = _GONE.get(provider.name, "use an exec plugin instead")
        raise entry.wrong(f"its auth-provider is none that kubectl has or still has: {gone}")
    token = provider.config.get("id-token", "").strip()
    if not token or _has_expired(token, entry):
        raise entry.wrong(
            "the id-token of its auth-provider has expired, or there is none: any kubectl command renews it; "
            "for good use the exec plugin kubelogin"
        )
    return token


def _has_expired(token: str, entry: Entry) -> bool:
    try:
        _, claims, _ = token.split(".")
        expires = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))).get("exp")
        return expires is not None and float(expires) <= time.time()
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise _no_jwt(entry) from None


def _no_jwt(entry: Entry) -> ConfigError:
    return entry.wrong("the id-token of its auth-provider is no JWT")
