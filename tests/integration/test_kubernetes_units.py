"""A unit over real sockets: the list that was asked for and, if its server forgets too fast, one of each namespace."""

from __future__ import annotations

import asyncio

import pytest

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import RestartError
from clusterinfo.model import Batch, ListLane, Outcome, RecordType
from clusterinfo.observations import LaneEnded, ListEnded, ListRestarted
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from tests.integration.lists import Start, Stored, fetching, statements_of, until

pytestmark = [pytest.mark.usefixtures("no_waiting"), pytest.mark.embedded_only]


async def test_a_unit_is_one_list_in_one_lane(start: Start) -> None:
    run, sink = await start(), Stored()

    result = await run.unit("configmaps", sink).run()

    assert (result.outcome, result.objects, result.error) == (Outcome.COMPLETED, 25, "")
    assert result.size_bytes == run.observed(ListEnded)[0].size_bytes > 0
    assert [str(lane) for lane in sink.opened] == ["configmaps"]
    assert [(str(lane), one.outcome) for lane, one in run.results] == [("configmaps", Outcome.COMPLETED)]


async def test_after_two_expiries_a_kind_is_listed_namespace_by_namespace(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    run, sink = await start(page_size=30), Stored()
    api.faults.expire_token("configmaps", times=None)

    result = await run.unit("configmaps", sink).run()

    stated = statements_of(sink.batches)
    assert list(stated) == ["", *many_namespaces]
    kind, body = stated.pop("")
    assert (kind, body["http_status"]) == (RecordType.LIST_FAILED, 410)
    assert "namespace by namespace" in body["reason"]
    assert {kind for kind, _ in stated.values()} == {RecordType.LIST_COMPLETED}
    assert {name: body["count"] for name, (_, body) in stated.items() if body["count"]} == {
        **{name: 3 for name in many_namespaces if name.startswith("team")},
        "shop": 25,
    }
    lists = {(record.reach, record.list) for record in sink.records if record.reach}
    assert len(lists) == len(many_namespaces) == len({list_id for _, list_id in lists}), "each is a list of its own"
    assert (result.outcome, result.objects, result.error) == (Outcome.COMPLETED, 25 + 36, "")
    assert result.size_bytes > sum(one.size_bytes for lane, one in run.results if lane.reach)


async def test_namespaces_take_no_longer_together_than_a_list_may(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    run, sink = await start(page_size=30), Stored()
    api.faults.expire_token("configmaps", times=None)
    written: list[Batch] = []

    async def slow(batch: Batch) -> None:
        written.append(batch)
        reaches = {one.records[0].reach for one in written}
        await asyncio.sleep(3.1 if len(reaches) == 3 else 0)  # the whole list has failed, and two namespaces came

    sink.before_write = slow
    unit = run.unit("configmaps", sink)
    unit._within_s = 3

    result = await unit.run()

    assert result.outcome is Outcome.FAILED
    stated = statements_of(sink.batches)
    failure = stated.pop("")[1]["reason"]
    done = f"{len(stated)} of {len(many_namespaces)} namespaces"
    assert failure == f"only {done} were listed within 3 s (LIST_TIMEOUT)"
    assert 0 < len(stated) < len(many_namespaces)
    assert {kind for kind, _ in stated.values()} == {RecordType.LIST_COMPLETED}


async def test_each_namespace_has_a_lane_and_a_pump_of_its_own(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    run, sink = await start(page_size=30), Stored()
    api.faults.expire_token("configmaps", times=None)

    await run.unit("configmaps", sink).run()

    lanes = ["configmaps", *(f"configmaps in {name}" for name in many_namespaces)]
    assert [str(lane) for lane in sink.opened] == lanes, "the sink was asked for each lane"
    assert all(
        batch.lane == ListLane(record.unit, record.reach) for batch in sink.batches for record in batch.records
    ), "no lane carries another one's records"
    ended = [one.lane for one in run.observed(LaneEnded)]
    assert ended == [lanes[0], "namespaces", *lanes[1:]]


async def test_a_restart_begins_the_list_of_that_namespace_again_and_no_other(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    run, sink = await start(page_size=10), Stored()
    api.faults.expire_token("configmaps", times=2)
    refused: list[Batch] = []

    async def refuse_once(batch: Batch) -> None:
        if batch.records[0].reach == "team-03" and not refused:
            refused.append(batch)
            raise RestartError("the database has another page")

    sink.before_write = refuse_once

    result = await run.unit("configmaps", sink).run()

    assert list(statements_of(sink.batches)) == ["", *many_namespaces]
    reaches = [batch.records[0].reach for batch in sink.batches if batch.start == 0]
    assert reaches == ["", "", *many_namespaces], "two attempts for all namespaces, one stored for each of them"
    assert refused[0].list not in {batch.list for batch in sink.batches}
    assert [one.reach for one in run.observed(ListRestarted)] == ["", "team-03"]
    assert result.outcome is Outcome.COMPLETED


async def test_a_namespace_that_is_too_large_as_well_fails_alone(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    run, sink = await start(page_size=10), Stored()
    api.faults.expire_token("configmaps", times=None)

    result = await run.unit("configmaps", sink).run()

    stated = statements_of(sink.batches)
    assert {reach for reach, (kind, _) in stated.items() if kind is RecordType.LIST_FAILED} == {"", "shop"}
    assert "PAGE_SIZE" in stated["shop"][1]["reason"]
    assert (result.outcome, result.objects) == (Outcome.FAILED, 36 + 10)
    assert "expired 2 times" in result.error


async def test_namespaces_that_cannot_be_listed_are_the_units_last_statement(
    api: SimulatedKubernetes, start: Start
) -> None:
    run, sink = await start(), Stored()
    api.faults.expire_token("configmaps", times=None)
    api.faults.forbid("namespaces", verb="list")

    result = await run.unit("configmaps", sink).run()

    kind, body = statements_of(sink.batches)[""]
    assert kind is RecordType.LIST_FAILED
    assert "NAMESPACES" in body["reason"]
    assert "orbidden" in body["reason"]
    assert (result.outcome, result.error) == (Outcome.FAILED, body["reason"])
    assert len({batch.list for batch in sink.batches}) == 3, "two that expired, one for the last statement"
    assert run.observed(ListEnded)[-1].error == body["reason"]


async def test_failures_while_namespaces_are_listed_cost_nothing_but_time(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    budget = ByteBudget()
    run, sink = await start(page_size=10, budget=budget), Stored()
    api.faults.expire_token("configmaps", times=2)
    api.faults.expire_token("namespaces")
    api.faults.throttle("namespaces")

    result = await run.unit("configmaps", sink).run()

    assert list(statements_of(sink.batches)) == ["", *many_namespaces]
    assert result.outcome is Outcome.COMPLETED
    assert budget.held_bytes == 0


@pytest.mark.parametrize(("name", "reach"), [("namespaces", ""), ("configmaps", "shop")])
async def test_what_cannot_be_divided_further_fails(
    api: SimulatedKubernetes, start: Start, name: str, reach: str, many_namespaces: list[str]
) -> None:
    run, sink = await start(), Stored()
    api.faults.expire_token(name, times=None)

    result = await run.unit(name, sink, reach).run()

    ((_, (kind, body)),) = statements_of(sink.batches).items()
    assert (kind, body["http_status"]) == (RecordType.LIST_FAILED, 410)
    assert "PAGE_SIZE" in body["reason"]
    assert result.outcome is Outcome.FAILED


async def test_cancelled_it_abandons_the_open_list(
    api: SimulatedKubernetes, start: Start, many_namespaces: list[str]
) -> None:
    budget = ByteBudget()
    run, sink = await start(page_size=10, budget=budget, collect_concurrency=1), Stored()
    api.faults.expire_token("configmaps", times=2)

    async def stall_the_next(batch: Batch) -> None:
        if batch.records[0].reach == "team-02":
            api.faults.stall("configmaps", seconds=60)
            api.requests.clear()

    sink.before_write = stall_the_next
    running = asyncio.create_task(run.unit("configmaps", sink).run())
    await until(lambda: "team-03" in str(api.requests))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert "team-03" not in statements_of(sink.batches)
    assert (fetching(), budget.held_bytes, run.permits.locked()) == ([], 0, False)
