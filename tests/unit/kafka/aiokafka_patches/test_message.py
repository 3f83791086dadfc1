"""One message: its headers are read compiled where they are sound, and as in Python wherever they are not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.errors import RecordError
from clusterinfo.kafka.aiokafka_patches import message
from clusterinfo.model import Record
from clusterinfo.wire import MAX_HEADERS, MAX_HEADERS_BYTES
from tests.support.batches import Headers, framed, sized, varint
from tests.support.kafka import item, new_list
from tests.support.records import NOON

FOLLOWS = b"\x02a\x02b" * 100  # what stands behind the message: headers that would fit
MOST = [(b"h%02d" % number, b"v" * 1000) for number in range(MAX_HEADERS - 1)]
LEFT_BYTES = MAX_HEADERS_BYTES - sum(len(sized(name) + sized(value)) for name, value in MOST)


def encoded(headers: Headers) -> bytes:
    return varint(len(headers)) + b"".join(sized(name) + sized(value) for name, value in headers)


def read(headers: bytes, alike: message.Alike | None = None) -> message.Message:
    data = sized(b"k") + sized(b"v") + headers
    return message.read_message(data + FOLLOWS, 0, len(data), 0, None, alike=alike)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"", b""), (b"n", None), ("ä😀".encode(), b"\xff")],
        [(b"x" * size, b"y" * size) for size in (63, 64, 8191, 8192)],
        [*MOST, (b"h", b"v" * (LEFT_BYTES - 5))],
    ],
    ids=["none", "odd", "long", "as many bytes as may be"],
)
def test_sound_headers_are_read_compiled(headers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(message, "_all_headers")
    found = read(encoded(headers))
    assert found.headers == [(name.decode(), value) for name, value in headers]
    assert found.checksum is None
    assert found.size_bytes == len(sized(b"k") + sized(b"v") + encoded(headers))


def longer(size: int) -> bytes:
    """A length, and fewer bytes than that."""
    return varint(size) + b"x"


CUT_SHORT = {
    **{f"a name of {size} bytes": varint(1) + longer(size) for size in (9, 1 << 32, 1 << 62, (1 << 63) - 9)},
    **{f"a value of {size} bytes": varint(1) + b"\2n" + longer(size) for size in (9, 1 << 32, 1 << 62, (1 << 63) - 9)},
    "a name's length without an end": varint(1) + b"\x81",
    "a value's length without an end": varint(1) + b"\2n\x81",
    "a header fewer than counted": varint(2) + b"\2n\2v",
}


@pytest.mark.parametrize("headers", CUT_SHORT.values(), ids=CUT_SHORT.keys())
def test_what_ends_behind_the_message_is_not_read(headers: bytes) -> None:
    found = read(headers)
    assert (found.key, found.value, found.headers) == (None, None, [])
    assert found.checksum is not None
    assert "cut short" in found.checksum.reason


def mangled(headers: bytes, random: random.Random) -> bytes:
    """With up to three places changed, grown or cut."""
    out = bytearray(headers)
    for _ in range(random.randrange(4)):
        at, size = random.randrange(len(out) + 1), random.randrange(1, 6)
        out[at : at + random.randrange(size)] = bytes(random.choice(b"\x00\x01\x02\x80\x81\xff") for _ in range(size))
    return bytes(out)


def drawn(random: random.Random) -> Headers:
    texts = [b"", b"n", "ä".encode(), b"\xff", b"x" * 63, b"x" * 64, b"x" * 300]
    weights = [5, 40, 10, 1, 5, 5, 5]
    names = random.choices(texts, weights, k=random.randrange(6))
    return [(name, random.choice([None, *texts])) for name in names]


def test_compiled_or_not_the_headers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever bytes: the compiled reader refuses, or finds what the other one does."""
    source = random.Random(20)
    cases = [mangled(encoded(drawn(source)), source) for _ in range(4000)]
    found = [read(case) for case in cases]
    compiled = sum(message._compiled_headers(case) is not None for case in cases)
    assert 500 < compiled < 3500
    monkeypatch.setattr(message, "_compiled_headers", lambda *_: None)
    assert found == [read(case) for case in cases]


OFFSET = 7
UID = "5180eaa4-7a47-4e30-81ab-2135c8f2a0e5"
BEFORE_KEY = b"\0" + varint(300) + varint(OFFSET)


def of_page(number: int, page: str, **attributes: object) -> bytes:
    """An item as a message from its key on."""
    key, value, headers = wire.encode(replace(item(number, "pods", page), **({"uid": UID} | attributes)))
    return sized(key) + sized(value) + encoded([(name.encode(), text) for name, text in headers])


WHO = {"manager": "kubectl", "operation": "Update", "subresource": "scale", "managed_at": NOON}


def both(data: bytes, alike: message.Alike) -> tuple[Record | None, Record | None]:
    """What a message is as an item of the page, and what decoding makes of it, if it is not refused."""
    assert alike.page is not None
    framed_ = b"before" + framed(BEFORE_KEY + data)
    quick = message.read_item(framed_ + FOLLOWS, len(b"before"), 1000, alike)
    whole = message.read_message(data + FOLLOWS, 0, len(data), 1000 + OFFSET, None)
    assert quick is None or (quick.offset, quick.size_bytes, quick.end) == (
        whole.offset,
        whole.size_bytes,
        len(framed_),
    )
    try:
        record = None if whole.checksum else wire.decode(whole.key, whole.value, whole.headers, whole.offset)
    except RecordError:
        record = None
    return quick.record if quick else None, record


def learnt(page: str) -> message.Alike:
    alike = message.Alike()
    for number in range(2):
        data = of_page(number, page)
        message.read_message(data, 0, len(data), number, None, alike=alike)
    return alike


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        WHO,
        {"namespace": ""},
        {"name": "ä😀" * 30},
        {"name": "x" * 500},
        {"body": b"x" * 9000},
        {"manager": "x" * 90},
    ],
    ids=["as they come", "with who wrote", "of a cluster", "in other letters", "long", "large", "by a long name"],
)
def test_an_item_of_a_page_is_read_at_once(attributes: dict[str, object]) -> None:
    page = new_list()
    quick, record = both(of_page(2, page, **attributes), learnt(page))
    assert quick == record is not None


@pytest.mark.parametrize(
    "attributes",
    [
        {"uid": ""},
        {"uid": "uid-2"},
        {"resource_version": ""},
        {"resource_version": "1" * 64},
        {"manager": "x" * 600},
        {"name": "x" * 1100},
        {"body": b"x" * (1 << 20)},
    ],
    ids=["no uid", "another uid", "no version", "a long version", "by a very long name", "very long", "very large"],
)
def test_what_is_unusual_is_read_as_any_other_message(attributes: dict[str, object]) -> None:
    page = new_list()
    quick, record = both(of_page(2, page, **attributes), learnt(page))
    assert quick is None
    assert record is not None


@pytest.mark.parametrize("headers", [54, 55, 56])
def test_of_a_page_of_too_many_headers_nothing_is_read_at_once(headers: int) -> None:
    """How many an item has is said in one byte."""
    page, alike = new_list(), message.Alike()

    def with_more(number: int) -> bytes:
        key, value, said = wire.encode(replace(item(number, "pods", page), uid=UID))
        more = [(b"h%02d" % number, b"v") for number in range(headers - (len(said) - 5))]
        return sized(key) + sized(value) + encoded([*more, *((name.encode(), text) for name, text in said)])

    for number in range(2):
        data = with_more(number)
        message.read_message(data, 0, len(data), number, None, alike=alike)
    assert (alike.page is not None) == (headers + len(wire.OWN) < MAX_HEADERS)
    if alike.page:
        quick, record = both(with_more(2), alike)
        assert quick == record is not None


def test_a_page_that_is_interrupted_is_learnt_again() -> None:
    """A watched change, or an item of another list, ends the page; two items of the next begin it."""
    page, alike, other = new_list(), message.Alike(), replace(item(9, "pods", new_list()), list="", session=new_list())
    changed = wire.encode(replace(other, uid=UID))
    change = (
        sized(changed.key) + sized(changed.value) + encoded([(name.encode(), text) for name, text in changed.headers])
    )
    before = new_list()
    found = []
    for data in [of_page(0, before), of_page(1, before), *(of_page(number, page) for number in range(3)), change] + [
        of_page(number, page) for number in range(3, 6)
    ]:
        message.read_message(data, 0, len(data), 0, None, alike=alike)
        found.append(alike.page is not None)
    assert found == [False, True, False, True, True, False, False, True, True]


def test_of_what_is_long_nothing_is_kept() -> None:
    alike, shared = message.Alike(), [(b"h%d" % number, b"v" * 500) for number in range(9)]
    for _ in range(2):
        read(encoded(shared), alike)
    assert alike._last == []


@pytest.mark.parametrize(
    "attributes",
    [{"resource": "secrets"}, {"reach": "ns"}, {"epoch": 1}, {"cluster": "c2"}, {"list": "", "snapshot": ""}],
    ids=["of another kind", "of another reach", "of another epoch", "of another cluster", "of no list"],
)
def test_what_is_of_another_page_is_no_item_of_this_one(attributes: dict[str, object]) -> None:
    page = new_list()
    quick, record = both(of_page(2, page, **attributes), learnt(page))
    assert quick is None
    assert record is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ce_id", None),
        ("ce_subject", None),
        ("ce_subject", b"core/pods/ns/another"),
        ("ce_subject", b"core/pods/-/o-2"),
        ("ce_subject", b"core/pods/ns/o-3"),
        ("ce_contenthash", None),
        ("ce_contenthash", b"0" * 31),
        ("ce_contenthash", b"A" * 32),
        ("ce_managedat", b"yesterday"),
        ("ce_uid", b"\xff"),
    ],
)
def test_what_decoding_refuses_is_no_item(name: str, text: bytes | None) -> None:
    page = new_list()
    key, value, headers = wire.encode(replace(item(2, "pods", page), uid=UID, **WHO))
    kept = [(one.encode(), text if one == name else was) for one, was in headers if one != name or text is not None]
    assert both(sized(key) + sized(value) + encoded(kept), learnt(page)) == (None, None)


def own(said: Headers, *changes: tuple[str, str, bytes | None]) -> Headers:
    """Headers of which one, by its name, has another name and value (None: its own)."""
    changed = {name.encode(): (other.encode(), text) for name, other, text in changes}
    return [(changed[name][0], changed[name][1] or text) if name in changed else (name, text) for name, text in said]


@pytest.mark.parametrize(
    "change",
    [
        ("ce_contenthash", "ce_contenthasj", None),
        ("ce_resourceversion", "ce_resourceversiom", None),
        ("ce_uid", "ce_uie", None),
        ("ce_uid", "ce_uid", b"\0" * 36),
        ("ce_manager", "ce_manager", b"a\0b"),
        ("ce_id", "ce_id", b"x" * (MAX_HEADERS_BYTES + 1)),
    ],
    ids=["another hash", "another version", "another uid", "a uid of NUL", "a manager with NUL", "too many bytes"],
)
def test_headers_of_another_name_or_value_make_no_item(change: tuple[str, str, bytes | None]) -> None:
    page = new_list()
    key, value, headers = wire.encode(replace(item(2, "pods", page), uid=UID, **WHO))
    said = own([(name.encode(), text) for name, text in headers], change)
    assert said != [(name.encode(), text) for name, text in headers]
    quick, _ = both(sized(key) + sized(value) + encoded(said), learnt(page))
    assert quick is None


@pytest.mark.parametrize("more", [-1, 1])
def test_another_number_of_headers_makes_no_item(more: int) -> None:
    page = new_list()
    key, value, headers = wire.encode(replace(item(2, "pods", page), uid=UID))
    said = encoded([(name.encode(), text) for name, text in headers])
    counted = varint(len(headers) + more) + said[1:]
    assert both(sized(key) + sized(value) + counted, learnt(page))[0] is None


def test_what_ends_behind_its_batch_is_no_item() -> None:
    page = new_list()
    whole = BEFORE_KEY + of_page(2, page)
    assert message.read_item(framed(whole), 0, 0, learnt(page)) is not None
    assert message.read_item(varint(len(whole) + 9) + whole, 0, 0, learnt(page)) is None


@pytest.mark.parametrize("escape", [rb"\u0000", rb"\ud800", b"\0", b"\xff"])
def test_a_name_that_no_database_holds_is_no_item(escape: bytes) -> None:
    page = new_list()
    key, value, headers = wire.encode(replace(item(2, "pods", page), uid=UID))
    said = [(name.encode(), text.replace(b"o-2", b"o\0") if name == "ce_subject" else text) for name, text in headers]
    assert both(sized(key.replace(b"o-2", b"o" + escape)) + sized(value) + encoded(said), learnt(page)) == (None, None)


def test_whatever_is_changed_in_an_item_it_is_what_decoding_makes_of_it_or_none() -> None:
    source, page = random.Random(22), new_list()
    alike = learnt(page)
    found = []
    for number in range(6000):
        data = of_page(number, page, **(WHO if number % 2 else {}))
        found.append(both(mangled(data, source) if source.random() < 0.8 else data, alike))
    assert all(quick in (None, record) for quick, record in found)
    assert 1500 < sum(quick is not None for quick, _ in found) < 5000
    assert sum(record is None for _, record in found) > 1000
