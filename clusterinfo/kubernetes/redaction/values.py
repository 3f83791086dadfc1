"""Which values are secret by their shape, wherever they stand, and which are none whatever they are called.

Pure; every pattern takes time linear in the text.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import NamedTuple

from clusterinfo.kubernetes.redaction.names import Verdict

Conceal = Callable[[str], str]
"""A secret text -> what stands for it."""


class Shape(NamedTuple):
    """A kind of secret: `needles`, one of which is in every text that holds it, and where in the text it stands.

    The pattern's group `secret` is replaced, all of it where there is no such group.
    """

    what: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]


SHAPES = (
    Shape(
        "a JSON Web Token", ("eyJ",), re.compile(r"eyJ[\w-]{8,}+(?>(?:\.[\w-]{8,}+(?>(?:\.[\w-]*+){1,3}))?)", re.ASCII)
    ),
    Shape("an AWS access key id", ("AKIA", "ASIA"), re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)")),
    Shape(
        "a GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]|github_pat)_\w{16,}+", re.ASCII),
    ),
    Shape("a GitLab token", ("glpat-",), re.compile(r"(?<![A-Za-z0-9])glpat-[\w.-]{16,}+", re.ASCII)),
    Shape("a Slack token", ("xox",), re.compile(r"(?<![A-Za-z0-9])xox[a-z]-[\w-]{10,}+", re.ASCII)),
    Shape("a Stripe key", ("k_live_",), re.compile(r"(?<![A-Za-z0-9])[sr]k_live_\w{10,}+", re.ASCII)),
    Shape(
        "a private key in PEM",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"[\s\S]*?(?=-----END|\Z)(?:-----END [A-Z0-9 ]{1,60}-----)?"
        ),
    ),
    Shape(
        "the address of a chat's webhook",
        ("hooks.slack.com/", "webhook.office.com/", "logic.azure.com"),
        re.compile(
            r"https:(?:\\*/){2}(?:[\w.-]{1,200}\.)?"
            r"(?:hooks\.slack(?:-gov)?\.com|webhook\.office\.com|logic\.azure\.com(?::\d+)?)/"
            r"""(?P<secret>[^\s"'\\<>(),;]{8,}+)"""
        ),
    ),
    Shape(
        "the address of a chat's webhook",
        ("/api/webhooks/",),
        re.compile(
            r"https:(?:\\*/){2}(?:[\w-]{1,60}\.)?discord(?:app)?\.com/api/webhooks/(?P<secret>\d{5,}+/[\w-]{8,}+)"
        ),
    ),
    Shape(
        "a Telegram bot's token",
        ("telegram.org/bot",),
        re.compile(r"https:(?:\\*/){2}(?:api\.)?telegram\.org/bot(?P<secret>\d+:[\w-]{8,}+)"),
    ),
    Shape(
        "Basic credentials",
        ("asic ", "ASIC "),
        re.compile(r"(?<![A-Za-z0-9])(?i:basic)[ ]+(?P<secret>[A-Za-z0-9+/_-]{8,}+={0,2})"),
    ),
    Shape(
        "a Bearer token",
        ("earer ", "EARER "),
        re.compile(r"(?<![A-Za-z0-9])(?i:bearer)[ ]+(?P<secret>[A-Za-z0-9._~+/-]{8,}+=*)(?![=\w])"),
    ),
    Shape(
        "a private key in PEM, in base64",
        ("LS0tLS1CRUdJTi",),
        re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{8,}+={0,2}"),
    ),
)


def replace_shapes(text: str, conceal: Conceal) -> str:
    """`text` with what `conceal` returns in place of every secret of a known shape."""
    for shape in SHAPES:
        for needle in shape.needles:
            if needle in text:
                text = shape.pattern.sub(lambda found: _replace(found, conceal), text)
                break
    return text


def _replace(found: re.Match[str], conceal: Conceal) -> str:
    group = "secret" if "secret" in found.re.groupindex else 0
    secret = found[group]
    if not _is_sure(found[0], secret):
        return found[0]
    start, end = (edge - found.start() for edge in found.span(group))
    return found[0][:start] + conceal(secret) + found[0][end:]


def _is_sure(found: str, secret: str) -> bool:
    if found.startswith("eyJ"):
        return "." in found  # the rest of what is none is matched, too, lest each `eyJ` in it be tried
    scheme = found[:6].lower()
    if scheme.startswith("basic"):
        return _is_pair(secret)
    if scheme == "bearer":
        return not _WORD.fullmatch(secret)
    return not secret.startswith("LS0tLS1CRUdJTi") or "PRIVATE KEY" in _decoded(secret[:80])


_WORD = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[/._-](?:[A-Z]?[a-z]+|[A-Z]+))*\.?")
"""What prose says behind Bearer: `Bearer authentication`, `Bearer token/header`."""


def _is_pair(secret: str) -> bool:
    """True for what may be a user and a password in base64, or is no word of prose (`Basic Authentication`)."""
    return ":" in _decoded(secret) or not _WORD.fullmatch(secret)


def _decoded(secret: str) -> str:
    try:
        return base64.b64decode(secret[: len(secret) // 4 * 4]).decode("latin-1")
    except binascii.Error:
        return ""


# --- no secrets whatever they are called -----------------------------------------------------------------------------

_PLACEHOLDER = re.compile(
    r"(?:\$\([\w.-]+\)|\$\{[\w.-]+\}|\$[A-Z_][A-Z0-9_]*|\{\{[^{}]*\}\}|%[A-Z_]+%|<[\w -]{1,40}>|\*{3,}|[xX]{3,})++"
)
"""Never read in two ways: `xxxxxx` may be one placeholder or two, and each `x` more would take half as long again."""
_PLAIN = re.compile(
    r"(?i:true|false|yes|no|on|off|enabled|disabled|none|null|nil|required|optional|auto|always|never|default|\d{1,5}"
    r"|\d+(?:\.\d+)?(?:ms|s|m|h|d|w)|arn:aws[\w-]*:[^\s]+)"
)
_PATH = re.compile(
    r"(?:file://)?~?(?:/[\w.@{}$()+-]+)+/?|[A-Za-z]:\\[\w.\\ -]+"
    r"|(?:[\w-]+/)*[\w-]+\.(?:pem|key|crt|json|ya?ml|conf|txt|kubeconfig)"
)
_ADDRESS = re.compile(r"https?://\S+")
_METHOD = re.compile(
    r"(?i:basic|digest|bearer|oauth2?|oidc|saml2?|ldaps?|plain|scram[\w-]*|kerberos|gssapi|jwt|token|password|peer|trust"
    r"|md5|internal|local|header|database|db|github|google|keycloak|mtls|tls|iam|aws|gcp|azure|anonymous|noauth|session"
    r"|cookie)"
)
_SECRET_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]+(?:[-./_]+[a-z0-9]+)*")
_SEGMENT = r"(?:[A-Z]{1,16}|[A-Z]?[a-z]+(?:[A-Z][a-z]+)*|\d{1,3})"
_TELLING_NAME = re.compile(
    r"(?=(?:.*[-.])?(?:secrets?|creds?|credentials?|token|tls|certs?|auth|keys?|password|pull|registry|config|users?|admin)"
    r"(?:[-.]|\Z))(?:[a-z]+|\d{1,3})(?:[-.](?:[a-z]+|\d{1,3}))+"
)
"""The name of a Secret that says so: `gh-secret`, `app.tls`."""
_KEY_NAME = re.compile(rf"\.?{_SEGMENT}(?:[._-]+{_SEGMENT})*")
_PLAIN_PATH = re.compile(r"(?:/[a-z0-9_.@-]+){2,}|(?:>>)?vault:.+|ref\+\w+://.+|op://.+")


def is_harmless(value: str, verdict: Verdict, name: str = "") -> bool:
    """True if `value` is no secret though its name says so: a placeholder, a switch, a path, the name of a Secret."""
    if not value or value.startswith(("$(", "`")) or _PLACEHOLDER.fullmatch(value):
        return True
    if _PLAIN.fullmatch(value) and not (verdict.takes_numbers and value.isdecimal()):
        return True
    if verdict.refers:
        pattern = _KEY_NAME if name.lower().endswith(("key", "keys")) else _SECRET_NAME
        return bool(pattern.fullmatch(value))
    if value.lower() == name.lower() and not verdict.is_environment:
        return True
    return _is_elsewhere(value, verdict)


def _is_elsewhere(value: str, verdict: Verdict) -> bool:
    """True for what tells where a secret is: the name of a Secret, a path, an address."""
    if verdict.may_refer and _TELLING_NAME.fullmatch(value):
        return True
    if verdict.takes_numbers or verdict.is_strong:
        return bool(_PLAIN_PATH.fullmatch(value)) and not verdict.takes_numbers
    return bool(_PATH.fullmatch(value) or _ADDRESS.fullmatch(value) or _METHOD.fullmatch(value))
