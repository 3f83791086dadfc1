"""Bytes of a watch -> events, and what ends it: recorded streams, cut anywhere, and what no server would say."""

import json
from pathlib import Path

import pytest

from clusterinfo.kubernetes.live import Event
from clusterinfo.kubernetes.watch_events import (
    Change,
    Lines,
    WatchOverError,
    bookmark_version,
    check_kind,
    parse_line,
    version_above,
)
from clusterinfo.model import GroupVersionResource

WIDGETS = GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", namespaced=True)
RECORDED = Path(__file__).parents[2] / "recorded"


def recorded(name: str) -> bytes:
    body = json.loads((RECORDED / f"{name}.json").read_text())["body"]
    assert isinstance(body, str)
    return body.encode()


def changes(lines: list[bytes]) -> list[tuple[Change, str]]:
    events = [parse_line(line) for line in lines]
    return [(one.change, json.loads(bytes(one.raw))["metadata"]["resourceVersion"]) for one in events]


def test_a_recorded_watch() -> None:
    lines = Lines(1 << 20).feed(recorded("watch-widgets"))
    assert [change for change, _ in changes(lines)] == [
        Change.ADDED, Change.MODIFIED, Change.DELETED, Change.ADDED, Change.DELETED, Change.BOOKMARK, Change.BOOKMARK,
    ]  # fmt: skip
    position = 48989
    for line in lines:
        change, raw = parse_line(line)
        if change is Change.BOOKMARK:
            position = bookmark_version(raw, WIDGETS, position)
        else:
            position = version_above(json.loads(bytes(raw))["metadata"]["resourceVersion"], position, change)
    assert position >= 48994


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_the_same_lines_come_of_any_chunks(size: int) -> None:
    body = recorded("watch-widgets")
    lines = Lines(1 << 20)
    found = [line for at in range(0, len(body), size) for line in lines.feed(body[at : at + size])]
    assert found == body.splitlines()
    assert not lines.is_within_a_line


def test_a_stream_that_is_cut_ends_within_a_line() -> None:
    lines = Lines(1 << 20)
    assert lines.feed(recorded("watch-widgets")[:-5])
    assert lines.is_within_a_line


def test_a_recorded_410_is_expired() -> None:
    [line] = Lines(1 << 20).feed(recorded("watch-410"))
    with pytest.raises(WatchOverError, match="too old resource version") as caught:
        parse_line(line)
    assert caught.value.event is Event.EXPIRED


def error(code: int, message: str) -> bytes:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": message}}).encode()


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (error(504, "Too large resource version: 9, current: 3"), Event.EXPIRED),
        (error(500, "etcdserver: no leader"), Event.BROKEN),
        (error(403, "forbidden"), Event.WATCH_FORBIDDEN),
        (b'{"type":"ERROR","object":{}}', Event.EXPIRED),
        (b"garbage", Event.EXPIRED),
        (b"{}", Event.EXPIRED),
        (b'{"type":"ADDED"}', Event.EXPIRED),
        (b'{"type":"RENAMED","object":{}}', Event.EXPIRED),
        (b'{"type":7,"object":{}}', Event.EXPIRED),
        (b'{"type":"ADDED","object":{}', Event.EXPIRED),
        (b'\xff\xfe{"type":"ADDED","object":{}}', Event.EXPIRED),
    ],
)
def test_what_a_line_means_that_is_no_change(line: bytes, event: Event) -> None:
    with pytest.raises(WatchOverError) as caught:
        parse_line(line)
    assert caught.value.event is event


def test_an_object_nested_deep_is_an_event_all_the_same() -> None:
    deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
    assert bytes(parse_line(b'{"type":"ADDED","object":%s}' % deep).raw) == deep


@pytest.mark.parametrize("chunk", [b"x" * 101, b"x" * 101 + b"\n"])
def test_a_line_that_is_too_long_ends_the_watch(chunk: bytes) -> None:
    with pytest.raises(WatchOverError, match="longer than 100 bytes"):
        Lines(100).feed(chunk)
    lines = Lines(100)
    assert lines.feed(b"x" * 60) == []
    with pytest.raises(WatchOverError):
        lines.feed(chunk)


@pytest.mark.parametrize("version", ["5", "4", "", "five", "0x9", "9" * 30])
def test_a_change_has_to_be_above_the_version(version: str) -> None:
    with pytest.raises(WatchOverError, match="stands at 5"):
        version_above(version, 5, Change.DELETED)


def test_a_bookmark_may_repeat_the_version_and_not_go_back() -> None:
    def bookmark(version: str, kind: str = "Widget") -> bytes:
        return json.dumps({"kind": kind, "metadata": {"resourceVersion": version}}).encode()

    assert bookmark_version(bookmark("5"), WIDGETS, 5) == 5
    for version in "4", "", "x":
        with pytest.raises(WatchOverError):
            bookmark_version(bookmark(version), WIDGETS, 5)
    with pytest.raises(WatchOverError, match="Pod"):
        bookmark_version(bookmark("6", "Pod"), WIDGETS, 5)
    with pytest.raises(WatchOverError):
        bookmark_version(b"[]", WIDGETS, 5)


def test_an_object_of_another_kind_ends_the_watch() -> None:
    check_kind("Widget", WIDGETS)
    with pytest.raises(WatchOverError):
        check_kind("Pod", WIDGETS)
