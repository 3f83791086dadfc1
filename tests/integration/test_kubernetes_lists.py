"""ListSource over real sockets, against the simulated API and its faults."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import pytest

from clusterinfo.budget import ByteBudget
from clusterinfo.model import Batch, Outcome, Receipt, RecordType, digest_hex, item_digest, list_start
from clusterinfo.observations import ItemUnreadable, ListEnded, ListRestarted, PageListed
from clusterinfo.pump import pump
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from tests.integration.lists import SNAPSHOT, Start, Stored, configmap, drain, fetching, statement, until

pytestmark = pytest.mark.embedded_only

# --- lists -----------------------------------------------------------------------------------------------------------


async def test_a_list_is_paged_and_proven(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    source = run.open("configmaps")

    batches = await drain(source)

    records = [record for batch in batches for record in batch.records if record.is_object]
    truth = [one for one in api.cluster.identities() if one.resource == "configmaps"]
    assert [len(batch.records) for batch in batches] == [10, 10, 6]
    assert [(batch.start, batch.end) for batch in batches] == [(0, 1), (1, 2), (2, 3)]
    assert {(r.namespace, r.name, r.uid, r.resource_version) for r in records} == {
        (one.namespace, one.name, one.uid, one.resource_version) for one in truth
    }
    assert len({batch.list for batch in batches} | {record.list for record in records}) == 1
    completed, body = statement(batches)
    assert completed.type is RecordType.LIST_COMPLETED
    digest = sum(item_digest(one.namespace, one.name, one.resource_version) for one in truth)
    assert body == {"count": 25, "digest": digest_hex(digest)}
    assert {record.list_version for record in [*records, completed]} == {completed.list_version}
    assert completed.list_version.isdecimal()
    result = source.result
    assert (result.outcome, result.objects, result.error) == (Outcome.COMPLETED, 25, "")
    assert result.version == completed.list_version
    (ended,) = run.observed(ListEnded)
    assert (ended.outcome, ended.objects, ended.size_bytes) == ("completed", 25, result.size_bytes)
    assert [page.items for page in run.observed(PageListed)] == [10, 10, 5]


async def test_records_are_whole(start: Start) -> None:
    run = await start(cluster_epoch=3, cluster_name="blue")
    record = (await drain(run.open("configmaps")))[0].records[0]

    assert (record.cluster_name, record.epoch, record.snapshot) == ("blue", 3, SNAPSHOT)
    assert (record.kind, record.api_version, record.resource, record.group) == ("ConfigMap", "v1", "configmaps", "")
    assert record.observed_at.tzinfo is dt.UTC
    body = json.loads(record.body)
    assert (body["kind"], body["metadata"]["name"]) == ("ConfigMap", record.name)


async def test_a_list_asks_for_a_consistent_read(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.requests.clear()

    await drain(run.open("configmaps"))

    asked = [str(vars(one) if hasattr(one, "__dict__") else one) for one in api.requests]
    assert all("limit" in one and "resourceVersion=" not in one for one in asked)
    assert len(asked) == 3


@pytest.mark.parametrize("null", [False, True])
async def test_an_empty_list_completes(api: SimulatedKubernetes, start: Start, null: bool) -> None:
    if null:
        api.faults.null_items("pods")
    run = await start()

    batches = await drain(run.open("pods"))

    assert len(batches) == 1
    assert statement(batches)[1] == {"count": 0, "digest": "0" * 32}


async def test_a_reach_lists_one_namespace(api: SimulatedKubernetes, start: Start) -> None:
    api.cluster.create("configmaps", configmap("elsewhere", namespace="default"))
    run = await start(namespaces=["default", "shop"])

    batches = await drain(run.open("configmaps", "default"))

    assert [record.name for record in batches[0].records if record.is_object] == ["elsewhere"]
    assert {record.reach for batch in batches for record in batch.records} == {"default"}


@pytest.mark.parametrize(("break_it", "retries"), [("throttle", 1), ("cut_body", 1), ("fail", 4)])
async def test_a_passing_failure_costs_nothing_but_time(
    api: SimulatedKubernetes, start: Start, break_it: str, retries: int
) -> None:
    run = await start()
    getattr(api.faults, break_it)("configmaps", times=retries)

    batches = await drain(run.open("configmaps"), retries)

    assert statement(batches)[1]["count"] == 25


async def test_a_failure_that_stays_fails_the_list(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.faults.fail("configmaps", status=500, page=2)
    source = run.open("configmaps")

    batches = await drain(source, retries=4)

    failed, body = statement(batches)
    assert failed.type is RecordType.LIST_FAILED
    assert (body["http_status"], body["sent"]) == (500, 10)
    assert (source.result.outcome, source.result.objects) == (Outcome.FAILED, 10)


async def test_a_forbidden_kind_is_reported_at_once(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.faults.forbid("configmaps")
    source = run.open("configmaps")

    batches = await drain(source)

    assert statement(batches)[1] == {"http_status": 403, "reason": "Forbidden", "sent": 0}
    assert source.result.outcome is Outcome.FORBIDDEN
    assert "configmaps" in source.result.error


async def test_a_kind_that_went_away_fails_at_once(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.faults.fail("configmaps", status=404)

    _, body = statement(await drain(run.open("configmaps")))

    assert body["http_status"] == 404


async def test_an_expired_token_starts_a_new_list(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.faults.expire_token("configmaps", after_page=1)
    source = run.open("configmaps")

    batches = await drain(source)

    assert [len(batch.records) for batch in batches] == [10, 10, 10, 6]
    assert batches[0].list not in {batch.list for batch in batches[1:]}
    assert len({batch.list for batch in batches[1:]}) == 1
    assert batches[1].start == 0
    assert statement(batches)[1]["count"] == 25
    assert source.result.objects == 25
    assert len(run.observed(ListRestarted)) == 1


# --- what cannot belong to a list ------------------------------------------------------------------------------------


async def test_pages_of_two_lists_never_complete(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.faults.wrong_resource_version("configmaps", page=2)

    batches = await drain(run.open("configmaps"))

    failed, body = statement(batches)
    assert failed.type is RecordType.LIST_FAILED
    assert "resourceVersion" in body["reason"]
    assert [len(batch.records) for batch in batches] == [10, 1]


async def test_a_page_beyond_page_bytes_is_asked_for_in_halves(api: SimulatedKubernetes, start: Start) -> None:
    for number in range(6):
        api.cluster.create("secrets", configmap(f"s-{number}") | {"data": {"v": "eHh4" * 8000}})
    run = await start(page_bytes=80 * 1024)

    batches = await drain(run.open("secrets"))

    assert statement(batches)[1]["count"] == 6
    sizes = [len(batch.records) for batch in batches]
    assert sizes in ([2, 2, 3], [1, 1, 1, 1, 1, 2]), "by how much of the first page came at once"


async def test_an_object_beyond_page_bytes_fails_the_list(api: SimulatedKubernetes, start: Start) -> None:
    api.cluster.create("secrets", configmap("huge") | {"data": {"v": "eHh4" * 50_000}})
    run = await start(page_bytes=64 * 1024)

    _, body = statement(await drain(run.open("secrets")))

    assert "PAGE_BYTES" in body["reason"]


async def test_an_item_that_is_no_object_keeps_its_list_from_completing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start()
    page = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}, {"metadata": {}}, 5]}

    async def get_page(*_: Any, **__: Any) -> bytes:
        return json.dumps(page).encode()

    monkeypatch.setattr(run.client, "get_page", get_page)

    batches = await drain(run.open("configmaps"))

    assert [record.name for record in batches[0].records if record.is_object] == ["a"]
    failed, body = statement(batches)
    assert failed.type is RecordType.LIST_FAILED
    assert "no name" in body["reason"]
    assert len(run.observed(ItemUnreadable)) == 2


@pytest.mark.parametrize(("newest", "type_"), [(9, RecordType.LIST_COMPLETED), (10, RecordType.LIST_FAILED)])
async def test_a_list_older_than_the_one_before_fails(
    start: Start, monkeypatch: pytest.MonkeyPatch, newest: int, type_: RecordType
) -> None:
    run = await start()

    async def get_page(*_: Any, **__: Any) -> bytes:
        return json.dumps({"metadata": {"resourceVersion": "9"}, "items": None}).encode()

    monkeypatch.setattr(run.client, "get_page", get_page)

    ended, body = statement(await drain(run.open("configmaps", newest=newest)))

    assert ended.type is type_
    assert ("from 10 to 9" in str(body), "CLUSTER_EPOCH" in str(body)) == (newest == 10, newest == 10)


async def test_restart_is_a_new_list(start: Start) -> None:
    run = await start()
    source = run.open("configmaps")
    await source.open(source.lane, None)
    first = await source.read()
    await source.restart()

    batches = await drain(source)

    assert first is not None
    assert batches[0].list != first.list
    assert statement(batches)[1]["count"] == 25


# --- permits to list, bytes in flight, and their release -------------------------------------------------------------


async def test_a_list_holds_its_permit_from_its_first_page_until_it_has_ended(start: Start) -> None:
    run = await start(collect_concurrency=1)
    first, second = run.open("configmaps"), run.open("namespaces")
    await first.open(first.lane, None)
    opening = asyncio.create_task(second.open(second.lane, None))
    while (batch := await first.read()) is not None:
        await asyncio.sleep(0.01)
        assert not opening.done(), "as many lists are under way as there are permits"
        await first.ack(Receipt(lane=first.lane, position=batch.end))

    async with asyncio.timeout(60):
        await opening  # and the first is not closed yet

    assert run.permits.locked()
    await second.close()
    await first.close()
    assert not run.permits.locked(), "an abandoned list returns its permit, an ended one returns none twice"
    await run.permits.acquire()
    assert run.permits.locked()


async def test_a_list_that_begins_again_goes_on_with_its_permit(api: SimulatedKubernetes, start: Start) -> None:
    run = await start(collect_concurrency=1)
    api.faults.expire_token("configmaps", after_page=1)
    source, waiting = run.open("configmaps"), run.open("namespaces")
    await source.open(source.lane, None)
    opening = asyncio.create_task(waiting.open(waiting.lane, None))
    await source.read()
    await source.restart()

    async with asyncio.timeout(60):
        batches = await drain(source)

    assert statement(batches)[1]["count"] == 25
    async with asyncio.timeout(60):
        await opening
    await waiting.close()


async def test_a_list_begins_when_it_has_its_permit(start: Start) -> None:
    """Its id carries that time, which orders units whose versions are no numbers."""
    run = await start(collect_concurrency=1)
    source = run.open("configmaps")
    await run.permits.acquire()
    draining = asyncio.create_task(drain(source))
    await asyncio.sleep(0.05)
    granted_at = dt.datetime.now(dt.UTC)
    run.permits.release()

    (batch, *_) = await draining

    assert list_start(batch.list) >= granted_at - dt.timedelta(milliseconds=2)
    assert run.observed(ListEnded)[0].seconds <= (dt.datetime.now(dt.UTC) - granted_at).total_seconds()


async def test_cancelled_while_it_waits_for_a_permit_it_holds_none(start: Start) -> None:
    run = await start(collect_concurrency=1)
    source = run.open("configmaps")
    await run.permits.acquire()
    pumping = asyncio.create_task(pump(source, Stored(), source.lane, run.seen.append))
    await asyncio.sleep(0.05)
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping

    run.permits.release()

    assert not run.permits.locked()
    await run.permits.acquire()
    assert run.permits.locked()


@pytest.mark.parametrize("step", ["read", "write"])
async def test_a_pump_cancelled_in_the_middle_releases_everything(
    api: SimulatedKubernetes, start: Start, step: str
) -> None:
    budget, sink, writing = ByteBudget(), Stored(), asyncio.Event()
    run = await start(budget=budget, collect_concurrency=1)
    api.faults.stall("configmaps", seconds=30, page=2)  # fetched ahead while page 1 is written, then awaited by a read

    async def block(_: Batch) -> None:
        writing.set()
        await asyncio.sleep(3600 if step == "write" else 0)

    sink.before_write = block
    source = run.open("configmaps")
    pumping = asyncio.create_task(pump(source, sink, source.lane, run.seen.append))
    async with asyncio.timeout(60):
        await writing.wait()
        await until(lambda: fetching() and run.permits.locked() and (sink.batches or step == "write"))
    assert budget.held_bytes > 0
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping

    assert (fetching(), budget.held_bytes, run.permits.locked()) == ([], 0, False)
    assert [record for record in sink.records if not record.is_object] == [], "nothing was completed"


async def test_lanes_share_a_small_budget_without_deadlock(api: SimulatedKubernetes, start: Start) -> None:
    for number in range(25):
        api.cluster.create("secrets", configmap(f"s-{number}", size=2000))
    budget = ByteBudget(16 * 1024)
    run = await start(budget=budget)
    names = ["configmaps", "secrets", "namespaces", "pods"] * 2

    async with asyncio.timeout(60):
        lists = await asyncio.gather(*(drain(run.open(name)) for name in names))

    assert all(statement(batches)[0].type is RecordType.LIST_COMPLETED for batches in lists)
    assert budget.held_bytes == 0


async def test_what_is_held_is_given_back_on_failure(api: SimulatedKubernetes, start: Start) -> None:
    budget = ByteBudget()
    run = await start(budget=budget)
    api.faults.fail("configmaps", status=500)

    await drain(run.open("configmaps"), retries=4)

    assert budget.held_bytes == 0


async def test_the_next_page_is_fetched_while_this_one_is_written(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    source = run.open("configmaps")
    api.requests.clear()
    await source.open(source.lane, None)

    await source.read()
    async with asyncio.timeout(60):
        while len(api.requests) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)

    assert len(api.requests) == 2
    await source.close()


@pytest.mark.parametrize("at", ["first page", "page fetched ahead"])
async def test_cancelling_a_read_leaves_nothing_behind(api: SimulatedKubernetes, start: Start, at: str) -> None:
    budget = ByteBudget()
    run = await start(budget=budget)
    source = run.open("configmaps")
    await source.open(source.lane, None)
    api.faults.stall("configmaps", seconds=30, page=1 if at == "first page" else 2)
    if at != "first page":
        batch = await source.read()
        assert batch is not None
        await asyncio.sleep(0.05)
        await source.ack(Receipt(lane=source.lane, position=batch.end))

    reading = asyncio.create_task(source.read())
    await asyncio.sleep(0.1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert fetching() == []
    assert budget.held_bytes == 0
    assert source.result.outcome is not Outcome.COMPLETED, "an abandoned list is not a completed one"


async def test_close_cancels_the_page_fetched_ahead(api: SimulatedKubernetes, start: Start) -> None:
    budget = ByteBudget()
    run = await start(budget=budget)
    source = run.open("configmaps")
    await source.open(source.lane, None)
    api.faults.stall("configmaps", seconds=30, page=2)
    await source.read()
    await asyncio.sleep(0.05)

    await source.close()

    assert fetching() == []
    assert budget.held_bytes == 0
