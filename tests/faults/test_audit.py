"""The audit sees what it is there to see: each sort of wrong, done to a database on purpose."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import Database
from tests.faults import audit
from tests.faults.pipeline import Made
from tests.faults.topic import DELETED, OBSERVED, Message
from tests.support import checker
from tests.support.checker import Identity

OWNER, OTHER = "clusterinfo-1", "clusterinfo-2"
LIST = "01a204de-a38b-7211-a380-a0620d21fa4c"
OF = ("c1", "", "pods", "7")


@pytest.fixture
async def audited(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A database with an audit, a kind of which is proven what was there at version 7, and a Pod seen at version 5."""
    connection = await checker.connect(database.dsn)
    await audit.install(connection)
    await connection.execute(
        "insert into cluster (uid, name, label, first_seen, last_seen) values ('c1', 'c1', 'c1', now(), now());"
        "insert into unit (cluster_id, api_group, resource) select id, '', 'pods' from cluster;"
        "insert into unit_floor (unit_id, reach, live_at, proven_at) select id, '', 7, to_timestamp(1000) from unit;"
    )
    await put(connection, "resource", live_at=5, content="aa")
    yield connection
    await connection.close()


async def put(connection: asyncpg.Connection, table: str, *, live_at: int, content: str, version: str = "5") -> None:
    """A version of the Pod into `resource` or `resource_history`."""
    also, values = ("last_observed_at", "to_timestamp(100)") if table == "resource" else ("valid_to", "now()")
    await connection.execute(
        f"insert into {table} (unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, fidelity, "
        f"normalization, content_hash, created, valid_from, first_observed_at, {also}) "
        "select id, 'n', 'p', 'u', $3, 0, $1, false, 3, 1, decode($2, 'hex'), true, to_timestamp($1::bigint), now(), "
        f"{values} from unit",
        live_at,
        content,
        version,
    )


async def claim(connection: asyncpg.Connection, generation: int, by: str) -> None:
    await connection.execute(f"set application_name = '{by}'")
    await connection.execute(
        "insert into kafka_offset (kafka_cluster, topic, partition, group_id, generation) "
        "values ('k', 't', 0, 'g', $1) "
        "on conflict (kafka_cluster, topic, partition) do update set generation = excluded.generation",
        generation,
    )


async def move(connection: asyncpg.Connection, offset: int, by: str = OWNER) -> None:
    await connection.execute(f"set application_name = '{by}'")
    await connection.execute("update kafka_offset set next_offset = $1", offset)


async def test_offsets_stored_in_order_by_their_owner_are_right(audited: asyncpg.Connection) -> None:
    await claim(audited, 1, OWNER)
    await move(audited, 5)
    await claim(audited, 2, OTHER)
    await move(audited, 9, OTHER)
    assert await audit.wrong_offsets(audited, {0: 9}) == []
    assert "stored up to 9, and ends at 12" in str(await audit.wrong_offsets(audited, {0: 12}))
    assert "stored up to 0, and ends at 3" in str(await audit.wrong_offsets(audited, {0: 9, 1: 3}))


async def test_an_offset_that_goes_back_is_seen(audited: asyncpg.Connection) -> None:
    await claim(audited, 1, OWNER)
    await move(audited, 5)
    await move(audited, 3)
    assert "a gap or an overlap" in str(await audit.wrong_offsets(audited, {0: 3}))


async def test_an_offset_that_was_changed_past_the_log_is_seen(audited: asyncpg.Connection) -> None:
    await claim(audited, 1, OWNER)
    await move(audited, 5)
    await audited.execute("alter table kafka_offset disable trigger audit")
    await move(audited, 7)
    await audited.execute("alter table kafka_offset enable trigger audit")
    await move(audited, 9)
    assert "a gap or an overlap" in str(await audit.wrong_offsets(audited, {0: 9}))


async def test_a_former_owner_that_stores_is_seen(audited: asyncpg.Connection) -> None:
    await claim(audited, 1, OWNER)
    await claim(audited, 2, OTHER)
    await move(audited, 5, OWNER)
    assert "somebody else than the owner" in str(await audit.wrong_offsets(audited, {0: 5}))


async def settle(connection: asyncpg.Connection, *, at_once: bool) -> None:
    """Whole in one batch, or with its last one."""
    await connection.execute("delete from list_progress")
    await connection.execute(
        "insert into list_progress (list, unit_id, reach, epoch, live_at, settled) "
        "select $1::text::uuid, id, '', 0, 7, $2 from unit",
        LIST,
        at_once,
    )
    await connection.execute("update list_progress set count = 1, settled = true")


@pytest.mark.parametrize("at_once", [True, False])
async def test_lists_are_settled_once_each(audited: asyncpg.Connection, at_once: bool) -> None:
    assert "never settled" in str(await audit.miscounted_lists(audited, {LIST: OF}))
    await settle(audited, at_once=at_once)
    assert await audit.miscounted_lists(audited, {LIST: OF}) == []
    assert await audit.miscounted_lists(audited, {LIST: OF, "another of that version": OF}) == []
    assert "never settled" in str(await audit.miscounted_lists(audited, {LIST: OF, "a newer": (*OF[:3], "8")}))
    assert "never completed" in str(await audit.miscounted_lists(audited, {}))
    await settle(audited, at_once=at_once)
    assert "more than once" in str(await audit.miscounted_lists(audited, {LIST: OF}))


async def test_a_version_that_stands_twice_or_says_nothing_new_is_seen(audited: asyncpg.Connection) -> None:
    await put(audited, "resource_history", live_at=3, content="bb", version="3")
    assert await audit.duplicate_history(audited) == []
    for version, content in (("3", "cc"), ("4", "bb"), ("5", "cc"), ("4", "aa")):
        transaction = audited.transaction()
        await transaction.start()
        await put(audited, "resource_history", live_at=4, content=content, version=version)
        assert await audit.duplicate_history(audited) != [], (version, content)
        await transaction.rollback()


async def deletions(connection: asyncpg.Connection, *alive: Identity, failing: tuple[audit.Failing, ...] = ()) -> str:
    return str(await audit.wrong_deletions(connection, alive, failing, margin_s=1.0))


async def test_a_proven_deletion_is_right_unless_the_object_lives_or_its_kind_failed(
    audited: asyncpg.Connection,
) -> None:
    await audited.execute("delete from resource")
    assert await deletions(audited) == "[]"
    assert "although it is there" in await deletions(audited, Identity("c1", "", "pods", "n", "p", "u", "5"))
    assert "while its kind was failing" in await deletions(audited, failing=(audit.Failing("pods", 990, 1010),))
    assert await deletions(audited, failing=(audit.Failing("pods", 999.5, 1010),)) == "[]"
    assert await deletions(audited, failing=(audit.Failing("nodes", 990, 1010),)) == "[]"


async def test_a_deletion_without_proof_is_seen(audited: asyncpg.Connection) -> None:
    await audited.execute("update unit_floor set live_at = 4")
    await audited.execute("delete from resource")
    assert "without proof" in await deletions(audited)


async def test_a_row_that_another_version_replaces_is_not_deleted(audited: asyncpg.Connection) -> None:
    await audited.execute("update unit_floor set live_at = 4")
    async with audited.transaction():
        await audited.execute("delete from resource")
        await put(audited, "resource", live_at=8, content="bb", version="8")
    assert await deletions(audited) == "[]"


async def test_a_deletion_of_a_kind_that_is_gone_needs_no_list(audited: asyncpg.Connection) -> None:
    await audited.execute("update unit_floor set live_at = 4; update unit set gone_before = now(), state = 'gone'")
    await audited.execute("delete from resource")
    assert await deletions(audited) == "[]"


async def test_a_content_that_was_sent_and_is_nowhere_is_seen(audited: asyncpg.Connection) -> None:
    def sent(content: str) -> Message:
        headers = {"type": OBSERVED, "uid": "u", "contenthash": content}
        return Message(0, 0, headers, ("c1", "", "pods", "n", "p"), b"{}")

    assert await audit.lost_versions(audited, [sent("aa")]) == []
    assert "'bb'" in str(await audit.lost_versions(audited, [sent("aa"), sent("bb")]))
    await put(audited, "resource_history", live_at=3, content="bb", version="3")
    assert await audit.lost_versions(audited, [sent("aa"), sent("bb")]) == []


async def follow(connection: asyncpg.Connection, begins: int, ends: int) -> None:
    """Pods are followed between two moments, seconds since 1970."""
    await connection.execute(
        "with session as (insert into watch_session (kafka_cluster, topic, partition, cluster, session) "
        "select 'k', 't', 0, 'c1', gen_random_uuid() returning id) "
        "insert into coverage (unit_id, reach, session_id, from_number, epoch, is_open, begins_at, ends_at) "
        "select u.id, '', s.id, 1, 0, false, to_timestamp($1), to_timestamp($2) from unit u, session s",
        begins,
        ends,
    )


async def test_a_version_made_while_its_kind_was_followed_that_is_nowhere_is_seen(audited: asyncpg.Connection) -> None:
    def made(version: int, after: float, before: float) -> list[Made]:
        return [Made(("", "pods"), "n/p", version, after, before)]

    assert await audit.unkept(audited, made(8, 110, 111)) == [], "nobody says that it was followed"
    await follow(audited, 100, 200)
    assert await audit.unkept(audited, made(5, 110, 111)) == [], "it is the row"
    assert await audit.unkept(audited, made(8, 99, 101)) == [], "it may have been made before"
    assert "not stored" in str(await audit.unkept(audited, made(8, 110, 111)))


def said(type_: str, version: int, second: int) -> Message:
    """A version of the Pod, observed so many seconds after 1970."""
    time = dt.datetime.fromtimestamp(second, dt.UTC).isoformat()
    headers = {"type": type_, "uid": "u", "contenthash": f"{version:02x}", "time": time}
    headers |= {"resourceversion": str(version), "listversion": str(version)}
    return Message(0, 0, headers, ("c1", "", "pods", "n", "p"), b"{}")


async def test_a_past_that_is_not_what_was_recorded_is_seen(audited: asyncpg.Connection) -> None:
    await audited.execute(
        "insert into snapshot (id, cluster_id, started_at) select $1, id, to_timestamp(1) from cluster", LIST
    )

    async def wrong(*sent: Message) -> list[str]:
        return await audit.wrong_moments(audited, sent, random.Random(1), 10)

    assert await wrong(said(OBSERVED, 5, 5)) == []
    for sent in (
        [said(OBSERVED, 6, 5)],
        [said(OBSERVED, 5, 2_000_000_000)],
        [said(OBSERVED, 5, 5), said(DELETED, 6, 7)],
    ):
        assert "on one side only" in str(await wrong(*sent))


async def test_a_moment_that_nobody_looked_at_and_that_is_not_named_is_seen(audited: asyncpg.Connection) -> None:
    await audited.execute(
        "insert into snapshot (id, cluster_id, started_at) select $1, id, to_timestamp(1) from cluster", LIST
    )
    await follow(audited, 1, 1000)

    async def wrong() -> str:
        return str(await audit.wrong_moments(audited, [said(OBSERVED, 5, 5)], random.Random(1), 10))

    assert await wrong() == "[]"
    await audited.execute("alter function not_observed rename to whole")
    await audited.execute(
        "create function not_observed(timestamptz, timestamptz) returns table (cluster text, api_group text, "
        "resource text, reach text, begins_at timestamptz, ends_at timestamptz) "
        "language sql as 'select * from whole($1, $2) limit 0'"
    )
    assert "was not observed" in await wrong()
