"""A kubeconfig user's `as`, `as-uid`, `as-groups`, `as-user-extra` -> the headers that say so. Pure.

The rules are client-go's: transport/round_trippers.go, and clientcmd/validation.go for what it refuses. Messages name
members, never their values: they stand beside the credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clusterinfo.errors import ConfigError

Headers = list[tuple[str, str]]
"""In order; a name may be repeated."""

# RFC 9110, 5.6.2, without the percent sign, which begins an escape.
_TOKEN = frozenset(b"!#$&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def impersonation_headers(user: Mapping[str, Any], name: str) -> Headers:
    """`user` is what the kubeconfig has of the user called `name`; absent and null mean nothing.

    Raises ConfigError for what has another form, or asks for groups, a uid or extras without a user to be.
    """
    person, uid = _text(user, "as", name), _text(user, "as-uid", name)
    groups, extra = _texts(user.get("as-groups"), "as-groups", name), _extra(user, name)
    if person:
        uids = [("Impersonate-Uid", uid)] if uid else []
        return [("Impersonate-User", person), *uids, *(("Impersonate-Group", group) for group in groups), *extra]
    if uid or groups or extra:
        raise ConfigError(
            f"user {name!r} of the kubeconfig: requesting uid, groups or user-extra without impersonating a user; set "
            "`as`, or leave out `as-uid`, `as-groups` and `as-user-extra`"
        )
    return []


def _extra(user: Mapping[str, Any], name: str) -> Headers:
    given = user.get("as-user-extra") or {}
    if not isinstance(given, dict) or not all(isinstance(key, str) and key for key in given):
        raise _wrong("as-user-extra", name, "a map from text to lists of text")
    return [
        (f"Impersonate-Extra-{_escaped(key)}", value)
        for key, values in given.items()
        for value in _texts(values, "as-user-extra", name)
    ]


def _escaped(key: str) -> str:
    """The server reads it in lower case and undoes the escapes after that."""
    return "".join(chr(byte) if byte in _TOKEN else f"%{byte:02X}" for byte in key.encode()).lower()


def _text(user: Mapping[str, Any], member: str, name: str) -> str:
    value = user.get(member)
    if value is not None and not _fits_a_header(value):
        raise _wrong(member, name, "text without control characters")
    return value or ""


def _texts(value: Any, member: str, name: str) -> list[str]:
    if value is not None and not (isinstance(value, list) and all(_fits_a_header(one) for one in value)):
        raise _wrong(member, name, "a list of texts without control characters")
    return value or []


def _fits_a_header(value: Any) -> bool:
    return isinstance(value, str) and all(char.isprintable() or char == "\t" for char in value)


def _wrong(member: str, name: str, expected: str) -> ConfigError:
    return ConfigError(f"user {name!r} of the kubeconfig: `{member}` has another form than expected: {expected}")
