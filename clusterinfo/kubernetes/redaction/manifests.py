"""Secrets that others carry: a manifest of kind Secret within a text, plain or in base64, compressed or not.

The whole document of a Secret is replaced: whoever reads it would read it as a Secret. Bounded: a text of more than
1 MiB is looked at in its first 1 MiB, what is compressed is unpacked up to 4 MiB.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from itertools import islice

from clusterinfo.kubernetes.redaction.values import Conceal

MAX_TEXT_CHARS = 1 << 20
MAX_UNPACKED_BYTES = 4 << 20

PACKED = ("U2VjcmV0", "NlY3Jld", "TZWNyZX", "H4sI")
"""One of these is in every base64 text that is looked into: `Secret` at each of three places, and gzip's magic."""

_LINE = r"(?:^|(?<=\\n)|(?<=\"))(?P<before>[ \t]*(?:- +)?)"
"""Begins one, also of a text within JSON within the text."""
_KIND = re.compile(
    rf"{_LINE}[\"']?kind[\"']?:[ \t]*[\"']?Secret(?:List)?[\"']?[ \t]*(?=\r?$|#|\\{{1,15}}[nr\"]|\")",
    re.MULTILINE,
)
_VALUES = re.compile(rf"{_LINE}[\"']?(?:data|stringData|items)[\"']?:", re.MULTILINE)
_KIND_IN_JSON = re.compile(r"\"kind\\*+\"\s*:\s*\\*+\"Secret(?:List)?\\*+\"")
_VALUES_IN_JSON = re.compile(r"\"(?:data|stringData|items)\\*+\"\s*:\s*[{\[]")
_KIND_IN_FLOW = re.compile(r"[{,]\s{0,99}+[\"']?kind[\"']?:[ ]*[\"']?Secret(?:List)?[\"']?[ ]*(?=[,}\r\n])")
_FLOW = r"(?:[^{}]|\{[^{}]*+\})"
_FLOW_VALUES = r"[\s,{][\"']?(?:data|stringData|items)[\"']?:[ ]*[{\[]"
_VALUES_BEHIND = re.compile(rf"(?>(?:(?!{_FLOW_VALUES}){_FLOW})*){_FLOW_VALUES}")
_VALUES_BEFORE = re.compile(rf"{_FLOW_VALUES}[^{{}}]*+\}}{_FLOW}*+\Z")
_MAX_FLOW_CHARS, _MAX_FLOWS = 1000, 100
"""In `{kind: Secret, data: {...}}`, YAML's other style: how far apart they are looked for, and how often."""
_DOCUMENT = re.compile(r"^(---[^\n]*\n)", re.MULTILINE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{40,}+={0,2}\s*+|[A-Za-z0-9_-]{40,}+={0,2}")


def replace_secrets(text: str, conceal: Conceal) -> str:
    """`text` with what `conceal` returns in place of every document of kind Secret in it, or of all if it is packed."""
    if "Secret" in text and holds_secret(text):
        parts = _DOCUMENT.split(text)
        return "".join(conceal(part) if holds_secret(part) else part for part in parts)
    if any(needle in text for needle in PACKED) and _is_packed_secret(text):
        return conceal(text)
    return text


def holds_secret(text: str, limit: int = MAX_TEXT_CHARS) -> bool:
    """True if a Secret with values stands in the text, as YAML or JSON, within its first `limit` characters."""
    text = text[:limit]
    if _KIND_IN_JSON.search(text) and _VALUES_IN_JSON.search(text):
        return True
    columns = {len(found["before"]) for found in _KIND.finditer(text)}
    if columns and any(len(found["before"]) in columns for found in _VALUES.finditer(text)):
        return True
    return any(_is_flow(text, *found.span()) for found in islice(_KIND_IN_FLOW.finditer(text), _MAX_FLOWS))


def _is_flow(text: str, start: int, end: int) -> bool:
    """True if values stand in the braces in which `kind: Secret` does."""
    behind = text[end : end + _MAX_FLOW_CHARS]
    before = text[max(0, start - _MAX_FLOW_CHARS) : start]
    return bool(_VALUES_BEHIND.match(behind) or _VALUES_BEFORE.search(before))


def _is_packed_secret(text: str, depth: int = 0) -> bool:
    if not _BASE64.fullmatch(text[:MAX_TEXT_CHARS]):
        return False
    unpacked = _unpack(text[:MAX_TEXT_CHARS])
    found = unpacked.decode("utf-8", "replace")
    return holds_secret(found, MAX_UNPACKED_BYTES) or (depth < 2 and _is_packed_secret(found, depth + 1))


def _unpack(text: str) -> bytes:
    """What the base64 stands for, decompressed if it is gzip; as far as it can be read."""
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(compact[: len(compact) // 4 * 4])
    except binascii.Error:
        return b""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return zlib.decompressobj(wbits=31).decompress(data, MAX_UNPACKED_BYTES)
    except zlib.error:
        return b""
