"""A watch against a server that follows a script: what is handed over, where it is opened again, and what ends it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clusterinfo.errors import TransientError
from clusterinfo.kubernetes import watch as watch_module
from clusterinfo.kubernetes.errors import ApiStatusError, ApiTransientError
from clusterinfo.kubernetes.live import Event
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.kubernetes.watch import ALWAYS_BYTES, WatchContext, WatchSource
from clusterinfo.model import Batch, GroupVersionResource, Receipt, RecordType, Unit, WatchLane
from clusterinfo.observations import Observation, WatchLost
from clusterinfo.statements import WatchEnded, read

WIDGETS = GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", namespaced=True)
SESSION = "019ab000-0000-7000-8000-000000000000"
LANE = WatchLane(Unit("c", WIDGETS.group, WIDGETS.resource), "", SESSION)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PATIENCE_S = 8.0
"""For what takes milliseconds: without a guard, which the gate takes out, it is waited for in vain."""
SILENCE, END = "silence", b""

Answer = Exception | list[Any]
"""What a connection brings: bytes, SILENCE, an exception; or an exception in its place."""


def event(change: str, name: str, version: int, *, size: int = 0, kind: str = "Widget") -> bytes:
    metadata = {"name": name, "namespace": "shop", "resourceVersion": str(version), "uid": f"uid of {name}"}
    body = {"apiVersion": "shop.example.com/v1", "kind": kind, "metadata": metadata, "spec": {"x": "x" * size}}
    return json.dumps({"type": change, "object": body}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    body = {"kind": "Widget", "metadata": {"resourceVersion": str(version)}}
    return json.dumps({"type": "BOOKMARK", "object": body}).encode() + b"\n"


class Stream:
    def __init__(self, script: list[Any]) -> None:
        self._script = list(script)

    async def read(self, within_s: float) -> bytes:
        if not self._script:
            await asyncio.Event().wait()
        item = self._script.pop(0)
        if item == SILENCE:
            raise TimeoutError
        if isinstance(item, Exception):
            raise item
        assert isinstance(item, bytes)
        return item


class Followed:
    """A watch from version 10 on, whose connections are `answers`; what ends them is reported, and opened again."""

    def __init__(self, *answers: Answer, **given: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, int]] = []
        self.events: list[Event] = []
        self.seen: list[Observation] = []
        self.clock = START
        context = WatchContext(
            opener=self,
            recorder=Recorder(cluster="c", cluster_name="c", snapshot=""),
            observe=self.seen.append,
            now=lambda: self.clock,
            **given,
        )
        self.source = WatchSource(LANE, WIDGETS, context, version=10, seen=START, report=self._report)

    @asynccontextmanager
    async def watch(
        self, gvr: GroupVersionResource, *, namespace: str, version: int, timeout_s: int
    ) -> AsyncIterator[Stream]:
        assert (gvr, namespace) == (WIDGETS, "")
        self.asked.append((version, timeout_s))
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        yield Stream(answer)

    def _report(self, event: Event) -> None:
        self.events.append(event)
        if event in (Event.CLOSED, Event.BROKEN):
            self.source.reopen()

    @property
    def versions(self) -> list[int]:
        """From which it was opened, one after another."""
        return [version for version, _ in self.asked]

    async def read(self, *, ack: bool = True) -> Batch:
        async with asyncio.timeout(PATIENCE_S):
            batch = await self.source.read()
        assert batch is not None
        if ack:
            await self.source.ack(Receipt(lane=batch.lane, position=batch.end))
        return batch

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.005)


def names(batch: Batch) -> list[tuple[str, str, str]]:
    return [
        ("deleted" if one.type is RecordType.DELETED else "observed", one.name, one.list_version)
        for one in batch.records
    ]


@pytest.fixture
async def follow() -> AsyncIterator[Callable[..., Followed]]:
    made: list[Followed] = []

    def make(*answers: Answer, **given: Any) -> Followed:
        made.append(Followed(*answers, **given))
        made[-1].source.begin()
        return made[-1]

    yield make
    for one in made:
        await one.source.close()


async def test_changes_come_as_records_of_the_session(follow: Callable[..., Followed]) -> None:
    lines = event("ADDED", "a", 11) + event("MODIFIED", "a", 12) + event("DELETED", "a", 13)
    watched = follow([lines[:100], lines[100:]])
    await watched.until(lambda: len(watched.source._pending) == 3)
    batch = await watched.read(ack=False)
    assert names(batch) == [("observed", "a", "11"), ("observed", "a", "12"), ("deleted", "a", "13")]
    assert {(one.session, one.list, one.uid, one.resource_version == one.list_version) for one in batch.records} == {
        (SESSION, "", "uid of a", True)
    }
    assert watched.source.confirmed == 10
    assert await watched.source.read() is batch
    await watched.source.ack(Receipt(lane=batch.lane, position=batch.end))
    assert watched.source.confirmed == 13
    assert watched.events == [Event.OPENED]


async def test_it_is_opened_again_where_it_was_read_to_without_losing_what_waits(
    follow: Callable[..., Followed],
) -> None:
    watched = follow(
        [event("ADDED", "a", 11), TransientError("cut")],
        TransientError("refused"),
        [event("ADDED", "b", 12), bookmark(20), END],
        [event("ADDED", "c", 21)],
    )
    await watched.until(lambda: len(watched.source._pending) == 3)
    assert watched.versions == [10, 11, 11, 20]
    assert names(await watched.read()) == [("observed", name, v) for name, v in [("a", "11"), ("b", "12"), ("c", "21")]]
    assert watched.events == [
        Event.OPENED, Event.BROKEN, Event.BROKEN, Event.OPENED, Event.CLOSED, Event.OPENED,
    ]  # fmt: skip


async def test_after_a_restart_it_goes_on_from_what_is_confirmed(follow: Callable[..., Followed]) -> None:
    watched = follow([event("ADDED", "a", 11)], [event("ADDED", "b", 12)])
    await watched.read()
    await watched.source.restart()
    await watched.source.open(LANE, None)
    assert names(await watched.read(ack=False)) == [("observed", "b", "12")]
    await watched.source.restart()
    await watched.source.open(LANE, None)
    await watched.until(lambda: len(watched.asked) == 3)
    assert watched.versions == [10, 11, 11]


async def test_a_bookmark_counts_once_all_before_it_is_confirmed(follow: Callable[..., Followed]) -> None:
    watched = follow([bookmark(11), event("ADDED", "a", 12), bookmark(30)])
    await watched.until(lambda: watched.source._version == 30)
    assert watched.source.confirmed == 11
    assert not await watched.source.reaches(30, 0.01)
    await watched.read()
    assert await watched.source.reaches(30, 0.01)


async def test_heard_is_no_later_than_what_was_handed_over(follow: Callable[..., Followed]) -> None:
    watched = follow([bookmark(11), event("ADDED", "a", 12), bookmark(13)], on_its_way_s=0.0)
    later = START + dt.timedelta(seconds=50)
    real, context = Stream.read, watched

    async def read(self: Stream, within_s: float) -> bytes:
        context.clock += dt.timedelta(seconds=10)
        return await real(self, within_s)

    Stream.read = read  # type: ignore[method-assign]
    try:
        await watched.until(lambda: watched.source._version == 13)
    finally:
        Stream.read = real  # type: ignore[method-assign]
    assert watched.source.heard == START + dt.timedelta(seconds=10), "of the bookmark before the event that waits"
    assert watched.source.is_behind(later + dt.timedelta(seconds=100))
    await watched.read()
    assert watched.source.heard == START + dt.timedelta(seconds=30)
    assert not watched.source.is_behind(later)
    assert watched.source.is_behind(later + dt.timedelta(seconds=101))


async def test_that_it_is_answered_says_nothing_of_what_changed_before(follow: Callable[..., Followed]) -> None:
    watched = follow([])
    watched.clock += dt.timedelta(seconds=100)
    await watched.until(lambda: Event.OPENED in watched.events)
    assert watched.source.heard < START


@pytest.mark.parametrize("waits", [True, False])
async def test_while_more_has_come_it_is_not_heard(
    follow: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """After it was opened, what changed meanwhile comes in pieces: the first says nothing of those behind it."""
    monkeypatch.setattr(watch_module, "DRAINED_S", 0.0 if waits else 60.0)
    watched = follow([bookmark(11), bookmark(12)])
    watched.clock += dt.timedelta(seconds=100)
    await watched.until(lambda: watched.source._version == 12)
    heard = START + dt.timedelta(seconds=100 if waits else 0) - dt.timedelta(seconds=watch_module.ON_ITS_WAY_S)
    assert watched.source.heard == heard


async def test_until_it_is_answered_it_is_behind(follow: Callable[..., Followed]) -> None:
    watched = follow(TransientError("refused"), TransientError("refused"), [SILENCE])
    assert watched.source.is_behind(START)
    await watched.until(lambda: Event.OPENED in watched.events)
    assert not watched.source.is_behind(START)


@pytest.mark.parametrize(
    ("answer", "event_"),
    [
        (ApiStatusError(410, "Expired", ""), Event.EXPIRED),
        (ApiTransientError("the API answered 504 Too large resource version: 9", status=504), Event.EXPIRED),
        (ApiStatusError(403, "Forbidden", ""), Event.WATCH_FORBIDDEN),
        (ApiStatusError(405, "MethodNotAllowed", ""), Event.UNWATCHABLE),
        (ApiStatusError(404, "NotFound", ""), Event.UNWATCHABLE),
        ([b"garbage\n"], Event.EXPIRED),
        ([event("ADDED", "a", 11), event("ADDED", "b", 11)], Event.EXPIRED),
        ([event("ADDED", "a", 10)], Event.EXPIRED),
        ([event("DELETED", "a", 9)], Event.EXPIRED),
        ([bookmark(9)], Event.EXPIRED),
        ([event("ADDED", "a", 11, kind="Pod")], Event.EXPIRED),
        ([event("ADDED", "", 11)], Event.EXPIRED),
        ([event("ADDED", "a" * 254, 11)], Event.EXPIRED),
    ],
)
async def test_what_cannot_be_continued_is_over(follow: Callable[..., Followed], answer: Answer, event_: Event) -> None:
    watched = follow(answer)
    await watched.until(lambda: bool(watched.events) and watched.events[-1] is not Event.OPENED)
    assert watched.events[-1] is event_
    assert len(watched.asked) == 1
    assert any(isinstance(one, WatchLost) and one.reason == watched.source.reason for one in watched.seen)


async def test_what_was_read_before_the_end_is_sent_and_then_that_it_ended(follow: Callable[..., Followed]) -> None:
    watched = follow([event("ADDED", "a", 11), ApiStatusError(410, "Expired", "too old")])
    await watched.until(lambda: Event.EXPIRED in watched.events)
    await watched.source.end()
    a, ended = (await watched.read()).records
    assert (a.name, ended.type, ended.session) == ("a", RecordType.WATCH_ENDED, SESSION)
    statement = read(ended, WatchEnded)
    assert [(one.resource, one.reach, one.since) for one in statement.units] == [("widgets", "", watched.source.heard)]
    assert "too old" in statement.reason
    assert await watched.source.read() is None


async def test_a_server_without_a_word_is_left(follow: Callable[..., Followed]) -> None:
    watched = follow([SILENCE], [END])
    await watched.until(lambda: Event.EXPIRED in watched.events)
    assert watched.events == [Event.OPENED, Event.BROKEN, Event.OPENED, Event.EXPIRED]
    assert watched.asked[0][1] >= 300
    assert 60 <= watched.asked[1][1] <= 90, "it sends no bookmarks"


async def test_a_silence_is_bounded(follow: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    real = Stream.read

    async def read(self: Stream, within_s: float) -> bytes:
        asked.append(within_s)
        return await real(self, within_s)

    monkeypatch.setattr(Stream, "read", read)
    watched = follow([bookmark(11), bookmark(12)])
    await watched.until(lambda: len(asked) == 3)
    assert set(asked) == {120.0}, "SILENCE_S, from each line on"


async def test_a_word_now_and_then_will_do(follow: Callable[..., Followed]) -> None:
    watched = follow([SILENCE], [bookmark(11), SILENCE], [SILENCE], [bookmark(12)])
    await watched.until(lambda: watched.source.confirmed == 12)
    assert Event.EXPIRED not in watched.events


async def test_it_reads_no_further_while_too_much_waits(
    follow: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "MOST_BYTES", 4 * ALWAYS_BYTES)
    lines = [event("ADDED", f"a{n}", 11 + n, size=ALWAYS_BYTES) for n in range(20)]
    watched = follow(lines)
    await watched.until(lambda: watched.source._pending_bytes > 4 * ALWAYS_BYTES)
    await asyncio.sleep(0.3)
    held = len(watched.source._pending)
    assert held < 10
    found = 0
    while found < 20:
        found += len((await watched.read()).records)
    assert watched.source.confirmed == 30


async def test_retry_after_is_waited_for(follow: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    watched = follow(ApiTransientError("429", status=429, retry_after_s=7), [bookmark(11)])
    async with asyncio.timeout(60):
        while watched.source.confirmed < 11:
            await real(0.005)
    assert slept[0] == 7


async def test_a_stream_that_ends_within_a_line_broke_off(follow: Callable[..., Followed]) -> None:
    watched = follow([event("ADDED", "a", 11), event("ADDED", "b", 12)[:50], END], [event("ADDED", "b", 12)])
    await watched.until(lambda: len(watched.source._pending) == 2)
    assert watched.events == [Event.OPENED, Event.BROKEN, Event.OPENED]
    assert watched.versions == [10, 11]


async def test_any_garbage_ends_the_watch_and_nothing_else(follow: Callable[..., Followed]) -> None:
    rng = random.Random(4)
    good = event("ADDED", "a", 11)
    for _ in range(150):
        at = rng.randrange(len(good) - 1)
        garbled = good[:at] + rng.randbytes(rng.randrange(1, 9)) + good[at + rng.randrange(0, 4) :]
        watched = follow([garbled + b"\n", TransientError("cut")])
        await watched.until(lambda watched=watched: len(watched.events) > 1)  # type: ignore[misc]
        assert watched.source._reader is not None
        assert not watched.source._reader.done() or watched.source._reader.exception() is None
        await watched.source.close()
