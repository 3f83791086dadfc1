"""Target `pages`: pages of a list, recorded and made up, and what the splitter makes of them once they are damaged.

Where the judge reads a page, the splitter reads the same: the list's own metadata, and each item as the judge has it,
before normalisation and after it where `reference.py` can say what that is. Where the judge refuses a page, the
splitter refuses it too, or (on purpose) splits it by its brackets and strings alone: then what was not damaged is as
it was.

Agreed exceptions: metadata that holds something else than a list's does is refused; bytes that are no UTF-8 within a
string that the splitter does not read pass it, and are found by normalisation.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from clusterinfo.errors import RecordError, TransientError
from clusterinfo.json_repair import MAX_DEPTH
from clusterinfo.kubernetes import pages as split
from clusterinfo.kubernetes.normalize import NormalizedObject, normalize
from clusterinfo.kubernetes.pages import ListPage, parse_page
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.model import GroupVersionResource
from tests.fuzz import reference
from tests.fuzz.making import SPACES, Maker, mutated, nested, with_another_value
from tests.fuzz.outcome import Failure, Judged, Outcome, expect
from tests.fuzz.trees import NoJsonError, deep, has_half_a_pair, is_closed, is_json, same, tree

RECORDED = Path(__file__).parents[1] / "recorded"
LARGEST_ITEM_BYTES = 4000
CONFIGMAPS = GroupVersionResource("", "v1", "configmaps", "ConfigMap", namespaced=True)
SECRETS = GroupVersionResource("", "v1", "secrets", "Secret", namespaced=True)
WIDGETS = GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", namespaced=True)
REDACTION = Redaction()
METADATA = (
    b'{"resourceVersion":"48987"}', b'{"resourceVersion":"48987","continue":"eyJ2","remainingItemCount":3}',
    b'{"resourceVersion":"5","continue":""}', b'{"continue":null,"resourceVersion":"6","selfLink":""}', b"{}", b"null",
)  # fmt: skip
BAD_METADATA = (
    b'{"resourceVersion":5}', b'{"resourceVersion":"\\ud800"}', b'{"remainingItemCount":"3"}', b"[]", b'"x"',
    b'{"remainingItemCount":1.5}', b'{"remainingItemCount":99999999999999999999}', b'{"resourceVersion":"\xff"}',
)  # fmt: skip


class Made(msgspec.Struct):
    """A page: `whole` as served, the items in it, and which of them is damaged (-1: none; the page itself: all)."""

    whole: bytes
    items: list[bytes]
    damaged: int


@cache
def corpus() -> list[bytes]:
    """Items of recorded pages, compact."""
    bodies = [json.loads(path.read_text())["body"] for path in sorted(RECORDED.glob("list-*.json"))]
    items = [item for body in bodies for item in json.loads(body)["items"] or []]
    compact = [json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() for item in items]
    return sorted({item for item in compact if len(item) <= LARGEST_ITEM_BYTES}, key=lambda item: (len(item), item))


class Makers:
    """What pages are made of: good JSON, the same with white space, and JSON with faults."""

    def __init__(self, random: Random) -> None:
        self.good = Maker(random, pool=400)
        self.spaced = Maker(random, pool=200, spaced=True)
        self.bad = Maker(random, pool=400, faults=0.7)


def made(random: Random, makers: Makers) -> Made:
    """A page of up to four items, one of them or the page itself damaged as a rule."""
    items = [_item(random, makers) for _ in range(random.choice((0, 1, 2, 2, 3, 4)))]
    damaged, chance = -1, random.random()
    if items and chance < 0.5:
        damaged = random.randrange(len(items))
        items[damaged] = _damaged(random, makers, items[damaged])
    whole = _page(random, items)
    if chance > 0.85:
        whole, damaged = mutated(random, whole), len(items)
    return Made(whole, items, damaged)


def _item(random: Random, makers: Makers) -> bytes:
    if random.random() < 0.4:
        item = random.choice(corpus())
        return with_another_value(random, item, makers.good.value()) if random.random() < 0.5 else item
    maker = makers.spaced if random.random() < 0.3 else makers.good
    metadata = [maker.member(b"name", random.choice((b'"one"', b'"two"', '"ä"'.encode(), rb'"\u00e4"')))]
    for name, values in (
        (b"namespace", (b'"ns"', b"null", b'""')), (b"uid", (b'"u"', b"null")), (b"resourceVersion", (b'"17"', b'""')),
        (b"annotations", (b"{}", b"null", b"[]", maker.object(1))),
        (b"managedFields", (b"[]", b"null", maker.value(2))),
        (b"labels", (maker.value(2),)), (b"name", (b'"three"', maker.value(1))),
    ):  # fmt: skip
        if random.random() < (0.4 if name != b"name" else 0.03):
            metadata.append(maker.member(name, random.choice(values)))
    random.shuffle(metadata)
    members = [maker.member(b"metadata", maker.joined(b"{", metadata, b"}"))]
    for name, values in (
        (b"data", (b"null", maker.object(1), maker.value(3))), (b"stringData", (maker.object(1),)),
        (b"apiVersion", (b'"v1"', b"null", maker.value(1))), (b"kind", (b'"Odd"', b'""')), (b"spec", (maker.value(4),)),
    ):  # fmt: skip
        if random.random() < 0.3:
            members.append(maker.member(name, random.choice(values)))
    random.shuffle(members)
    return maker.object(3, *members)


def _damaged(random: Random, makers: Makers, item: bytes) -> bytes:
    chance = random.random()
    if chance < 0.1:
        return random.choice((b"5", b"null", b"{}", b"[]", b'"x"', b'{"metadata":null}', b""))
    if chance < 0.15:
        return with_another_value(random, item, nested(random, makers.good.value()))
    if chance < 0.6:
        return with_another_value(random, item, makers.bad.value())
    return mutated(random, item)


def _page(random: Random, items: list[bytes]) -> bytes:
    bad = random.random() < 0.04
    members = [
        b'"metadata":' + random.choice(BAD_METADATA if bad else METADATA),
        b'"items":' + (b"null" if not items and random.random() < 0.5 else _array(random, items)),
    ]
    if random.random() < 0.8:
        members.append(b'"kind":"ConfigMapList"')
        members.append(b'"apiVersion":"v1"')
    if random.random() < 0.03:
        members.append(random.choice(members))
    if random.random() < 0.02:
        del members[random.randrange(len(members))]
    random.shuffle(members)
    space = random.choice(SPACES)
    return space + b"{" + (b"," + space).join(members) + b"}" + random.choice((b"\n", b"", b" "))


def _array(random: Random, items: list[bytes]) -> bytes:
    return b"[" + (random.choice(SPACES) + b"," + random.choice(SPACES)).join(items) + b"]"


# --- judging ---------------------------------------------------------------------------------------------------------


def judge(page: Made, gvr: GroupVersionResource) -> list[str]:
    """What became of the page, and of each of its items. Raises Judged."""
    try:
        whole = tree(page.whole)
    except NoJsonError:
        return _judge_damaged(page, gvr)
    found = _split(page.whole)
    if not _is_list(whole):
        expect(found is None or not _is_strict(whole), "a page that is no list was taken for one")
        return ["pages refused: no list"]
    if found is None:
        raise Judged("a list that is JSON was refused")
    metadata = whole["metadata"] or {}
    expect(found.resource_version == metadata.get("resourceVersion", ""), "another resourceVersion")
    expect(found.continue_token == (metadata.get("continue") or ""), "another continue token")
    items = whole["items"] or []
    expect(len(found.items) == len(items), f"{len(found.items)} items instead of {len(items)}")
    if not (_is_escaped(page.whole) or _holds_twice(page.whole)):
        _judge_count(split.count_items(page.whole), items)
    lines = ["pages split as the judge does"]
    for raw, item in zip(found.items, items, strict=True):
        expect(same(tree(bytes(raw)), item), "an item is another one")
        lines.append(_judge_item(bytes(raw), item, gvr))
    return lines


def _judge_count(count: int, items: list[Any]) -> None:
    """Commas within items that are texts count as well, and no such item is an object."""
    is_exact = not any(isinstance(item, str) for item in items)
    expect(count == len(items) if is_exact else count >= len(items), f"counted {count} items")


def _is_escaped(page: bytes) -> bool:
    return b"\\u00" in page


def _holds_twice(page: bytes) -> bool:
    return page.count(b'"items"') > 1


def _judge_damaged(page: Made, gvr: GroupVersionResource) -> list[str]:
    """The judge refuses the page: the splitter may still find what is whole in it."""
    found = _split(page.whole)
    if found is None:
        return ["pages refused by both"]
    position = 0
    for raw in found.items:
        at = page.whole.find(bytes(raw), position)
        expect(at >= 0, "an item that is not in the page, or not in its order")
        position = at + len(bytes(raw))
    if 0 <= page.damaged < len(page.items) == len(found.items) and is_closed(page.items[page.damaged]):
        for number, (raw, item) in enumerate(zip(found.items, page.items, strict=True)):
            expect(number == page.damaged or bytes(raw).strip() == item.strip(), "damage to one item changed another")
    if _is_fast(page.whole):
        expect(not _is_utf8(page.whole), "the fast path took what is no JSON")
    lines = ["pages split though the judge refuses"]
    for raw in found.items:
        data = bytes(raw)
        lines.append(_judge_item(data, tree(data), gvr) if is_json(data) else _judge_broken_item(data, gvr))
    return lines


def _judge_item(raw: bytes, item: Any, gvr: GroupVersionResource) -> str:
    """An item that is JSON: what normalisation makes of it is what the reference says; a custom resource stays JSON."""
    one, custom = _normalised(raw, gvr), _normalised(raw, WIDGETS)
    # What is cut for its depth has to be whole otherwise, and what is replaced as a whole need not be cut.
    expect((one is None) == (custom is None) or _is_deep(raw), "an item is readable as one kind, and not as another")
    expect(custom is None or is_json(custom.body), "a custom resource is no JSON any more")
    if not reference.is_defined(raw) or (one is not None and one.is_repaired and _is_deep(raw)):
        return "items beyond the reference"
    try:
        with deep():
            expected = reference.normalised(item, gvr)
    except reference.Refused:
        expect(one is None, "an item without a readable identity was normalised")
        return "items refused by both"
    if expected is None:
        return "items beyond the reference"
    if one is None:
        # Whoever repairs an item cannot tell a U+FFFD that was there from one that stands for what was no text.
        texts = (*_identity(item), item["metadata"].get("resourceVersion") or "")
        expect(_is_deep(raw) and "\ufffd" in "".join(texts), "an item with an identity was refused")
        return "items refused for a U+FFFD"
    expect(not one.is_repaired, "an item that is JSON was repaired")
    expect(same(tree(one.body), expected), f"normalised to {one.body[:2000]!r}")
    names = one.namespace, one.name, one.uid, one.resource_version
    version = item["metadata"].get("resourceVersion") or one.content_hash
    expect(names == (*_identity(item), version), "another identity")
    expect((one.api_version, one.kind) == (expected["apiVersion"], expected["kind"]), "another kind")
    return "items normalised as the reference does"


def _judge_broken_item(raw: bytes, gvr: GroupVersionResource) -> str:
    one = _normalised(raw, gvr)
    if one is None:
        return "items refused that are no JSON"
    expect(one.name and not has_half_a_pair(one.name + one.namespace + one.uid), "an identity that is no text")
    expect(_is_utf8(one.body), "a body that is no UTF-8")
    expect(not one.is_repaired or "\ufffd" not in one.name + one.namespace + one.uid, "an identity that was guessed")
    return "items sent that are no JSON"


def _identity(item: Any) -> tuple[str, ...]:
    return tuple(item["metadata"].get(key) or "" for key in ("namespace", "name", "uid"))


def _is_deep(raw: bytes) -> bool:
    """True where a level more could be one too many to go down to."""
    return raw.count(b"[") + raw.count(b"{") > MAX_DEPTH


def _split(body: bytes) -> ListPage | None:
    try:
        return parse_page(body)
    except TransientError:
        return None


def _normalised(raw: bytes, gvr: GroupVersionResource) -> NormalizedObject | None:
    try:
        one = normalize(raw, gvr, REDACTION)
    except RecordError as error:
        expect(len(str(error)) < 300, "a long reason")
        return None
    expect(len(one.content_hash) == 32, "no hash")
    return one


def _is_fast(body: bytes) -> bool:
    try:
        split._PAGE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_list(whole: Any) -> bool:
    """A list as API servers answer it."""
    if not isinstance(whole, dict) or not {"metadata", "items"} <= whole.keys():
        return False
    metadata, items = whole["metadata"], whole["items"]
    return (
        (items is None or isinstance(items, list)) and (metadata is None or _is_metadata(metadata)) and _is_kind(whole)
    )


def _is_kind(whole: dict[str, Any]) -> bool:
    kind = whole.get("kind")
    return kind is None or _is_text(kind)


def _is_metadata(metadata: Any) -> bool:
    if not isinstance(metadata, dict) or not _is_text(metadata.get("resourceVersion", "")):
        return False
    token = metadata.get("continue")
    return token is None or _is_text(token)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not has_half_a_pair(value)


def _is_strict(whole: Any) -> bool:
    """False where only `kind`, which the tolerant splitter does not read, keeps a page from being a list."""
    return not (isinstance(whole, dict) and _is_list({**whole, "kind": None}))


def run(random: Random, size: int, chunk: int) -> Outcome:
    """`size` pages."""
    outcome, makers = Outcome(), Makers(random)
    for _ in range(size):
        page = made(random, makers)
        try:
            outcome.counts.update(judge(page, SECRETS if random.random() < 0.3 else CONFIGMAPS))
        except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
            reason = str(error) if isinstance(error, Judged) else f"{type(error).__name__}: {error}"
            outcome.failures.append(Failure("pages", chunk, reason, page.whole))
    return outcome
