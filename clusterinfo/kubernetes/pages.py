"""Response bytes -> pages of raw items, Status documents. Pure but for samples: no I/O, no clock, no environment.

No object trees: a page is split into `msgspec.Raw` slices. A slice keeps its whole page alive: copy what outlives it.
What msgspec refuses as a whole (an item nested some 1,000 deep, a lone-surrogate escape) is split by a scanner that
looks at brackets and strings only, so that one strange item does not cost the others.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from clusterinfo.errors import RecordError, TransientError

Slice = msgspec.Raw | bytes
"""JSON of one value, as it was received."""
Members = dict[str, Slice]
"""An object, split one level deep."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_UNSPLITTABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

MAX_ITEMS = 50_000
"""Of one page: PAGE_SIZE is 10,000 at most, and what fills PAGE_BYTES has 300 bytes an item by then."""
_DENSE = 16
"""Bytes for each comma: a page with fewer has values of a few bytes, and 64 bytes of memory for each."""
_CROWDED, _CROWDED_OBJECTS = 20, 200
"""Bytes for each comma, or for each object beside another: a page of built-in kinds has at least 25, and 320."""
_SAMPLES, _SAMPLE_BYTES = 100, 500
_ITEMS = re.compile(rb'"items"\s*+:\s*+\Z')
_BESIDE = re.compile(rb"\}\s*+,\s*+\{")
_BRACKET = re.compile(rb'(?>(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"){0,500})[{}\[\]]?+', re.DOTALL)
# A string, or one of the characters that give structure. A quote that begins no whole string is a lone quote.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:"]', re.DOTALL)
_CLOSING = {b"{": b"}", b"[": b"]"}


class ListMeta(msgspec.Struct, gc=False):
    """A list's own metadata."""

    resource_version: str | None = msgspec.field(name="resourceVersion", default=None)
    continue_token: str | None = msgspec.field(name="continue", default=None)


class _List(msgspec.Struct, gc=False):
    metadata: ListMeta | msgspec.UnsetType | None = msgspec.UNSET
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET
    kind: str | None = None


class _SplitList(msgspec.Struct, gc=False):
    metadata: ListMeta | msgspec.UnsetType | None = msgspec.UNSET
    items: list[dict[str, msgspec.Raw]] | msgspec.UnsetType | None = msgspec.UNSET
    kind: str | None = None


class ListPage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One page of a list: `items` as raw JSON; `continue_token` is "" on the last page."""

    resource_version: str
    continue_token: str
    items: list[Slice]


class SplitPage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The same with its `items` split, which were looked through once for both."""

    resource_version: str
    continue_token: str
    items: list[Members]


class Status(msgspec.Struct, frozen=True, gc=False):
    """A `Status` document: why a request failed. Texts are "" where the server is silent."""

    reason: str = ""
    message: str = ""
    code: int = 0


_PAGE = msgspec.json.Decoder(_List)
_SPLIT_PAGE = msgspec.json.Decoder(_SplitList)
_KIND = msgspec.json.Decoder(str | None)
_META = msgspec.json.Decoder(ListMeta)
_META_MEMBERS = frozenset(field.encode_name for field in msgspec.structs.fields(ListMeta))
_STATUS = msgspec.json.Decoder(Status)


def parse_page(body: bytes, kind: str = "") -> ListPage:
    """A list response -> its page; `kind` is that of the listed objects, "" if discovery does not say.

    As client-go reads it, what is absent or null is empty: Kubernetes 1.28 to 1.30 leave `items` out of some empty
    lists. Raises TransientError if it is no whole list of that kind: the same request may be answered better.
    """
    try:
        page = _PAGE.decode(body)
    except _UNSPLITTABLE as error:
        return _scan_page(body, kind, error)
    return _page(page.kind, kind, page.metadata, page.items)


def split_page(body: bytes, kind: str = "") -> ListPage | SplitPage:
    """Like `parse_page`, its items split as well unless one of them is something else than an object."""
    try:
        page = _SPLIT_PAGE.decode(body)
    except _UNSPLITTABLE:
        return parse_page(body, kind)
    version, token = _about(page.kind, kind, page.metadata, page.items)
    items: list[Any] = page.items or []
    return SplitPage(resource_version=version, continue_token=token, items=items)


def _page(
    found: str | None,
    kind: str,
    metadata: ListMeta | msgspec.UnsetType | None,
    items: Sequence[Slice] | msgspec.UnsetType | None,
) -> ListPage:
    version, token = _about(found, kind, metadata, items)
    return ListPage(resource_version=version, continue_token=token, items=list(items or ()))


def _about(
    found: str | None,
    kind: str,
    metadata: ListMeta | msgspec.UnsetType | None,
    items: object,
) -> tuple[str, str]:
    """A page's version and token, if `metadata` and `items` stand there or `found`, its kind, says that it is the list
    that was asked for.

    An answer that is something else (a Status, a document of discovery) has no `items` either, and taken for an empty
    list it would prove that all is gone. The kind alone does not decide: a custom resource names its list as it likes.
    """
    is_asked_for = bool(kind) and found == f"{kind}List"
    if (metadata is msgspec.UNSET or items is msgspec.UNSET) and not is_asked_for:
        lacks = [name for name, value in (("metadata", metadata), ("items", items)) if value is msgspec.UNSET]
        what = f"its kind is {found[:100]!r}" if found else "it has no kind"
        raise TransientError(f"the answer is no list that can be read: {what}, and no {' and no '.join(lacks)}")
    meta = metadata or ListMeta()
    return meta.resource_version or "", meta.continue_token or ""


def _scan_page(body: bytes, kind: str, cause: Exception) -> ListPage:
    try:
        members = dict(scan_object(body))
        metadata = _scan_metadata(members["metadata"]) if "metadata" in members else msgspec.UNSET
        items = _scan_items(members["items"]) if "items" in members else msgspec.UNSET
        found = _KIND.decode(members.get("kind", b"null"))
    except (*_UNSPLITTABLE, RecordError) as error:
        raise TransientError(f"the answer is no list that can be read: {cause}") from error
    return _page(found, kind, metadata, items)


def _scan_items(data: bytes) -> list[Slice] | None:
    return None if data == b"null" else list(scan_array(data))


def _scan_metadata(data: bytes) -> ListMeta | None:
    """What is read of a list's metadata, whatever else stands there."""
    if data == b"null":
        return None
    known = [b'"%s":%s' % (key.encode(), value) for key, value in scan_object(data) if key in _META_MEMBERS]
    return _META.decode(b"{" + b",".join(known) + b"}")


def is_dense(body: bytes) -> bool:
    """True if a page may hold far more items than it should, so that they are to be counted before it is split."""
    if len(body) <= MAX_ITEMS:
        return False
    # Counting in all of it takes as long as half of splitting it. Nobody knows where these samples are.
    found = _samples(body).count(b",")
    return found * _DENSE * 4 > _SAMPLES * _SAMPLE_BYTES * 3 and body.count(b",") * _DENSE > len(body)


def is_crowded(body: bytes) -> bool:
    """True if a page's objects, or their members, may be so small that all of them split take many times its bytes."""
    if len(body) <= MAX_ITEMS:
        return False
    samples = _samples(body)
    objects = sum(1 for _ in _BESIDE.finditer(samples))
    return samples.count(b",") * _CROWDED > len(samples) or objects * _CROWDED_OBJECTS > len(samples)


def _samples(body: bytes) -> bytes:
    starts = [random.randrange(len(body) - _SAMPLE_BYTES) for _ in range(_SAMPLES)]  # noqa: S311 - no secret
    return b"".join([body[start : start + _SAMPLE_BYTES] for start in starts])


def count_items(body: bytes) -> int:
    """The items that an answer, or the beginning of one, holds whole or begun; 0 if it is no list.

    Builds nothing, and looks at brackets only: some 0.3 µs for each. Counts not much further than `MAX_ITEMS`, and
    commas within items that are texts as well, which are no objects anyway.
    """
    depth = commas = begin = 0
    within = has_one = False
    while (found := _BRACKET.match(body, begin)) and (end := found.end()) > begin:
        byte = body[end - 1]
        if within and depth == 2:
            commas += body.count(b",", begin, end)
            has_one = has_one or byte != 0x5D or bool(body[begin : end - 1].strip())
        if byte in b"{[":
            depth += 1
            within = within or (depth == 2 and byte == 0x5B and bool(_ITEMS.search(body, max(0, end - 65), end - 1)))
        elif byte in b"}]":
            depth -= 1
        if (depth < 2 and within) or commas > MAX_ITEMS:
            break
        begin = end
    return commas + has_one


def parse_status(body: bytes) -> Status:
    """An error response -> its Status; an empty one where the body is something else, such as `404 page not found`."""
    try:
        return _STATUS.decode(body)
    except _UNSPLITTABLE:
        return Status()


# --- one level deep --------------------------------------------------------------------------------------------------


def split_object(raw: Slice, *, any_depth: bool = True) -> dict[str, Slice]:
    """An object's members, one level deep; of a key given twice the last wins.

    Raises RecordError if it is none, RecursionError if not `any_depth` and it is nested some 1,000 deep.
    """
    try:
        return _OBJECT.decode(raw)  # type: ignore[return-value]  # dict is invariant; nobody writes through this one
    except _UNSPLITTABLE as error:
        if isinstance(error, RecursionError) and not any_depth:
            raise
        return dict(scan_object(bytes(raw)))


def split_array(raw: Slice, *, any_depth: bool = True) -> list[Slice]:
    """An array's elements; raises what `split_object` raises."""
    try:
        return _ARRAY.decode(raw)  # type: ignore[return-value]  # as above
    except _UNSPLITTABLE as error:
        if isinstance(error, RecursionError) and not any_depth:
            raise
        return list(scan_array(bytes(raw)))


def scan_object(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Like `split_object`, looking at brackets and strings only: any depth, any escape, no check of the rest."""
    for start, colon, end in _elements(data, b"{"):
        if colon < 0:
            raise RecordError("a member of an object has no value")
        yield _text(data[start : colon - 1]), data[colon:end].strip()


def scan_array(data: bytes) -> Iterator[bytes]:
    """Like `split_array`, looking at brackets and strings only."""
    for start, _, end in _elements(data, b"["):
        yield data[start:end].strip()


def _text(key: bytes) -> str:
    try:
        return str(json.loads(key))
    except ValueError as error:
        raise RecordError("the name of a member cannot be read") from error


def _elements(data: bytes, opening: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, position after the first colon or -1, end) of what stands between the outermost brackets' commas."""
    if not data.lstrip().startswith(opening):
        raise RecordError(f"expected a JSON value that begins with {opening.decode()}")
    expected: list[bytes] = []
    start, colon = 0, -1
    for token in _TOKEN.finditer(data):
        depth = len(expected)
        match token[0]:
            case b"{" | b"[":
                expected.append(_CLOSING[token[0]])
                start = token.end() if depth == 0 else start
            case b"}" | b"]":
                if expected.pop() != token[0]:
                    raise RecordError("a bracket closes what another one opened")
                if depth == 1:
                    yield from _last_element(data, start, colon, token)
                    return
            case b"," if depth == 1:
                yield start, colon, token.start()
                start, colon = token.end(), -1
            case b":" if depth == 1 and colon < 0:
                colon = token.end()
            case b'"':
                break
    raise RecordError("the JSON ends in the middle of a value")


def _last_element(data: bytes, start: int, colon: int, closing: re.Match[bytes]) -> Iterator[tuple[int, int, int]]:
    """What stands before the outermost closing bracket, if anything; nothing may follow it."""
    if data[closing.end() :].strip():
        raise RecordError("something follows the end of the JSON")
    if data[start : closing.start()].strip():
        yield start, colon, closing.start()
