from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterinfo.errors import RecordError, TransientError
from clusterinfo.kubernetes import pages

RECORDED = Path(__file__).parents[2] / "recorded"


def recorded(name: str) -> bytes:
    body: str = json.loads((RECORDED / f"{name}.json").read_text())["body"]
    return body.encode()


@pytest.mark.parametrize("path", sorted(RECORDED.glob("list-*.json")), ids=lambda path: path.stem)
def test_a_recorded_page_is_split_as_a_tree_would_be(path: Path) -> None:
    body = recorded(path.stem)
    tree = json.loads(body)

    page = pages.parse_page(body)

    assert [json.loads(bytes(item)) for item in page.items] == tree["items"]
    assert page.resource_version == tree["metadata"]["resourceVersion"]
    assert page.continue_token == tree["metadata"].get("continue", "")


def test_null_items_are_none() -> None:
    assert pages.parse_page(b'{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":null}').items == []


ODD = rb'"x":"\ud800"'
"""A member that msgspec refuses, so that the page is split by the scanner."""


@pytest.mark.parametrize("odd", [b"", b"," + ODD], ids=["at once", "by the scanner"])
@pytest.mark.parametrize(
    ("members", "version"),
    [
        (b'"metadata":{"resourceVersion":"529"}', "529"),
        (b'"metadata":{"resourceVersion":"529"},"items":null', "529"),
        (b'"metadata":{"resourceVersion":null,"continue":null,"remainingItemCount":null},"items":[]', ""),
        (b'"metadata":null,"items":[]', ""),
        (b'"items":[]', ""),
        (b'"apiVersion":"admissionregistration.k8s.io/v1"', ""),
    ],
)
def test_what_an_empty_list_leaves_out_is_empty(members: bytes, version: str, odd: bytes) -> None:
    kind = "ValidatingAdmissionPolicy"
    page = pages.parse_page(b'{"kind":"%sList",%s%s}' % (kind.encode(), members, odd), kind)

    assert (page.resource_version, page.continue_token, page.items) == (version, "", [])


def test_a_custom_resource_names_its_list_as_it_likes() -> None:
    page = pages.parse_page(b'{"kind":"Flock","metadata":{},"items":[{}]}', "Sheep")

    assert [bytes(item) for item in page.items] == [b"{}"]


@pytest.mark.parametrize("odd", [b"", b"," + ODD], ids=["at once", "by the scanner"])
@pytest.mark.parametrize(
    ("kind", "members", "why"),
    [
        ("Pod", b'"kind":"Status","metadata":{},"status":"Failure","code":401', "kind is 'Status', and no items"),
        ("Pod", b'"kind":"Pod","metadata":{"name":"a"}', "kind is 'Pod', and no items"),
        ("Pod", b'"kind":"APIResourceList","groupVersion":"v1","resources":[]', "no metadata and no items"),
        ("Pod", b'"kind":"ServiceList","metadata":{}', "kind is 'ServiceList'"),
        ("Pod", b'"kind":"List"', "kind is 'List'"),
        ("Pod", b'"metadata":{"resourceVersion":"5"}', "it has no kind, and no items"),
        ("Pod", b'"items":[]', "it has no kind, and no metadata"),
        ("", b'"kind":"APIResourceList","metadata":{}', "no items"),
        ("", b'"kind":"List"', "no items"),
    ],
)
def test_what_is_no_list_is_not_taken_for_an_empty_one(kind: str, members: bytes, why: str, odd: bytes) -> None:
    with pytest.raises(TransientError, match=why):
        pages.parse_page(b"{%s%s}" % (members, odd), kind)


STRANGE = {
    "nested": b'{"metadata":{"name":"deep"},"spec":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "surrogate": rb'{"metadata":{"name":"odd"},"spec":{"x\ud800":"\ud800 \" ] } , : \\"}}',
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE.keys())
def test_a_strange_item_does_not_cost_the_others(strange: bytes) -> None:
    items = [b'{"metadata":{"name":"a"}}', strange, b'{"metadata":{"name":"b"}}']
    body = b'{"items": [' + b" ,\n".join(items) + b'], "metadata": {"resourceVersion":"5","continue":"t"}}'

    page = pages.parse_page(body)

    assert page.items == items
    assert (page.resource_version, page.continue_token) == ("5", "t")


def test_strange_metadata_of_a_list_does_not_cost_its_items() -> None:
    page = pages.parse_page(rb'{"metadata":{"x":"\ud800","resourceVersion":"5","\udc00":1},"items":[{"a":"\ud800"}]}')

    assert (page.items, page.resource_version) == ([rb'{"a":"\ud800"}'], "5")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>a proxy's page</html>",
        b'{"metadata":{},"items":[{"a":1}',
        b'{"metadata":{},"items":[{"a":"b]}',
        b'{"metadata":{},"items":[{"a":[}]}]}',
        b'{"metadata":{},"items":[]} and more',
        b'{"metadata":{},"items":[{"a":"\\ud800"}]} and more',
        b"[]",
        b'{"kind":"Status"}',
    ],
)
def test_what_is_no_whole_list_may_come_better_next_time(body: bytes) -> None:
    with pytest.raises(TransientError):
        pages.parse_page(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.booleans(), st.sampled_from([None, 2]))
def test_the_scanner_splits_any_object_as_a_parser_does(
    tree: dict[str, object], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")

    assert {key: json.loads(value) for key, value in pages.scan_object(data)} == tree


@given(st.lists(JSON, max_size=5))
def test_the_scanner_splits_any_array_as_a_parser_does(tree: list[object]) -> None:
    assert [json.loads(value) for value in pages.scan_array(json.dumps(tree).encode())] == tree


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(RecordError):
        pages.split_object(b"[1]")
    with pytest.raises(RecordError):
        pages.split_array(b'{"a":1}')


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("error-400-continue", 400, "BadRequest"),
        ("error-401", 401, "Unauthorized"),
        ("error-403", 403, "Forbidden"),
        ("error-404", 0, ""),
        ("error-405", 405, "MethodNotAllowed"),
        ("error-410-continue", 410, "Expired"),
    ],
)
def test_recorded_errors(name: str, code: int, reason: str) -> None:
    status = pages.parse_status(recorded(name))

    assert (status.code, status.reason) == (code, reason)
