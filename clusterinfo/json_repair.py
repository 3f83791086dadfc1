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

import codecs
import re

MAX_DEPTH = 200
"""Arrays and objects within each other. PostgreSQL stops at some 10,000 (its stack), common JSON readers at 1,000, and
Python functions that go down level by level at a third of that; no schema of Kubernetes comes near."""
MAX_NUMBER_CHARS = 1000
"""Characters of a number."""
MAX_EXPONENT = 999
"""Three digits: a double has 308. PostgreSQL takes `1e131071` in 8 bytes and gives it back in 131,072."""
CUT = f'"cut:depth>{MAX_DEPTH}"'.encode()

_REPLACEMENT = rb"\ufffd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Each pattern takes so much at once at most that another thread waits for it for a millisecond or two.
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_SOUND_ESCAPE = rb'\\["\\/bfnrt]|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{4}|' + _PAIR
_SOUND = re.compile(rb"(?>(?:[^\\]{1,256}+|%b){1,1024})" % _SOUND_ESCAPE)
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_CONTROLS = {bytes([code]): rb"\u%04x" % code if code else _REPLACEMENT for code in range(32)}

# Of a string, up to its end; and whatever needs no repair, of any depth: strings, literals, numbers, and between them.
_PIECE = re.compile(rb'(?>(?:[^"\\]{1,256}+|%b|\\u[0-9a-fA-F]{4}|\\.){1,1024})' % _PAIR, re.DOTALL)
_END = rb'(?=[ \t\r\n{}\[\],:"]|\Z)'
_SOUND_NUMBER = rb"-?(?:0|[1-9][0-9]{0,99}+)(?:\.[0-9]{1,99}+)?(?:[eE][+-]?[0-9]{1,3}+)?" + _END
_SOUND_STRING = rb'"(?>(?:[^"\\\x00-\x1f]{1,256}+|%b){0,32})"' % _SOUND_ESCAPE
_SOUND_RUN = re.compile(
    rb"(?>(?:[ \t\r\n,:]{1,256}+|%b|%b|(?:true|false|null)%b){1,256})" % (_SOUND_STRING, _SOUND_NUMBER, _END)
)
_BARE = re.compile(rb'[^ \t\r\n{}\[\],:"]+')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_ALMOST_NUMBER = re.compile(rb"[+-]?(?:[0-9.][0-9A-Za-z.+_-]*|NaN|Infinity)")

_DECODED_AT_ONCE = 64 * 1024


def repair_escapes(body: bytes) -> bytes:
    """`body` with every escape replaced that the first line of the table names; the same bytes if there is none."""
    pieces: list[bytes] = []
    done = pos = 0
    while pos < len(body):
        if sound := _SOUND.match(body, pos):
            pos = sound.end()
        elif escape := _ESCAPE.match(body, pos):
            pieces += (body[done:pos], _REPLACEMENT)
            done = pos = escape.end()
        else:  # a backslash, and nothing behind it
            break
    return b"".join([*pieces, body[done:]]) if pieces else body


def repair(body: bytes, *, bare_tokens: bool = True) -> bytes:
    """`body` with all replaced that the table above names; the same bytes if there is none of it.

    Without `bare_tokens` numbers and the like stay as they are: where a text counts, none may come of what was no text.
    What is sound costs 10 ms a MB, what is not up to a second: for the few bodies that were found out, and in a thread
    if they are large.
    """
    text = _as_utf8(body.removeprefix(_BYTE_ORDER_MARK))
    pieces: list[bytes] = []
    depth = done = pos = 0
    while pos < len(text):
        start, repaired = pos, None
        if run := _SOUND_RUN.match(text, pos):
            pos = run.end()
            continue
        match text[pos]:
            case 0x7B | 0x5B:  # { [
                pos += 1
                depth += 1
                repaired = CUT if depth == MAX_DEPTH + 1 else None
            case 0x7D | 0x5D:  # } ]
                pos += 1
                depth -= 1
                done = pos if depth == MAX_DEPTH else done
            case 0x22:
                pos, repaired = _repaired_string(text, pos)
                if pos < 0:  # it never ends
                    return text
            case _:
                pos, repaired = _repaired_bare(text, pos)
                repaired = repaired if bare_tokens else None
        if repaired is not None and (repaired is CUT or depth <= MAX_DEPTH):
            pieces += (text[done:start], repaired)
            done = pos
    if depth > MAX_DEPTH:  # it never ends
        return text
    return b"".join([*pieces, text[done:]]) if pieces else text


def _as_utf8(body: bytes) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        parts = [body[at : at + _DECODED_AT_ONCE] for at in range(0, len(body), _DECODED_AT_ONCE)]
        return b"".join([*(decoder.decode(part).encode() for part in parts), decoder.decode(b"", final=True).encode()])
    return body


def _repaired_string(text: bytes, start: int) -> tuple[int, bytes | None]:
    """Where the string at `start` ends (-1: nowhere), and what stands there instead; None if it is in order."""
    pos, pieces, is_sound = start + 1, [b'"'], True
    while piece := _PIECE.match(text, pos):
        pos, found = piece.end(), piece[0]
        repaired = repair_escapes(found) if b"\\" in found else found
        repaired = _CONTROL.sub(lambda control: _CONTROLS[control[0]], repaired)
        is_sound = is_sound and repaired == found
        pieces.append(repaired)
    if text[pos : pos + 1] != b'"':
        return -1, None
    return pos + 1, None if is_sound else b"".join([*pieces, b'"'])


def _repaired_bare(text: bytes, start: int) -> tuple[int, bytes | None]:
    """Where the literal or number at `start` ends, and what stands there instead.

    None if it is in order, or nothing that could be repaired.
    """
    token = _BARE.match(text, start)
    assert token is not None
    found = token[0]
    number = _NUMBER.fullmatch(found) if len(found) <= MAX_NUMBER_CHARS else None
    if number and abs(int(number[1] or 0)) <= MAX_EXPONENT:
        return token.end(), None
    return token.end(), b'"%s"' % found if number or _ALMOST_NUMBER.fullmatch(found) else None
