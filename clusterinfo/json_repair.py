r"""JSON that common readers refuse, repaired in bytes, token by token. Pure; builds no object tree, recurses nowhere.

| what a body holds | what stands there instead |
|---|---|
| the escape \u0000, half a surrogate pair, an escape JSON does not know, bytes that are no UTF-8 | U+FFFD |
| a raw control character within a string | its escape; of NUL U+FFFD |
| a byte order mark before everything | nothing |
| a number of more than 1,000 characters or of an exponent beyond ±999, NaN, Infinity, 01, .5 and their kin | its text |
| an array or object nested more than 200 deep | the text `cut:depth>200` |

Whatever else a reader refuses is no JSON, and stays as it is.

Source: RFC 8259, 7, 8.1 and 9: what a string may hold; "An implementation may set limits on the range and precision of
numbers [and] on the maximum depth of nesting."
"""

from __future__ import annotations

import re

MAX_DEPTH = 200
"""Arrays and objects within each other. PostgreSQL stops at some 10,000 (its stack), common JSON readers at 1,000, and
Python functions that go down level by level at a third of that; no schema of Kubernetes comes near."""
MAX_NUMBER_CHARS = 1000
"""Characters of a number."""
MAX_EXPONENT = 999
"""Three digits: a double has 308. PostgreSQL takes `1e131071` in 8 bytes and gives it back in 131,072."""
CUT = f'"cut:depth>{MAX_DEPTH}"'.encode()

_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_FORBIDDEN = re.compile(rb"\\(?:u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})?|[^u\"\\/bfnrt])\Z", re.DOTALL)
_REPLACEMENT = rb"\ufffd"
_CONTROL = re.compile(rb"[\x00-\x1f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# A string, a bracket, or whatever stands between punctuation and white space: literals and numbers.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{\[]|[}\]]|[^ \t\r\n{}\[\],:"]+', re.DOTALL)
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_ALMOST_NUMBER = re.compile(rb"[+-]?(?:[0-9.][0-9A-Za-z.+_-]*|NaN|Infinity)")


def repair_escapes(body: bytes) -> bytes:
    """`body` with every escape replaced that the first line of the table names; the same bytes if there is none."""
    return _ESCAPE.sub(_repair_escape, body)


def _repair_escape(match: re.Match[bytes]) -> bytes:
    return _REPLACEMENT if _FORBIDDEN.fullmatch(match[0]) else match[0]


def repair(body: bytes, *, bare_tokens: bool = True) -> bytes:
    """`body` with all replaced that the table above names; the same bytes if there is none of it.

    Without `bare_tokens` numbers and the like stay as they are: where a text counts, none may come of what was no text.
    Costs some 0.2 µs a token, so a millisecond for 6 kB: for the few bodies that were found out.
    """
    text = _as_utf8(body.removeprefix(_BYTE_ORDER_MARK))
    pieces: list[bytes] = []
    depth = done = 0
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        match text[start]:
            case 0x7B | 0x5B:  # { [
                depth += 1
                if depth == MAX_DEPTH + 1:
                    pieces += (text[done:start], CUT)
            case 0x7D | 0x5D:  # } ]
                depth -= 1
                done = end if depth == MAX_DEPTH else done
            case first if depth <= MAX_DEPTH and (bare_tokens or first == 0x22):
                found = token[0]
                repaired = _repair_string(found) if first == 0x22 else _repair_bare(found)
                if repaired is not found:
                    pieces += (text[done:start], repaired)
                    done = end
    if depth > MAX_DEPTH:  # it never ends
        return text
    return b"".join([*pieces, text[done:]]) if pieces else text


def _as_utf8(body: bytes) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError:
        return body.decode(errors="replace").encode()
    return body


def _repair_string(found: bytes) -> bytes:
    """A string token; the same object if there is nothing to repair."""
    repaired = _ESCAPE.sub(_repair_escape, found) if b"\\" in found else found
    repaired = _CONTROL.sub(_escape_control, repaired)
    return found if repaired == found else repaired


def _escape_control(match: re.Match[bytes]) -> bytes:
    code = match[0][0]
    return rb"\u%04x" % code if code else _REPLACEMENT


def _repair_bare(found: bytes) -> bytes:
    """A literal or a number; the same object if it is in order, or nothing that could be repaired."""
    number = _NUMBER.fullmatch(found)
    if number and len(found) <= MAX_NUMBER_CHARS and abs(int(number[1] or 0)) <= MAX_EXPONENT:
        return found
    return b'"%s"' % found if number or _ALMOST_NUMBER.fullmatch(found) else found
