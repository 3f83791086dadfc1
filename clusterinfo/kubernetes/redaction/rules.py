"""All rules in one table, and what they do not reach: SECURITY.md repeats both, and a test compares. Pure.

The words in it are those that the code uses; the version of the whole is `normalize.NORMALIZATION`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from clusterinfo.kubernetes.redaction.names import ALONE, KEY_KINDS, NUMBERS, STRONG, WEAK
from clusterinfo.kubernetes.redaction.places import COPY_MARKS, REQUESTS, UNJUDGED_BELOW, VALUE_MEMBERS
from clusterinfo.kubernetes.redaction.values import SHAPES


class Rule(NamedTuple):
    """What is secret, where it is looked for, and what becomes of it."""

    what: str
    where: str
    becomes: str


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))


VALUE = "a fingerprint"
VALUES = "keys stay, each value is a fingerprint"
SAME = "the same"

RULES = (
    Rule("`data` and `stringData` of Secrets", "Secrets, also within other objects; items of a SecretList", VALUES),
    Rule(
        "a document of kind Secret with values",
        "any text: YAML, JSON, base64, gzip in base64 (1 MiB of it, 4 MiB unpacked)",
        "a fingerprint of the document, or of all that is packed",
    ),
    Rule(
        f"names that hold {_listed(STRONG)}",
        "members, annotations and labels (behind the last `/`), environment variables; "
        f"`name` or `key` beside {_listed(VALUE_MEMBERS)}",
        f"{VALUE}; so are all texts in an object under such a name, but what says what or where it is (`name`, `path`)",
    ),
    Rule(f"names whose last word is {_listed(WEAK)}, or ends in `pass`; {_listed(ALONE)}", SAME, VALUE),
    Rule(f"`...Key` with {_listed(KEY_KINDS)}; `..._KEY` and `..._AUTH` of environment variables", SAME, VALUE),
    Rule(
        f"numbers under a name that ends in {_listed(NUMBERS)}",
        SAME,
        f"{VALUE}; other numbers, and booleans, are never secret",
    ),
    Rule(
        "`name=value`, `--name value` (the next argument, too), `name: value`, SQL's `password '...'`, query "
        "parameters, where the name is one of those",
        "any text but that in ConfigMaps' data",
        "a fingerprint of the value",
    ),
    Rule("user and password, or token, in URLs", "any text", "a fingerprint of the password"),
    *(Rule(what, "any text", VALUE) for what in dict.fromkeys(shape.what for shape in SHAPES)),
    Rule("`request`", _listed(REQUESTS), VALUE),
    Rule("`data` and `binaryData` of ConfigMaps", "with `REDACT_CONFIGMAPS=true`", VALUES),
    Rule(f"`managedFields`; annotations named with {_listed(COPY_MARKS)}", "at any depth", "removed"),
    Rule(
        "what `REDACT` names",
        "`resource.group:/json/pointer`, `*` for any one name or position",
        "fingerprints of all texts and numbers there and below",
    ),
    Rule("what `REDACT_NOT` names", "likewise; never values of Secrets", "stays as it is"),
)

EXCEPTIONS = (
    "names whose last word says what they are about: `secretName`, `TOKEN_FILE`, `passwordPolicy`; `max_tokens` and "
    "what else counts",
    "placeholders (`$(X)`, `${X}`, `{{x}}`), switches (`true`, `enabled`), paths and addresses, durations, numbers of "
    "up to five digits and in arrays, what reads like the name of a Secret under `secret` or `existingSecret`, or of "
    "one of its keys under `secretKey`, a word of letters alone behind `Bearer`",
    f"CustomResourceDefinitions, and whatever lies below {_listed(UNJUDGED_BELOW)}",
    "a user's name without a password in a URL",
)
"""What stays though a rule above seems to speak of it."""

LIMITS = {
    "unsuspicious names": "a secret in a field called `colour`, or in one that only its own program knows for secret",
    "prose": "a secret in the middle of a sentence",
    "bare words": "an argument by itself, what a script pipes into another program",
    "short flags": "`-p` and `-u`, which mean something else for each program",
    "ConfigMap data": "names and `name=value` in the data of ConfigMaps, unless `REDACT_CONFIGMAPS=true`",
    "other spellings": "in texts: Go's `map[password:x]`, XML elements, `//user:password@host` without a scheme, "
    "Oracle's `user/password@`, `auth` of a Docker configuration",
    "base64 of something else": "base64 that is neither a manifest of a Secret nor a private key",
}
"""Why a secret stays that nobody could tell from other texts. Name what is yours in `REDACT`."""


def table() -> list[str]:
    """The lines of SECURITY.md between its markers."""
    rows = [f"| {rule.what} | {rule.where} | {rule.becomes} |" for rule in RULES]
    stays = [f"- {exception}" for exception in EXCEPTIONS]
    limits = [f"- {limit}: {meaning}" for limit, meaning in LIMITS.items()]
    head = ["| what | where | becomes |", "|---|---|---|"]
    return [*head, *rows, "", "No secrets, and left as they are:", "", *stays, "", "Not found:", "", *limits]
