"""Users and passwords in URLs, wherever the URLs stand in a text: found, and replaced. Pure; time linear in the text.

RFC 3986 (3.2.1) places them between `//` and `@` and wants `/ ? # @` in them percent-encoded. People write passwords as
they are, so this rule is wider: what hides one character too many is a nuisance, what hides one too few is a leak.

- A URL ends at white space, at a double quote and, in JSON text, at an escape that stands for one of them. `\\/` is
  `/`, however often the JSON is nested.
- `user:password` reaches to the last `@`. Digits and then `/ ? #` are a port and its path, unless too long for a port.
- What looks like a line's end in nested JSON (`\\\\n`), or like another URL, ends a URL too, but no password.
- A user without a password is a token (`https://ghp_...@github.com`), except where a scheme knows users
  (`ssh://git@host`), and if it can be nothing but a name (`https://jane.doe@host`: small letters).
- Placeholders, `$(X)`, `${X}` and `{{x}}`, are no secrets, and `@sha256:` begins a digest, no host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple

Conceal = Callable[[str | None, str], str]
"""(user, password), or (None, token or everything that may be one) -> what stands for it, the `@` included."""


class Notation(NamedTuple):
    """How a URL begins, what may or may not end it, and what ends it; none of them may look at a character twice."""

    begins: re.Pattern[str]
    boundary: re.Pattern[str]
    ends: re.Pattern[str]


_LINE_END = r"(?<!\\)\\+[nrt]"
_IN_JSON = r":(?:\\*/){2}"
_IN_TEXT = r"(?::|(?<![:\\]))(?:\\*/){2}"  # messages quote URLs without their scheme too

JSON = Notation(
    re.compile(_IN_JSON),
    re.compile(f"{_IN_JSON}|{_LINE_END}"),
    re.compile(r'[\s"]|(?<!\\)(?:\\\\)*\\(?:[bfnrt]|u(?:00(?:[01][0-9a-fA-F]|2[02]|85|[aA]0)|202[89]))'),
)
"""The text of a JSON document, which may hold JSON in its strings."""

TEXT = Notation(re.compile(_IN_TEXT), re.compile(f"{_IN_TEXT}|{_LINE_END}"), re.compile(r'[\s"]'))
"""A message for people: escapes in it are no ends, they may belong to a password."""

_PORT = r"\d{1,5}(?:\\*[/?#]|$)"
_IP_V6 = r"\[[\da-fA-F]*:[\da-fA-F:.]*(?:%[\w.~%-]*)?\]"
_PASSWORD_BEGAN = re.compile(rf"[^:/?#@]*:(?!{_PORT})(?!.*[,;|][A-Za-z][\w+.-]*$)")  # no `a:x,http` before a `://`
_USER_BEGAN = re.compile(rf"[^:/?#@]*(?:$|:(?!{_PORT}))")
_USER_AND_PASSWORD = re.compile(rf"(?!{_IP_V6})([^:/?#]*):(?!\d{{1,5}}\\*[/?#])(.*)")
_DIGEST = re.compile(r"sha(?:256|384|512):")
_SURE_DIGEST = re.compile(rb"sha(?:256|384|512):[0-9a-f]")  # `sha256://` may be a host and another URL
_TOKEN_PART = r"""[^:/?#@\s"\\,;|'()<>]"""  # noqa: S105 - not what separates a URL from an e-mail address
_TOKEN = re.compile(rf"({_TOKEN_PART}+(?:\\+u0026{_TOKEN_PART}*)*)@(?!{_DIGEST.pattern})")
_PLACEHOLDERS = re.compile(r"(?:\$\([\w.-]+\)|\$\{[\w.-]+\}|\{\{[\w.$-]+\}\})+")
_USER = re.compile(r"[a-z]+(?:[._-][a-z]+)*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*$")
_SCHEME_MAX = 32

_KNOW_USERS = {
    *("ssh", "sftp", "scp", "rsync", "ftp", "ftps", "ldap", "ldaps", "smtp", "smtps", "imap", "imaps", "amqp", "amqps"),
    *("postgres", "postgresql", "mysql", "mariadb", "mongodb", "sqlserver", "mssql", "oracle"),
}
"""Schemes, or parts of them between `+`, in which a user without a password is the name of a user."""


def may_hold_userinfo(json: bytes) -> bool:
    """False if no URL in the text of a JSON document has userinfo: found in its bytes, without decoding them.

    Every running pod has `containerd://`, and in its image's digest an `@` that begins no host.
    """
    return holds_at(json) and (b"://" in json or b"\\/" in json)


def holds_at(json: bytes) -> bool:
    """True if there is an `@` that begins no digest."""
    return next(ats(json), -1) >= 0


def ats(json: bytes) -> Iterator[int]:
    """Where there is an `@` that begins no digest."""
    at = json.find(b"@")  # one byte is found ten times as fast as three
    while at >= 0:
        if not _SURE_DIGEST.match(json, at + 1):
            yield at
        at = json.find(b"@", at + 1)


def replace_userinfo(text: str, notation: Notation, conceal: Conceal) -> str:
    """`text` with what `conceal` returns in place of the userinfo of every URL in it that holds a secret."""
    if "@" not in text:
        return text
    parts, done = [], 0
    for start, stop in _authorities(text, notation):
        scheme = _SCHEME.search(text[max(0, start - _SCHEME_MAX) : start].rstrip("\\/:"))
        if found := _secret(text[start:stop], scheme[0].lower() if scheme else ""):
            user, secret, length = found
            parts += [text[done:start], conceal(user, secret)]
            done = start + length
    return "".join([*parts, text[done:]])


def _authorities(text: str, notation: Notation) -> Iterator[tuple[int, int]]:
    """(start, stop) of what follows the `//` of each URL that has an `@`."""
    position = 0
    while url := notation.begins.search(text, position):
        end = notation.ends.search(text, url.end())
        position = end.start() if end else len(text)
        if text.find("@", url.end(), position) >= 0:
            yield from _within(text, url.start(), position, notation.boundary)


def _within(text: str, start: int, stop: int, boundary: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """The same for one run of characters, from its first `//` on: a boundary counts unless a password holds it."""
    began: int | None = None
    spans = (found.span() for found in boundary.finditer(text, start, stop))
    for (_, left), (right, after) in pairwise(chain(spans, [(stop, stop)])):
        if began is None and text[left - 1] != "/":
            continue
        is_first = began is None
        began = left if began is None else began
        if text.find("@", left, right) >= 0:
            yield began, right
            began = None
        elif is_first:
            pattern = _PASSWORD_BEGAN if text[after - 1 : after] == "/" else _USER_BEGAN
            began = began if pattern.match(text[left:right]) else None


def _secret(url: str, scheme: str) -> tuple[str | None, str, int] | None:
    """What begins after `//` -> (user or None, what is secret, length up to and with the `@`); None: nothing is."""
    knows_users = not _KNOW_USERS.isdisjoint(scheme.split("+"))
    at = _last_at(url)
    if at >= 0 and (pair := _USER_AND_PASSWORD.fullmatch(url, 0, at)):
        user, password = pair.groups()
        if user.startswith("git@") or ("@" in user and "ssh" in scheme):
            return None  # ssh's `git@host:path`, and an `@` in that path
        if _PLACEHOLDERS.fullmatch(password):
            return None
        if not knows_users and ("@" in user or password in ("", "x-oauth-basic")):
            return None, pair[0], at + 1  # the user may be a token
        return user, password, at + 1
    token = _TOKEN.match(url)
    if token is None or knows_users or _USER.fullmatch(token[1]) or _PLACEHOLDERS.fullmatch(token[1]):
        return None
    return None, token[1], token.end()


def _last_at(url: str) -> int:
    """The index of the last `@` that a host may follow; -1 without one."""
    at = url.rfind("@")
    while at >= 0 and _DIGEST.match(url, at + 1):
        at = url.rfind("@", 0, at)
    return at
