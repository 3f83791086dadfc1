"""ListSource: one unit's list within one reach as a lane of batches, page by page, with proof of what was listed.

The shell around `list_state.py`: it fetches, also ahead, within the byte budget and with a permit to list, and hands
over. HTTP is `client.py`'s concern, what leaves the cluster `normalize.py`'s.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import uuid_utils

from clusterinfo.budget import ByteBudget, Share
from clusterinfo.errors import FatalError, RecordError, TransientError
from clusterinfo.kubernetes.errors import ApiStatusError, ApiTransientError, PageTooLargeError
from clusterinfo.kubernetes.list_state import ListState, Verdict, too_long
from clusterinfo.kubernetes.normalize import NormalizedObject, normalize, normalize_members
from clusterinfo.kubernetes.pages import (
    MAX_ITEMS,
    ListPage,
    Members,
    Slice,
    SplitPage,
    count_items,
    is_crowded,
    is_dense,
    parse_page,
    split_page,
)
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.model import Batch, GroupVersionResource, Lane, ListLane, Outcome, Position, Receipt, Record
from clusterinfo.observations import (
    ItemUnreadable,
    ListAbandoned,
    ListEnded,
    ListRestarted,
    Observe,
    PageListed,
    Warned,
)
from clusterinfo.settings import LIST_TIMEOUT_S
from clusterinfo.statements import ListCompleted

FIRST_PAGE_OBJECT_BYTES = 8 * 1024
FIRST_PAGE_BYTES = 2 * 1024 * 1024
"""Estimate of a page before one was seen: 8 KiB an object, at most 2 MiB, so that many small kinds start at once."""
OBJECTS_IN_A_ROW, IN_A_ROW_S = 100, 0.005
"""Objects normalised before the event loop runs again, and for how long: whichever is over first."""
LARGE_PAGE_BYTES, LARGE_ITEM_BYTES = 1024 * 1024, 32 * 1024
"""What is longer is read in a thread, beside the event loop: what is strange about it may take its time. Not in the one
thread of `offload`, where every other list would wait for it."""
UNREADABLE_TOLD = 10
"""Items of a list of which it is told why they cannot be read."""


class _OverdueError(Exception):
    """A list has taken longer than it may."""


class _NoPageError(Exception):
    """What the server sends instead of a page is the same however often it is asked."""


class PageReader(Protocol):
    """What a list needs of `KubernetesClient`; see `KubernetesClient.get_page` for its errors."""

    async def get_page(
        self, gvr: GroupVersionResource, *, namespace: str, limit: int, continue_token: str, max_bytes: int
    ) -> bytes:
        """One page of a list, whole."""


class Beside(Protocol):
    """What runs beside a list: the watch that follows it, if there is one."""

    @property
    def is_running(self) -> bool:
        """True of a watch that ran before the list: what it has read comes first, which may take two minutes."""

    async def began(self, version: str, seen: dt.datetime) -> None:
        """The first page of the list, or of another attempt at it, has come, of this resourceVersion; nothing of it is
        sent before this returns.
        """

    def complete(self, statement: ListCompleted) -> ListCompleted:
        """The list's statement, which is sent next, with what follows it."""


class Alone:
    """Nothing runs beside the list."""

    is_running = False

    async def began(self, version: str, seen: dt.datetime) -> None:
        """Nobody waits for it."""

    def complete(self, statement: ListCompleted) -> ListCompleted:
        """Nothing follows."""
        return statement


def new_id() -> str:
    """A UUIDv7: of a list, a snapshot or a session; it carries the time of its making."""
    return str(uuid_utils.uuid7())


def utc_now() -> dt.datetime:
    """Now, aware, UTC."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListContext:
    """What all lists of a run share. Sizes in bytes, `page_size` in objects."""

    pages: PageReader
    recorder: Recorder
    budget: ByteBudget
    permits: asyncio.Semaphore
    """As many lists are under way at once: each takes one before its first page, and returns it when it has ended."""
    observe: Observe
    redaction: Redaction = field(default_factory=Redaction)
    page_size: int = 500
    page_bytes: int = 16 * 1024 * 1024
    within_s: float = LIST_TIMEOUT_S
    """How long a list may take, from its first page on, however often it begins again."""
    now: Callable[[], dt.datetime] = utc_now
    new_id: Callable[[], str] = new_id


class ListPermit:
    """One list's permit: held from before its first page until it has ended, however often it begins again, or until it
    waits for the watch beside it.
    """

    def __init__(self, permits: asyncio.Semaphore) -> None:
        self._permits = permits
        self._is_held = False

    async def take(self) -> None:
        """Wait for it, unless it is held already. Safe to cancel."""
        if not self._is_held:
            await self._permits.acquire()
            self._is_held = True

    def give_back(self) -> None:
        """Return it, if it is held."""
        if self._is_held:
            self._is_held = False
            self._permits.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListResult:
    """How a list fared; one that did not end has failed. `error` is "" where it completed or did not end."""

    outcome: Outcome
    objects: int
    """Sent."""
    size_bytes: int
    """Downloaded."""
    error: str = ""
    is_too_slow: bool = False
    """True if its continue tokens expired."""
    version: str = ""
    """resourceVersion of the list; "" before its first page."""
    ordering: str = ""
    """As its records said it: `model.CLOCK`, or "" by version."""
    completed: ListCompleted | None = None
    """What it stated, if it completed."""


class ListSource:
    """The batches of one list: a `pump.Source` for one `ListLane`, made for one pump. Its `result` is read afterwards.

    `newest`: the version at which this list was last seen whole (0: never); `ordering`: what is known of it (see
    `ordering.py`). With a `failure` there is nothing to list: the list only reports that it failed, and why.
    """

    def __init__(
        self,
        lane: ListLane,
        gvr: GroupVersionResource,
        context: ListContext,
        *,
        newest: int = 0,
        ordering: str = "",
        failure: str = "",
        beside: Beside | None = None,
    ) -> None:
        self.lane = lane
        self.gvr = gvr
        self._context = context
        self._beside = beside or Alone()
        self._failure = failure
        self._limit = context.page_size
        self._page_estimate_bytes = min(context.page_bytes, self._limit * FIRST_PAGE_OBJECT_BYTES, FIRST_PAGE_BYTES)
        self._permit = ListPermit(context.permits)
        self._batch_share = Share(context.budget)
        self._page_share = Share(context.budget)
        self._prefetch: asyncio.Task[bytes] | None = None
        self._began_s = 0.0
        self._begin(ListState(lane, gvr, "", newest=newest, ordering=ordering))

    def _begin(self, attempt: ListState) -> None:
        """Everything that starts again with a new list id."""
        self._list = attempt
        self._has_ended = False
        self._verdict: Verdict | None = None
        self._batch: Batch | None = None
        self._batches = 0
        self._repaired = self._unreadable = 0
        self._objects = self._size_bytes = 0
        self._seen = dt.datetime.min.replace(tzinfo=dt.UTC)

    @property
    def result(self) -> ListResult:
        """How it fared so far."""
        verdict = self._verdict if self._has_ended else None
        return ListResult(
            outcome=verdict.outcome if verdict else Outcome.FAILED,
            objects=self._objects,
            size_bytes=self._size_bytes,
            error=verdict.error if verdict else "",
            is_too_slow=verdict is not None and verdict.is_too_slow,
            version=self._list.version or "",
            ordering=self._list.ordering,
            completed=verdict.statement if verdict and isinstance(verdict.statement, ListCompleted) else None,
        )

    # --- pump.Source -------------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Begin, once there is a permit. `position` is not used: an earlier attempt proves nothing about this."""
        if lane != self.lane:
            raise FatalError(f"the source of {self.lane} was opened for {lane}")
        await self._permit.take()
        self._began_s = time.monotonic()
        self._begin(self._list.again(self._context.new_id()))  # only now: the id carries the time at which it began

    async def read(self) -> Batch | None:
        """The next page as a batch, at the end the list's statement, then None. Raises TransientError, FatalError."""
        if self._batch is None and not self._has_ended:
            self._batch = await self._next_batch()
            self._start_prefetch()
        return self._batch

    async def ack(self, receipt: Receipt) -> None:
        """The batch is stored: give back its bytes; after the statement, the list has ended."""
        del receipt
        if self._batch is not None:
            self._objects += sum(record.is_object for record in self._batch.records)
        self._batch = None
        self._batch_share.resize(0)
        if self._verdict is not None and not self._has_ended:
            self._end()

    async def restart(self) -> None:
        """Drop what was fetched; what was sent belongs to a list that never completes. `open` begins another."""
        await self._drop()
        self._observe_restart("the lane starts again")

    async def close(self) -> None:
        """Release everything: the page on its way, the bytes, the permit. Safe to call twice."""
        try:
            await self._drop()
        finally:
            self._permit.give_back()
            if not self._has_ended:
                self._has_ended = True
                self._context.observe(ListAbandoned(resource=self.gvr.dotted, reach=self.lane.reach))

    # --- batches -----------------------------------------------------------------------------------------------------

    async def _next_batch(self) -> Batch:
        """The next page's records; the last page's come with the list's statement, so that most lists are one batch."""
        if self._failure:
            return self._hand_over([], self._list.failed(0, self._failure))
        while True:
            records: list[Record] = []
            try:
                records = await self._page_records_in_time()
                verdict = self._list.verdict() if self._list.is_whole else None
            except (_OverdueError, _NoPageError) as error:
                verdict = self._list.failed(0, str(error))
            except TransientError as error:
                status = error.status if isinstance(error, ApiTransientError) else 0
                if (verdict := self._list.after_failure(status, str(error))) is None:
                    raise
            except ApiStatusError as error:
                if (verdict := self._list.after_refusal(error.status, error.reason, error.message)) is None:
                    await self._list_again(f"the continue token expired: {error}")
            if records or verdict:
                return self._hand_over(records, verdict)

    async def _page_records_in_time(self) -> list[Record]:
        """`_page_records`; raises _OverdueError once the list has taken too long."""
        left_s = self._began_s + self._context.within_s - time.monotonic()
        if left_s > 0:
            limit = asyncio.timeout(left_s)
            try:
                async with limit:
                    return await self._page_records()
            except TimeoutError:
                if not limit.expired():
                    raise
        came = f"{self._list.pages} pages with {self._list.count} objects"
        raise _OverdueError(f"not listed within {self._context.within_s:g} s (LIST_TIMEOUT), only {came}")

    async def _list_again(self, reason: str) -> None:
        await self._drop()
        self._begin(self._list.again(self._context.new_id()))
        self._observe_restart(reason)

    async def _page_records(self) -> list[Record]:
        """Fetch the next page (or take the one fetched ahead), check it, turn it into records.

        Nothing of it is counted before the last wait: cancelled, the page is still the next one. All pages show what
        there was when the first one came.
        """
        try:
            body = await self._next_body()
            page = await self._parsed(body)
            size_bytes = len(body)
            if self._list.version is None:
                self._seen = self._context.now()
                await self._begun(page.resource_version)
            items = await self._normalized(page, body)
            del body  # the page's slices keep it alive until they are records
            if not self._list.admit(page):
                return []
            self._count_page(page, size_bytes)
            return self._records(items, self._seen)
        finally:
            self._page_share.resize(0)

    async def _begun(self, version: str) -> None:
        """Tell whoever watches beside it. A list that waits for its watch keeps no other from a permit, and goes on
        without: what it holds of the budget would else be waited for by those that have all permits.
        """
        if self._beside.is_running:
            self._permit.give_back()
        await self._beside.began(version, self._seen)

    def _count_page(self, page: ListPage | SplitPage, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        self._page_estimate_bytes = max(self._page_estimate_bytes, size_bytes)
        self._context.observe(
            PageListed(resource=self.gvr.dotted, reach=self.lane.reach, items=len(page.items), size_bytes=size_bytes)
        )

    async def _parsed(self, body: bytes) -> ListPage | SplitPage:
        """The page that `body` is. Raises TransientError, and _NoPageError if it has too many items."""
        is_large = len(body) > LARGE_PAGE_BYTES
        if is_dense(body) and await asyncio.to_thread(count_items, body) > MAX_ITEMS:
            raise _NoPageError(f"{self._ignores_limit()}: more than {MAX_ITEMS} objects came in one page")
        parse: Callable[[bytes, str], ListPage | SplitPage] = parse_page if is_crowded(body) else split_page
        page = await asyncio.to_thread(parse, body, self.gvr.kind) if is_large else parse(body, self.gvr.kind)
        if len(page.items) > MAX_ITEMS:
            raise _NoPageError(f"{self._ignores_limit()}: {len(page.items)} objects came in one page")
        return page

    def _ignores_limit(self) -> str:
        return f"the server ignores `limit`, which was {self._limit}"

    async def _normalized(self, page: ListPage | SplitPage, body: bytes) -> list[NormalizedObject | str]:
        """The page's items, or why one cannot be read (not as an error, which would keep its item alive)."""
        items: list[NormalizedObject | str] = []
        whole: list[Slice] = []
        rested_s = time.perf_counter()
        found_in: Sequence[Slice | Members] = page.items
        for number, item in enumerate(found_in):
            if (number + 1) % OBJECTS_IN_A_ROW == 0 or time.perf_counter() - rested_s > IN_A_ROW_S:
                await asyncio.sleep(0)
                rested_s = time.perf_counter()
            found = await self._normalized_item(item)
            if found is None:
                whole = whole or (await asyncio.to_thread(parse_page, body, self.gvr.kind)).items
                found = await self._normalized_item(whole[number])
            assert found  # what is read as a whole is an object, or there is a reason
            items.append(found)
        return items

    async def _normalized_item(self, item: Slice | Members) -> NormalizedObject | str | None:
        is_large = _size_bytes(item) > LARGE_ITEM_BYTES
        return await asyncio.to_thread(self._normalize, item) if is_large else self._normalize(item)

    def _normalize(self, item: Slice | Members) -> NormalizedObject | str | None:
        """The item, or why it cannot be read; None of one that was split and has to be read as a whole."""
        if isinstance(item, dict):
            return normalize_members(item, self.gvr, self._context.redaction)
        try:
            return normalize(item, self.gvr, self._context.redaction)
        except RecordError as error:
            return str(error)

    def _records(self, items: Iterable[NormalizedObject | str], observed_at: dt.datetime) -> list[Record]:
        """A page's items as records; one that cannot be read or came before is skipped: its list will not complete."""
        records: list[Record] = []
        context, listed = self._context, self._list
        for item in items:
            why = item if isinstance(item, str) else _why_not(item)
            if isinstance(item, str) or why:
                self._skip(why)
            elif listed.add(item.namespace, item.name, item.resource_version):
                records.append(context.recorder.observed(item, listed, observed_at))
                if item.is_repaired:
                    self._warn_of_repair(item)
        return records

    def _skip(self, why: str) -> None:
        """An item that cannot be read; of many the first are told."""
        self._list.skip(why)
        self._unreadable += 1
        if self._unreadable <= UNREADABLE_TOLD:
            self._context.observe(ItemUnreadable(resource=self.gvr.dotted, reason=why))

    def _warn_of_repair(self, item: NormalizedObject) -> None:
        """Of the first of a list: what is broken so is seldom broken once."""
        self._repaired += 1
        if self._repaired == 1:
            named = f"{item.namespace}/{item.name}" if item.namespace else item.name
            self._context.observe(
                Warned(message=f"{self.gvr.dotted} {named} came as no JSON and was repaired before it was sent")
            )

    def _hand_over(self, records: list[Record], verdict: Verdict | None) -> Batch:
        """The next batch, with the list's statement once there is a verdict; the lane holds its bodies until acked."""
        self._verdict = verdict
        if verdict is not None:
            context, statement = self._context, verdict.statement
            if isinstance(statement, ListCompleted):
                statement = self._beside.complete(statement)
            records = [*records, context.recorder.list_ended(statement, self._list, context.now())]
        size_bytes = sum(len(record.body) for record in records)
        self._batch_share.resize(size_bytes)
        start = self._batches
        self._batches += 1
        return Batch(
            lane=self.lane, start=start, end=start + 1, records=records, size_bytes=size_bytes, list=self._list.id
        )

    # --- pages -------------------------------------------------------------------------------------------------------

    async def _next_body(self) -> bytes:
        """The next page's bytes, held in the budget; on any error nothing is held."""
        task, self._prefetch = self._prefetch, None
        if task is not None:
            return await task
        await self._page_share.take(self._page_estimate_bytes)
        return await self._fetch()

    async def _fetch(self) -> bytes:
        """One page, of fewer and fewer objects while it passes PAGE_BYTES. Its estimate has been taken already."""
        try:
            body = await self._fetch_fitting()
        except BaseException:
            self._page_share.resize(0)
            raise
        self._page_share.resize(len(body))
        return body

    async def _fetch_fitting(self) -> bytes:
        """Raises _NoPageError if fewer objects do not help."""
        while True:
            try:
                return await self._context.pages.get_page(
                    self.gvr,
                    namespace=self.lane.reach,
                    limit=self._limit,
                    continue_token=self._list.token,
                    max_bytes=self._context.page_bytes,
                )
            except PageTooLargeError as error:
                self._limit = await self._fewer(error)

    async def _fewer(self, error: PageTooLargeError) -> int:
        """How many objects to ask for next: about those that fitted, at most half. Raises _NoPageError."""
        came = await asyncio.to_thread(count_items, error.beginning)
        if came > self._limit:
            sent = f"{came - 1} objects and more came in an answer of more than {error.limit_bytes} bytes (PAGE_BYTES)"
            raise _NoPageError(f"{self._ignores_limit()}: {sent}")
        if self._limit == 1:
            raise _NoPageError(f"a single object passes PAGE_BYTES: {error}")
        return max(1, min(self._limit // 2, came))

    def _start_prefetch(self) -> None:
        """Fetch the next page while this one is written, if the budget has room now: never wait for one's own batch."""
        if self._verdict is None and self._page_share.try_take(self._page_estimate_bytes):
            self._prefetch = asyncio.create_task(self._fetch(), name=f"page {self._list.pages} of {self.lane}")

    async def _drop(self) -> None:
        """Forget the batch in hand and the page on its way; nothing is held afterwards."""
        self._batch = None
        self._batch_share.resize(0)
        task, self._prefetch = self._prefetch, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen: the page is not wanted any more
        self._page_share.resize(0)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The statement is stored."""
        self._has_ended = True
        self._permit.give_back()
        result = self.result
        self._context.observe(
            ListEnded(
                resource=self.gvr.dotted,
                reach=self.lane.reach,
                outcome=result.outcome,
                objects=result.objects,
                size_bytes=result.size_bytes,
                seconds=time.monotonic() - self._began_s,
                error=result.error,
            )
        )

    def _observe_restart(self, reason: str) -> None:
        self._context.observe(ListRestarted(resource=self.gvr.dotted, reach=self.lane.reach, reason=reason))


def _size_bytes(item: Slice | Members) -> int:
    if isinstance(item, dict):
        return sum(map(len, item)) + sum(map(len, item.values()))
    return memoryview(item).nbytes


def _why_not(item: NormalizedObject) -> str:
    """Why no API server would have taken it; "" if one would."""
    return too_long(item.namespace, item.name, item.uid, item.resource_version, item.api_version, item.kind)
