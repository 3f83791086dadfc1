"""Servers that never end a list, or send what is no page: each list fails in its own words, in bounded memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from clusterinfo.budget import ByteBudget
from clusterinfo.kubernetes import list_source
from clusterinfo.kubernetes.errors import PageTooLargeError
from clusterinfo.kubernetes.list_source import LARGE_ITEM_BYTES, Alone, Beside, ListContext, ListSource
from clusterinfo.kubernetes.list_state import EMPTY_PAGES
from clusterinfo.kubernetes.normalize import normalize_members
from clusterinfo.kubernetes.pages import MAX_ITEMS
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.model import Batch, GroupVersionResource, ListLane, Outcome, Receipt, Unit
from clusterinfo.observations import ItemUnreadable, ListAbandoned, ListEnded, Observation

WIDGETS = GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", namespaced=True)
LANE = ListLane(Unit("c", WIDGETS.group, WIDGETS.resource))
MIB = 1024 * 1024

Answer = Callable[[int, int, str], Awaitable[bytes]]
"""(number of the request, limit, continue token) -> the body."""


def page(*items: Any, token: str = "", version: str = "7") -> bytes:
    metadata = {"resourceVersion": version, "continue": token}
    return json.dumps({"kind": "WidgetList", "metadata": metadata, "items": list(items)}).encode()


def widget(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", **metadata}}


class Server:
    """What an API answers, as the client hands it over; `limits` are those it was asked for."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.limits: list[int] = []

    async def get_page(
        self, gvr: GroupVersionResource, *, namespace: str, limit: int, continue_token: str, max_bytes: int
    ) -> bytes:
        assert (gvr, namespace) == (WIDGETS, "")
        self.limits.append(limit)
        body = await self._answer(len(self.limits), limit, continue_token)
        if len(body) > max_bytes:
            raise PageTooLargeError(max_bytes, body[:max_bytes])
        return body


class Listed:
    """A list that was read to its end: its source, what was observed, its records' names."""

    def __init__(self, answer: Answer, beside: Beside | None = None, **given: Any) -> None:
        self.server = Server(answer)
        self.seen: list[Observation] = []
        self.names: list[str] = []
        context = ListContext(
            pages=self.server,
            recorder=Recorder(cluster="c", cluster_name="c", snapshot="019ab000-0000-7000-8000-000000000000"),
            budget=ByteBudget(),
            permits=asyncio.Semaphore(1),
            observe=self.seen.append,
            **given,
        )
        self.permits = context.permits
        self.source = ListSource(LANE, WIDGETS, context, beside=beside)

    async def read(self) -> Listed:
        async with asyncio.timeout(60):
            await self.source.open(LANE, None)
            while batch := await self.source.read():
                await self._take(batch)
            await self.source.close()
        return self

    async def _take(self, batch: Batch) -> None:
        self.names += [record.name for record in batch.records if record.is_object]
        await self.source.ack(Receipt(lane=LANE, position=batch.end))

    @property
    def error(self) -> str:
        result = self.source.result
        assert (result.outcome is Outcome.COMPLETED) == (result.error == "")
        return result.error


async def listed(answer: Answer, **given: Any) -> Listed:
    return await Listed(answer, **given).read()


@pytest.mark.parametrize("reads", [0, 1, 2])
async def test_one_that_is_closed_before_its_end_says_so_once(reads: int) -> None:
    async def answer(number: int, _: int, __: str) -> bytes:
        return page(widget(f"w-{number}"), token=f"token-{number}" if number < 2 else "")

    one = Listed(answer)
    await one.source.open(LANE, None)
    for _ in range(reads):
        batch = await one.source.read()
        assert batch is not None
        await one.source.ack(Receipt(lane=LANE, position=batch.end))
    await one.source.close()
    await one.source.close()
    ends = [seen for seen in one.seen if isinstance(seen, ListAbandoned | ListEnded)]
    assert [type(end) for end in ends] == [ListEnded if reads == 2 else ListAbandoned]


# --- lists that never end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7])
async def test_a_continue_token_that_repeats_fails_the_list(length: int) -> None:
    async def answer(number: int, _: int, __: str) -> bytes:
        return page(widget(f"w-{number}"), token=f"token-{number % length}")

    found = await listed(answer)

    assert "continue token" in found.error
    assert "came before" in found.error
    assert len(found.server.limits) == length + 1
    assert found.names == [f"w-{number}" for number in range(1, length + 1)]


async def test_pages_without_an_item_have_a_bound() -> None:
    async def answer(number: int, _: int, __: str) -> bytes:
        return page(token=f"token-{number}")

    found = await listed(answer)

    assert f"{EMPTY_PAGES} pages in a row without an item" in found.error
    assert len(found.server.limits) == EMPTY_PAGES


async def test_pages_without_an_item_between_others_are_in_order() -> None:
    last = 2 * EMPTY_PAGES + 10

    async def answer(number: int, _: int, __: str) -> bytes:
        items = [widget(f"w-{number}")] if number % 900 == 0 else []
        return page(*items, token="" if number == last else f"token-{number}")

    assert (await listed(answer)).error == ""


async def test_a_list_that_takes_too_long_fails_whatever_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(number: int, _: int, __: str) -> bytes:
        await asyncio.sleep(0.05)
        return page(widget(f"w-{number}"), token=f"token-{number}")

    async def never(_: int, __: int, ___: str) -> bytes:
        await asyncio.sleep(600)
        return b""

    endless = await listed(answer, within_s=2)
    silent = await listed(never, within_s=0.2)

    assert "not listed within 2 s (LIST_TIMEOUT), only " in endless.error
    assert f"with {len(endless.names)} objects" in endless.error
    assert 0 < len(endless.names) < 100
    assert silent.error == "not listed within 0.2 s (LIST_TIMEOUT), only 0 pages with 0 objects"


async def test_the_time_of_a_list_goes_on_when_it_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sink was away for long: by the time it is back, the list's time is up."""

    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(widget("w"), token="more")

    now_s = 1000.0
    monkeypatch.setattr(list_source, "time", SimpleNamespace(monotonic=lambda: now_s, perf_counter=time.perf_counter))
    found = Listed(answer, within_s=60)
    await found.source.open(LANE, None)
    batch = await found.source.read()
    now_s += 61
    await found.source.ack(Receipt(lane=LANE, position=1))

    assert batch is not None
    await found.source.read()
    await found.source.ack(Receipt(lane=LANE, position=2))

    assert "LIST_TIMEOUT" in found.error
    await found.source.close()


# --- servers that ignore `limit` -------------------------------------------------------------------------------------


async def test_a_server_that_ignores_limit_and_fits_is_listed() -> None:
    async def answer(_: int, limit: int, __: str) -> bytes:
        return page(*(widget(f"w-{number}") for number in range(4 * limit)))

    found = await listed(answer, page_size=50)

    assert (found.error, len(found.names), len(found.server.limits)) == ("", 200, 1)


async def test_a_server_that_ignores_limit_and_does_not_fit_is_named_for_what_it_is() -> None:
    """400 items of 50 kB, whatever is asked for."""
    body = page(*(widget(f"w-{number}", annotations={"a": "x" * 50_000}) for number in range(400)))

    async def answer(_: int, __: int, ___: str) -> bytes:
        return body

    found = await listed(answer)

    assert "the server ignores `limit`, which was 250" in found.error
    assert "PAGE_BYTES" in found.error
    assert found.server.limits == [500, 250]


async def test_a_single_object_that_does_not_fit_is_named_for_what_it_is() -> None:
    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(widget("w", annotations={"a": "x" * 200_000}))

    found = await listed(answer, page_bytes=100_000)

    assert "a single object passes PAGE_BYTES" in found.error
    assert len(found.server.limits) <= 2


DENSE = {
    "numbers": b"1," * (8 * MIB - 100) + b"1",
    "empty objects": b"{}," * (5 * MIB) + b"{}",
    "strings": b'"",' * (5 * MIB) + b'""',
    "objects without a name": b'{"metadata":{}},' * (MIB - 100) + b"{}",
}


@pytest.mark.parametrize("what", DENSE)
async def test_a_page_of_millions_of_items_takes_no_memory_and_no_time(what: str) -> None:
    body = b'{"kind":"WidgetList","metadata":{"resourceVersion":"7"},"items":[' + DENSE[what] + b"]}"

    async def answer(_: int, __: int, ___: str) -> bytes:
        return body

    _, longest_s = await watched(listed(answer))
    tracemalloc.start()
    try:
        found = await listed(answer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert "the server ignores `limit`" in found.error
    assert f"{MAX_ITEMS} objects" in found.error or "objects came in one page" in found.error
    assert peak < 80 * MIB, peak
    assert longest_s < 1, "some 0.1 s"


async def watched(work: Awaitable[Any]) -> tuple[Any, float]:
    """The result, and the most processor time in seconds for which nothing else had its turn."""
    longest, last = 0.0, time.process_time()

    async def tick() -> None:
        nonlocal longest, last
        for _ in count():
            await asyncio.sleep(0.001)
            now = time.process_time()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    result = await work
    ticking.cancel()
    return result, longest


# --- what no API server would take -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (widget("n" * 254), "an item's name has 254 characters, Kubernetes allows 253"),
        (widget("one", namespace="n" * 64), "an item's namespace has 64 characters, Kubernetes allows 63"),
        (widget("one", uid="u" * 9000), "the uid, versions and kind of one have 9026 characters, at most 8192"),
        (widget("one") | {"kind": "K" * 9000}, "the uid, versions and kind of one have "),
    ],
)
async def test_names_beyond_the_limits_of_the_api_fail_their_list(item: dict[str, Any], why: str) -> None:
    item["metadata"].setdefault("resourceVersion", "5")

    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(widget("before"), item, widget("after"))

    found = await listed(answer)

    assert why in found.error
    assert found.names == ["before", "after"]
    assert [why in one.reason for one in found.seen if isinstance(one, ItemUnreadable)] == [True]


async def test_names_within_the_limits_are_listed() -> None:
    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(widget("n" * 253, namespace="s" * 63))

    assert (await listed(answer)).error == ""


async def test_a_list_version_that_no_message_could_hold_fails_the_list() -> None:
    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(widget("one"), version="v" * 70_000)

    assert "the list's resourceVersion has 70000 characters" in (await listed(answer)).error


async def test_thousands_of_unreadable_items_are_told_a_few_times() -> None:
    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(*[5] * 5000, widget("one"))

    found = await listed(answer)

    assert found.names == ["one"]
    assert 0 < len([one for one in found.seen if isinstance(one, ItemUnreadable)]) <= 10


# --- beside the event loop -------------------------------------------------------------------------------------------


async def test_a_large_object_is_normalised_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []
    loop = asyncio.get_running_loop()

    def noted(*arguments: Any) -> Any:
        try:
            threads.append(asyncio.get_running_loop() is loop)
        except RuntimeError:
            threads.append(False)
        return normalize_members(*arguments)

    monkeypatch.setattr(list_source, "normalize_members", noted)

    async def answer(_: int, __: int, ___: str) -> bytes:
        return page(widget("small"), widget("large", annotations={"a": "x" * LARGE_ITEM_BYTES}))

    found = await listed(answer)

    assert (found.names, threads) == (["small", "large"], [True, False])


async def test_all_pages_are_dated_by_the_first() -> None:
    """They show one version: at a moment in between nothing may be missing that a later page has."""
    clock = iter(dt.datetime(2026, 1, 1, 0, 0, second, tzinfo=dt.UTC) for second in range(60))

    async def answer(request: int, limit: int, token: str) -> bytes:
        return page(widget(f"w{request}"), token="" if request == 3 else str(request))

    listed = Listed(answer, now=lambda: next(clock))
    await listed.source.open(LANE, None)
    dates = []
    while batch := await listed.source.read():
        dates += [record.observed_at for record in batch.records if record.is_object]
        await listed.source.ack(Receipt(lane=LANE, position=batch.end))
    assert len(dates) == 3
    assert len(set(dates)) == 1


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_list_that_waits_for_its_watch_keeps_no_other_from_listing(*, is_running: bool) -> None:
    class Waiting(Alone):
        def __init__(self) -> None:
            self.is_running = is_running
            self.waits, self.is_over = asyncio.Event(), asyncio.Event()

        async def began(self, version: str, seen: dt.datetime) -> None:
            self.waits.set()
            await self.is_over.wait()

    async def answer(request: int, limit: int, token: str) -> bytes:
        return page(widget(f"w{request}"))

    beside = Waiting()
    one = Listed(answer, beside)
    reading = asyncio.create_task(one.read())
    await beside.waits.wait()
    assert one.permits.locked() is not is_running
    beside.is_over.set()
    assert (await reading).names == ["w1"]
    assert not one.permits.locked()
