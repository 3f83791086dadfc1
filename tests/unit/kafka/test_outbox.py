"""Numbers and their order, against a sender that fails as it is told: a run of numbers comes, repeated at most."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from clusterinfo import waiting
from clusterinfo.errors import FatalError, TransientError
from clusterinfo.kafka.outbox import Outbox
from clusterinfo.model import Record, RecordType
from clusterinfo.observations import Observation, Retrying

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def record(name: str) -> Record:
    return Record(
        type=RecordType.OBSERVED, cluster="c", cluster_name="c", observed_at=NOW, body=b"{}", resource="pods", name=name
    )


class Broker:
    """`log`: what came, in order. `fails`: whether the next attempt fails, and whether it came all the same."""

    def __init__(self) -> None:
        self.log: list[tuple[int, str]] = []
        self.fails: Callable[[], tuple[bool, bool]] = lambda: (False, True)
        self.most = 3
        self.attempts = 0

    async def send(self, records: Sequence[Record]) -> int:
        self.attempts += 1
        await asyncio.sleep(0)
        fails, came = self.fails()
        sent = records[: self.most]
        if came:
            self.log += [(one.number, one.name) for one in sent]
        if fails:
            raise TransientError("no answer")
        return len(sent)


@pytest.fixture
async def outbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Outbox, Broker, list[Observation]]]:
    monkeypatch.setattr(waiting.Backoff, "next_s", lambda self, error=None: 0.0005)
    broker, seen = Broker(), list[Observation]()
    one = Outbox("topic-1", broker.send, seen.append)
    yield one, broker, seen
    await one.close()


async def test_records_are_numbered_when_they_are_handed_in(
    outbox: tuple[Outbox, Broker, list[Observation]],
) -> None:
    one, broker, _ = outbox
    first = one.put([record("a"), record("b")])
    assert one.next_number == 3
    second = one.put([record("c"), record("d")])
    assert broker.log == []
    await asyncio.gather(first, second)
    assert broker.log == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert broker.attempts == 2, "what came meanwhile goes together"


async def test_what_is_not_confirmed_is_sent_again_in_order_under_the_same_numbers(
    outbox: tuple[Outbox, Broker, list[Observation]],
) -> None:
    one, broker, seen = outbox
    rng = random.Random(7)
    broker.fails = lambda: (fails := rng.random() < 0.5, not fails or rng.random() < 0.5)
    futures = []
    for n in range(60):
        futures.append(one.put([record(f"r{n}.{i}") for i in range(rng.randrange(1, 5))]))
        await asyncio.sleep(0)
    await asyncio.gather(*futures)
    assert dict(broker.log) == dict(enumerate(dict.fromkeys(name for _, name in broker.log), start=1))
    newest = 0
    for number, _ in broker.log:
        assert number <= newest + 1, "no number before those below it"
        newest = max(newest, number)
    assert newest == one.next_number - 1
    assert any(isinstance(observation, Retrying) for observation in seen)


async def test_nobody_is_told_before_all_he_handed_in_is_there(
    outbox: tuple[Outbox, Broker, list[Observation]],
) -> None:
    one, broker, _ = outbox
    future = one.put([record(str(n)) for n in range(7)])
    while len(broker.log) < 6:
        assert not future.done()
        await asyncio.sleep(0)
    await future
    assert len(broker.log) == 7


async def test_who_is_gone_takes_nothing_along(outbox: tuple[Outbox, Broker, list[Observation]]) -> None:
    one, broker, _ = outbox
    one.put([record("a")]).cancel()
    await one.put([record("b")])
    assert broker.log == [(1, "a"), (2, "b")]


async def test_a_refusal_for_good_reaches_everybody(outbox: tuple[Outbox, Broker, list[Observation]]) -> None:
    one = outbox[0]

    async def refuse(records: Sequence[Record]) -> int:
        raise FatalError("not authorized")

    one._send = refuse
    for future in one.put([record("a")]), one.put([record("b")]):
        with pytest.raises(FatalError):
            await future
    with pytest.raises(FatalError):
        await one.put([record("c")])
