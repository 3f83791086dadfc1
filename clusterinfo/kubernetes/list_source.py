"""ListSource: one kind's list within one reach as a lane of batches, page by page, with proof of what was listed.

Which lists a run has is `snapshot.py`'s business, HTTP `client.py`'s, what leaves the cluster `normalize.py`'s.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import uuid_utils

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError, RecordError, TransientError
from clusterinfo.kubernetes.client import ClusterIdentity
from clusterinfo.kubernetes.errors import ApiStatusError, ApiTransientError, PageTooLargeError
from clusterinfo.kubernetes.normalize import NORMALIZATION, NormalizedObject, Redaction, normalize
from clusterinfo.kubernetes.pages import ListPage, parse_page
from clusterinfo.model import (
    Batch,
    GroupVersionResource,
    Lane,
    ListLane,
    Outcome,
    Position,
    Receipt,
    Record,
    RecordType,
    Unit,
    digest_hex,
    item_digest,
    version_number,
)
from clusterinfo.observations import (
    ItemSetAside,
    ListEnded,
    ListRestarted,
    Observe,
    PageListed,
    Warned,
)
from clusterinfo.statements import ListCompleted, ListFailed, encode

PAGE_FAILURES = 5
"""Transient failures of one page in a row, after which its list failed: see DESIGN, "broken body"."""
TOKEN_EXPIRIES = 2
"""Continue tokens that expired, after which a kind cannot be listed faster than its server forgets."""
FIRST_PAGE_OBJECT_BYTES = 8 * 1024
FIRST_PAGE_BYTES = 2 * 1024 * 1024
"""Estimate of a page before one was seen: 8 KiB an object, at most 2 MiB, so that many small kinds start at once."""
OBJECTS_IN_A_ROW = 100
"""Objects normalised before the event loop runs again: about 5 ms."""


class PageReader(Protocol):
    """What a list needs of `KubernetesClient`; see `KubernetesClient.get_page` for its errors."""

    async def get_page(
        self, gvr: GroupVersionResource, *, namespace: str, limit: int, continue_token: str, max_bytes: int
    ) -> bytes:
        """One page of a list, whole."""


def new_id() -> str:
    """A UUIDv7: of a list or a snapshot; it carries the time of its making."""
    return str(uuid_utils.uuid7())


def utc_now() -> dt.datetime:
    """Now, aware, UTC."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """What all lists of a run share. Sizes in bytes, `page_size` in objects."""

    cluster: ClusterIdentity
    snapshot: str
    epoch: int = 0
    page_size: int = 500
    page_bytes: int = 16 * 1024 * 1024
    redaction: Redaction = field(default_factory=Redaction)
    newest: dict[ListLane, int] = field(default_factory=dict)
    """Newest list version completed by this process: kept by the lists themselves, shared by successive runs."""
    now: Callable[[], dt.datetime] = utc_now
    new_id: Callable[[], str] = new_id

    def record(self, kind: RecordType, body: bytes, unit: Unit) -> Record:
        """A statement of this run about `unit`."""
        return Record(
            type=kind,
            cluster=self.cluster.id,
            cluster_name=self.cluster.name,
            observed_at=self.now(),
            body=body,
            epoch=self.epoch,
            group=unit.group,
            resource=unit.resource,
            snapshot=self.snapshot,
        )


@dataclass(slots=True)
class _Attempt:
    """One attempt to list: everything that starts again with a new list id."""

    list_id: str
    page: int = 0
    """Number of the page to fetch next."""
    position: int = 0
    """Number of the batch to hand over next."""
    token: str = ""
    version: str | None = None
    """resourceVersion of the list: that of its first page."""
    count: int = 0
    digest: int = 0
    whole: bool = False
    """True once the last page is in hand."""
    unlike: bool = False
    """True once a page came that belongs to another list."""
    defect: str = ""
    """Why this list may not complete although all its pages came."""
    mended: int = 0
    """Items that came as no JSON, and were mended."""


class _Hold:
    """The share of the byte budget that one lane holds, and nobody but it."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.size_bytes = 0

    async def take(self, size_bytes: int) -> None:
        """Wait for `size_bytes`. A lane waits only while it holds nothing, so that lanes never wait for each other."""
        await self._budget.take(size_bytes)
        self.size_bytes += size_bytes

    def try_take(self, size_bytes: int) -> bool:
        """Take `size_bytes` if they are free now."""
        taken = self._budget.try_take(size_bytes)
        self.size_bytes += size_bytes if taken else 0
        return taken

    def resize(self, size_bytes: int) -> None:
        """Hold what is really there instead of what was expected."""
        if (more := size_bytes - self.size_bytes) > 0:
            self._budget.force(more)
        elif more < 0:
            self._budget.give_back(-more)
        self.size_bytes = size_bytes


class ListSource:
    """The batches of one list: a `pump.Source` for one `ListLane`. `close` it when its pump has ended.

    After the end (its last batch acked): `outcome`, `objects` sent, `size_bytes` downloaded, `error` ("" if completed),
    `is_too_slow` if its continue tokens expired. Before, `outcome` is None: an abandoned list is not a completed one.
    """

    def __init__(
        self,
        lane: ListLane,
        gvr: GroupVersionResource,
        pages: PageReader,
        options: ListOptions,
        *,
        budget: ByteBudget,
        observe: Observe,
    ) -> None:
        self.lane = lane
        self.gvr = gvr
        self.outcome: Outcome | None = None
        self.objects = 0
        self.size_bytes = 0
        self.error = ""
        self.is_too_slow = False
        self._pages = pages
        self._options = options
        self._observe = observe
        self._limit = options.page_size
        self._page_estimate_bytes = min(options.page_bytes, self._limit * FIRST_PAGE_OBJECT_BYTES, FIRST_PAGE_BYTES)
        self._attempt = _Attempt(options.new_id())
        self._failures = 0
        self._expiries = 0
        self._batch: Batch | None = None
        self._verdict: Outcome | None = None
        self._prefetch: asyncio.Task[bytes] | None = None
        self._batch_hold = _Hold(budget)
        self._page_hold = _Hold(budget)
        self._began_s = time.monotonic()

    # --- pump.Source -------------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Begin. `position` says nothing here: pages of an earlier attempt prove nothing about this one."""
        if lane != self.lane:
            raise FatalError(f"the source of {self.lane} was opened for {lane}")
        self._began_s = time.monotonic()

    async def read(self) -> Batch | None:
        """The next page as a batch, at the end the list's statement, then None. Raises TransientError, FatalError."""
        if self._batch is None and self.outcome is None:
            self._batch = await self._next_batch()
            self._start_prefetch()
        return self._batch

    async def ack(self, receipt: Receipt) -> None:
        """The batch is stored: give back its bytes; after the statement, the list has ended."""
        del receipt
        if self._batch is not None:
            self.objects += sum(record.is_object for record in self._batch.records)
        self._batch = None
        self._batch_hold.resize(0)
        if self._verdict is not None and self.outcome is None:
            self._end(self._verdict)

    async def restart(self) -> None:
        """Begin again under a new list id: what was sent belongs to a list that never completes."""
        await self._abandon("the lane starts again")

    async def close(self) -> None:
        """Let go of everything: the page on its way, the bytes held. Safe to call twice."""
        await self._drop_prefetch()
        self._batch = None
        self._batch_hold.resize(0)

    # --- batches -----------------------------------------------------------------------------------------------------

    async def _next_batch(self) -> Batch:
        """The next page's records; the last page's come with the list's statement, so that most lists are one batch."""
        while True:
            try:
                records = await self._page_records()
            except TransientError as error:
                if (failed := self._after_transient(error)) is None:
                    raise
                return self._hand_over([failed])
            except PageTooLargeError as error:
                return self._hand_over([self._failed(0, f"a single object passes PAGE_BYTES: {error}")])
            except ApiStatusError as error:
                if (failed := await self._after_refusal(error)) is not None:
                    return self._hand_over([failed])
            else:
                if self._attempt.whole:
                    return self._hand_over([*records, self._verdict_record()])
                if records:
                    return self._hand_over(records)

    async def _page_records(self) -> list[Record]:
        """Fetch the next page (or take the one fetched ahead), check it, turn it into records."""
        try:
            body = await self._next_body()
            page = parse_page(body, self.gvr.kind)
            size_bytes = len(body)
            del body  # the page's slices keep it alive until they are records
            self._failures = 0
            self._admit(page, size_bytes)
            return [] if self._attempt.unlike else await self._records(page)
        finally:
            self._page_hold.resize(0)

    def _admit(self, page: ListPage, size_bytes: int) -> None:
        """Take note of a whole page, and of the token of the next."""
        attempt = self._attempt
        if unlike := self._unlike(page.resource_version):
            attempt.whole = attempt.unlike = True
            attempt.defect = unlike
            return
        attempt.version = page.resource_version
        self.size_bytes += size_bytes
        self._page_estimate_bytes = max(self._page_estimate_bytes, size_bytes)
        attempt.page += 1
        attempt.token = page.continue_token
        attempt.whole = not page.continue_token
        self._observe(
            PageListed(resource=self.gvr.dotted, reach=self.lane.reach, items=len(page.items), size_bytes=size_bytes)
        )

    def _unlike(self, version: str) -> str:
        """Why a page of this resourceVersion cannot belong to this list; "" if it can."""
        if self._attempt.version not in (None, version):
            return f"page {self._attempt.page} is of resourceVersion {version}, not {self._attempt.version}"
        newest = self._options.newest.get(self.lane, 0)
        if (number := version_number(version)) is not None and number < newest:
            return (
                f"the list's resourceVersion went back from {newest} to {number}: if the cluster was restored from a "
                "backup, raise CLUSTER_EPOCH by one and restart"
            )
        return ""

    async def _records(self, page: ListPage) -> list[Record]:
        """The page's items as records; one that cannot be read is set aside and its list will not complete."""
        records: list[Record] = []
        observed_at = self._options.now()
        for number, raw in enumerate(page.items):
            if number % OBJECTS_IN_A_ROW == OBJECTS_IN_A_ROW - 1:
                await asyncio.sleep(0)
            try:
                item = normalize(raw, self.gvr, self._options.redaction)
            except RecordError as error:
                self._set_aside(str(error))
            else:
                records.append(self._record(item, observed_at))
                self._note_if_mended(item)
        return records

    def _record(self, item: NormalizedObject, observed_at: dt.datetime) -> Record:
        attempt = self._attempt
        attempt.count += 1
        attempt.digest += item_digest(item.namespace, item.name, item.resource_version)
        options = self._options
        return Record(
            type=RecordType.OBSERVED,
            cluster=options.cluster.id,
            cluster_name=options.cluster.name,
            observed_at=observed_at,
            body=item.body,
            epoch=options.epoch,
            group=self.gvr.group,
            resource=self.gvr.resource,
            namespace=item.namespace,
            name=item.name,
            snapshot=options.snapshot,
            list=attempt.list_id,
            reach=self.lane.reach,
            api_version=item.api_version,
            kind=item.kind,
            uid=item.uid,
            resource_version=item.resource_version,
            list_version=attempt.version or "",
            content_hash=item.content_hash,
            normalization=NORMALIZATION,
        )

    def _set_aside(self, reason: str) -> None:
        self._attempt.defect = self._attempt.defect or reason
        self._observe(ItemSetAside(resource=self.gvr.dotted, reason=reason))

    def _note_if_mended(self, item: NormalizedObject) -> None:
        """Say it of the first of a list: what is broken so is seldom broken once."""
        self._attempt.mended += item.is_mended
        if item.is_mended and self._attempt.mended == 1:
            named = f"{item.namespace}/{item.name}" if item.namespace else item.name
            self._observe(
                Warned(message=f"{self.gvr.dotted} {named} came as no JSON and was mended before it was sent")
            )

    def _hand_over(self, records: list[Record]) -> Batch:
        """A batch at the next position; its bodies are what the lane holds until it is acked."""
        size_bytes = sum(len(record.body) for record in records)
        self._batch_hold.resize(size_bytes)
        position = self._attempt.position
        self._attempt.position += 1
        return Batch(
            lane=self.lane,
            start=position,
            end=position + 1,
            records=records,
            size_bytes=size_bytes,
            list=self._attempt.list_id,
        )

    # --- pages -------------------------------------------------------------------------------------------------------

    async def _next_body(self) -> bytes:
        """The next page's bytes, held in the budget; on any error nothing is held."""
        task, self._prefetch = self._prefetch, None
        if task is not None:
            return await task
        await self._page_hold.take(self._page_estimate_bytes)
        return await self._fetch()

    async def _fetch(self) -> bytes:
        """One page, of fewer and fewer objects while it passes PAGE_BYTES. Its estimate has been taken already."""
        try:
            body = await self._fetch_fitting()
        except BaseException:
            self._page_hold.resize(0)
            raise
        self._page_hold.resize(len(body))
        return body

    async def _fetch_fitting(self) -> bytes:
        while True:
            try:
                return await self._pages.get_page(
                    self.gvr,
                    namespace=self.lane.reach,
                    limit=self._limit,
                    continue_token=self._attempt.token,
                    max_bytes=self._options.page_bytes,
                )
            except PageTooLargeError:
                if self._limit == 1:
                    raise
                self._limit //= 2

    def _start_prefetch(self) -> None:
        """Fetch the next page while this one is written, if the budget has room now: never wait for one's own batch."""
        if self._verdict is None and not self._attempt.whole and self._page_hold.try_take(self._page_estimate_bytes):
            self._prefetch = asyncio.create_task(self._fetch(), name=f"page {self._attempt.page} of {self.lane}")

    async def _drop_prefetch(self) -> None:
        task, self._prefetch = self._prefetch, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen: the page is not wanted any more
        self._page_hold.resize(0)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _after_transient(self, error: TransientError) -> Record | None:
        """None: try that page again; after 5 failures in a row the statement that gives the list up."""
        self._failures += 1
        if self._failures < PAGE_FAILURES:
            return None
        status = error.status if isinstance(error, ApiTransientError) else 0
        return self._failed(status, f"{self._failures} failures in a row, the last: {error}")

    async def _after_refusal(self, error: ApiStatusError) -> Record | None:
        """None: the list begins again, because its token expired; else the statement that says why it failed."""
        if error.status == 410 and self._attempt.token:
            self._expiries += 1
            if self._expiries < TOKEN_EXPIRIES:
                await self._abandon(f"the continue token expired: {error}")
                return None
            self.is_too_slow = True
            return self._failed(410, f"the continue token expired {self._expiries} times: {self._if_too_slow()}")
        if error.status == 403:
            return self._failed(403, "Forbidden", Outcome.FORBIDDEN, error.message)
        return self._failed(error.status, f"{error.reason}: {error.message}" if error.message else error.reason)

    def _if_too_slow(self) -> str:
        """What follows when the server forgets faster than this list is read."""
        if not self.gvr.namespaced or self.lane.reach:
            return "larger pages (PAGE_SIZE) take fewer requests"
        return (
            "listed namespace by namespace instead; what was in namespaces that are gone stays until a list of all "
            "completes"
        )

    def give_up(self, reason: str) -> None:
        """Before anything was read: nothing will be listed, and this is why."""
        self._batch = self._hand_over([self._failed(0, reason)])

    async def _abandon(self, reason: str) -> None:
        await self.close()
        self._attempt = _Attempt(self._options.new_id())
        self._failures = 0
        self._verdict = None
        self.error = ""
        self.objects = self.size_bytes = 0
        self._observe(ListRestarted(resource=self.gvr.dotted, reach=self.lane.reach, reason=reason))

    def _verdict_record(self) -> Record:
        """What is to be said of a list all of whose pages came."""
        return self._failed(0, self._attempt.defect) if self._attempt.defect else self._completed()

    def _completed(self) -> Record:
        completed = ListCompleted(self._attempt.count, digest_hex(self._attempt.digest))
        return self._statement(RecordType.LIST_COMPLETED, encode(completed), Outcome.COMPLETED)

    def _failed(self, http_status: int, reason: str, outcome: Outcome = Outcome.FAILED, detail: str = "") -> Record:
        self.error = f"{reason}: {detail}" if detail else reason
        failed = ListFailed(http_status, reason, sent=self._attempt.count)
        return self._statement(RecordType.LIST_FAILED, encode(failed), outcome)

    def _statement(self, kind: RecordType, body: bytes, outcome: Outcome) -> Record:
        self._verdict = outcome
        return msgspec.structs.replace(
            self._options.record(kind, body, self.lane.unit),
            list=self._attempt.list_id,
            reach=self.lane.reach,
            api_version=self.gvr.api_version,
            kind=self.gvr.kind,
            list_version=self._attempt.version or "",
            normalization=NORMALIZATION,
        )

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if outcome is Outcome.COMPLETED and (number := version_number(self._attempt.version or "")) is not None:
            self._options.newest[self.lane] = number
        self._observe(
            ListEnded(
                resource=self.gvr.dotted,
                reach=self.lane.reach,
                outcome=outcome,
                objects=self.objects,
                size_bytes=self.size_bytes,
                seconds=time.monotonic() - self._began_s,
                error=self.error,
            )
        )
