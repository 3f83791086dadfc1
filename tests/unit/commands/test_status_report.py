"""What `clusterinfo status` makes of what the database and Kafka say."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from clusterinfo.commands.output import Output
from clusterinfo.commands.status import partitions_of
from clusterinfo.commands.status_lag import Lag, Partition
from clusterinfo.commands.status_page import result_of
from clusterinfo.commands.status_report import Consumers, Status
from clusterinfo.kafka.end_offsets import End
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow, OffsetRow, Overview
from clusterinfo.topic_names import TopicNames
from tests.support.json_schemas import StatusDocument

DOCUMENT = Path(__file__).parents[3].joinpath("docs/STATUS.md").read_text(encoding="utf-8")
NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
CLUSTER = ClusterRow("prod", "uid-1", "v1.36.0", NOON, NOON, 12.5, 4321, True, 300.0, 51852)
PODS = KindRow("prod", "", "pods", "", "verified", 4000, NOON, 42.0, None)
OFFSET = OffsetRow("kafka-1", "cluster-info", 0, "cluster-info-consumer", 90)
CONSUMERS = Consumers("us", "Stable", 2, frozenset({("t", 0), ("t", 1)}), "", "us")
NOBODY = replace(CONSUMERS, state="Empty", members=0, held=frozenset())
HEALTHY = Status(Overview([CLUSTER], [PODS], [OFFSET], 0, NOON), [Partition("t", 0, 90, 100)], None, 60.0)


def ago(seconds: float) -> dt.datetime:
    return NOON - dt.timedelta(seconds=seconds)


def status(*kinds: KindRow, cluster: ClusterRow = CLUSTER, dead_letters: int = 0, kafka_error: str = "") -> Status:
    overview = Overview([cluster], [PODS, *kinds], [OFFSET], dead_letters, NOON)
    return replace(HEALTHY, overview=overview, kafka_error=kafka_error)


def shown(what: Status) -> str:
    return result_of(what).text(Output.TABLE)


def test_a_verified_cluster_is_healthy_whatever_the_lag() -> None:
    assert status().is_healthy
    first, *_, last = shown(status()).splitlines()
    assert (first, last) == ("healthy", "dead letters: 0")
    (partition,) = status().as_json()["partitions"]
    assert partition == {
        "topic": "t", "partition": 0, "stored": 90, "end": 100, "lag": 10,
        "moved_at": None, "waiting_since": None, "rate": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cluster", "complaint"),
    [
        (replace(CLUSTER, last_run_at=None, knows_all_kinds=None), "no run of lists has ended yet"),
        (replace(CLUSTER, knows_all_kinds=False), "the last run of lists could not discover all kinds"),
    ],
)
def test_a_cluster_whose_kinds_are_not_all_known_needs_attention(cluster: ClusterRow, complaint: str) -> None:
    what = status(cluster=cluster)
    (reason,) = what.reasons
    assert reason.startswith(f"prod: {complaint}")
    (found,) = what.as_json()["attention"]
    assert (found["about"], found["cluster"]) == ("cluster", "prod")
    assert what.cluster_lines()[0].why.startswith(complaint)
    assert shown(what).startswith("needs attention")


# Kinds

JOBS = replace(PODS, resource="jobs", api_group="batch")


@pytest.mark.parametrize(
    ("kind", "why", "line"),
    [
        (
            replace(JOBS, state="failed", last_error="500 boom"),
            "500 boom",
            "jobs.batch of prod failed: 500 boom",
        ),
        (
            replace(JOBS, state="unverified", age_s=None),
            "not proven yet",
            "jobs.batch of prod unverified: not proven yet",
        ),
        (replace(JOBS, age_s=7200.0), "not verified for 2h", "jobs.batch of prod not verified for 2h"),
    ],
)
def test_a_kind_that_needs_attention_is_named(kind: KindRow, why: str, line: str) -> None:
    what = status(kind)
    assert what.as_json()["attention"] == [
        {"about": "kind", "cluster": "prod", "api_group": "batch", "resource": "jobs", "reach": "", "why": why}
    ]
    assert what.reasons == [line]
    assert f"needs attention\n  {line}\n" in shown(what)
    assert what.cluster_lines()[0].worst == "jobs.batch"


SHORT = replace(CLUSTER, interval_s=10.0, last_run_s=0.1)
"""A collector with a short COLLECT_INTERVAL."""


@pytest.mark.parametrize("cluster", [CLUSTER, SHORT], ids=["5m", "10s"])
@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        # A quiet kind is heard of once a minute, whatever the interval.
        (replace(PODS, following=True, age_s=140.0, followed_s=140.0), []),
        # Many partitions: a progress comes that seldom, and the database knows.
        (replace(PODS, following=True, age_s=200.0, followed_s=200.0), []),
        (
            replace(PODS, age_s=160.0, followed_s=160.0),
            [
                "pods of prod not followed for 2m",
                "prod: its watches were last heard from 2m ago; does its collector run?",
            ],
        ),
        # Its watch was given up a moment ago, and the list that is under way will say more.
        (replace(PODS, age_s=20000.0, followed_s=5.0), []),
        # Lists have taken over since.
        (replace(PODS, age_s=8.0, followed_s=4000.0), []),
    ],
)
def test_what_is_followed_is_judged_by_when_it_was_heard_of(
    cluster: ClusterRow, kind: KindRow, reasons: list[str]
) -> None:
    what = replace(HEALTHY, overview=Overview([cluster], [kind], [OFFSET], 0, NOON))
    assert what.reasons == reasons
    (line,) = what.cluster_lines()
    assert (line.followed, line.age_s) == (int(kind.following), kind.old_s)


def test_one_kind_that_is_lost_says_nothing_about_its_collector() -> None:
    lost, heard = replace(JOBS, age_s=400.0, followed_s=400.0), replace(PODS, following=True, age_s=4.0, followed_s=4.0)
    what = replace(HEALTHY, overview=Overview([SHORT], [heard, lost], [OFFSET], 0, NOON))
    assert what.reasons == ["jobs.batch of prod not followed for 6m"]
    assert replace(what, stale_after_s=500.0).reasons == []
    assert len(replace(what, stale_after_s=3.0).reasons) == 2, "who asks is told, whatever follows it"


def test_rows_of_a_kind_that_cannot_be_listed_are_as_old_as_when_it_was_last_followed() -> None:
    refused = replace(PODS, state="forbidden", age_s=20000.0, followed_s=160.0)
    assert status(replace(refused, resource="secrets")).is_healthy
    (reason,) = status(replace(refused, resource="secrets", followed_s=1200.0)).reasons
    assert reason == "secrets of prod forbidden: 4,000 rows, 20m old"


def test_a_run_that_takes_longer_than_the_interval_is_its_own_interval() -> None:
    slow = replace(SHORT, last_run_s=40.0)
    assert status(replace(JOBS, age_s=100.0), cluster=slow).is_healthy
    assert status(replace(JOBS, age_s=121.0), cluster=slow).reasons == ["jobs.batch of prod not verified for 2m"]


@pytest.mark.parametrize("state", ["forbidden", "excluded", "gone"])
def test_what_somebody_decided_needs_no_attention(state: str) -> None:
    secrets = replace(PODS, resource="secrets", state=state, objects=0, age_s=None, verified_at=None)
    assert status(secrets).is_healthy
    assert status(replace(secrets, objects=5, age_s=42.0, verified_at=NOON)).is_healthy, "it may be listed again soon"
    assert status(replace(secrets, age_s=7200.0, verified_at=NOON)).is_healthy, "nothing of it is left"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "forbidden"}, "4,000 rows, 2h old"),
        ({"state": "excluded", "objects": 1}, "1 row, 2h old"),
        ({"state": "failed", "last_error": "500 boom"}, "500 boom; 4,000 rows, 2h old"),
        ({"state": "unverified"}, "not proven yet; 4,000 rows, 2h old"),
        ({"state": "forbidden", "age_s": None, "verified_at": None}, "4,000 rows, never proven"),
    ],
)
def test_rows_that_nobody_verifies_any_more_need_attention(changes: dict[str, Any], why: str) -> None:
    what = status(replace(PODS, resource="secrets", **({"age_s": 7200.0} | changes)))
    (found,) = what.attention
    assert (found.kind and found.kind.resource, found.why) == ("secrets", why)
    assert what.reasons == [f"secrets of prod {changes['state']}: {why}"]


def test_kinds_with_one_cause_share_a_line() -> None:
    many = [replace(PODS, resource=f"kind{number:02}", age_s=1260.0 + number / 10) for number in range(58)]
    assert status(*many).reasons == ["58 kinds of prod not verified for 21m (kind00, kind01, kind02, 55 more)"]
    assert status(*many[:1], replace(many[1], age_s=7200.0)).reasons == [
        "2 kinds of prod not verified for up to 2h (kind00, kind01)"
    ]
    lost = "messages of t-{} were deleted from Kafka before they were stored"
    gaps = [replace(JOBS, resource=f"kind{n}", state="unverified", last_error=lost.format(n)) for n in range(3)]
    assert status(*gaps).reasons == [
        f"3 kinds of prod unverified: {lost.format(0)} (kind0.batch, kind1.batch, kind2.batch)"
    ], "what differs in numbers only is one cause"
    assert len(status(*gaps, replace(gaps[0], state="failed")).reasons) == 2


def test_the_worst_of_a_cluster_stands_on_its_line() -> None:
    what = status(replace(JOBS, age_s=7200.0), replace(PODS, resource="nodes", state="failed", last_error="500 boom"))
    (line,) = what.cluster_lines()
    assert (line.worst, line.why, line.age_s) == ("nodes", "nodes failed: 500 boom (and 1 more)", 7200.0)
    assert (line.kinds, line.states, line.objects) == (3, {"verified": 2, "failed": 1}, 12000)
    assert what.reasons[0] == "nodes of prod failed: 500 boom", "the worst first"


@pytest.mark.parametrize(
    ("interval_s", "stale_after_s", "is_healthy"),
    [
        (300.0, None, True),
        (100.0, None, False),
        (None, None, False),
        (300.0, 500.0, False),
    ],
    ids=["its collector's", "its collector's, shorter", "ours, where it states none", "as told"],
)
def test_a_kind_is_stale_by_the_interval_of_its_collector(
    interval_s: float | None, stale_after_s: float | None, is_healthy: bool
) -> None:
    """Ours is 100 s, which counts for a collector that states none."""
    aged = status(replace(JOBS, age_s=600.0), cluster=replace(CLUSTER, interval_s=interval_s))
    what = replace(aged, stale_after_s=stale_after_s, interval_s=100.0)
    assert what.is_healthy is is_healthy
    assert what.as_json()["clusters"][0]["stale_after_s"] == (stale_after_s or 3 * (interval_s or 100.0))


@pytest.mark.parametrize(
    ("kind", "ran_s", "hints"),
    [
        (replace(JOBS, age_s=7200.0), 7200, ["prod: the last run of lists began 2h ago; does its collector run?"]),
        (replace(JOBS, age_s=7200.0), 900, []),
        (replace(JOBS, age_s=42.0), 7200, []),
    ],
    ids=["no run", "a run, but not of that kind", "followed"],
)
def test_a_collector_that_is_gone_is_named_where_kinds_are_old(kind: KindRow, ran_s: float, hints: list[str]) -> None:
    """A kind alone that is old is the API's; while what was sent waits, nobody knows when a run has ended."""
    what = status(kind, cluster=replace(CLUSTER, last_run_at=ago(ran_s)))
    assert what.reasons[1:] == hints
    assert [one.about for one in what.attention[1:]] == ["cluster"] * len(hints)
    waiting = replace(what, partitions=[Partition("t", 0, 0, 9, ago(7200), ago(7200), 0)], consumers=NOBODY)
    assert not any("does its collector run?" in reason for reason in waiting.reasons)


# Consumers and lag


def consumed(consumers: Consumers, *lags: int, moved_s: float = 0, waits_s: float = 0, rate: float = 0) -> Status:
    partitions = [
        Partition("t", number, 100, 100 + lag, ago(moved_s), ago(waits_s) if lag else None, rate)
        for number, lag in enumerate(lags)
    ]
    return replace(status(), partitions=partitions, consumers=consumers)


@pytest.mark.parametrize(
    ("consumers", "lags", "words"),
    [
        (CONSUMERS, (0, 0), "consumers: 2 in group us, 2 of 2 partitions held"),
        (CONSUMERS, (37_000, 728), "consumers: 2 in group us, 2 of 2 partitions held"),
        (NOBODY, (0, 0), "consumers: no consumer in group us"),
        (replace(NOBODY, state="unknown", members=None, error="no rights"), (9, 9), "consumers: unknown: no rights"),
    ],
)
def test_consumers_are_shown_and_well(consumers: Consumers, lags: tuple[int, ...], words: str) -> None:
    what = consumed(consumers, *lags)
    assert what.is_healthy
    assert words in shown(what)


@pytest.mark.parametrize(
    ("consumers", "lags", "why"),
    [
        (NOBODY, (37_000, 728), "no consumer in group us: 37,728 messages waiting, nothing stored for 70s"),
        (NOBODY, (0, 1), "no consumer in group us: 1 message waiting, nothing stored for 70s"),
        (
            replace(NOBODY, members=3),
            (9, 9),
            "no consumer of 3 in group us holds a partition: 18 messages waiting, nothing stored for 70s",
        ),
        (
            CONSUMERS,
            (5, 0, 7, 8),
            "no consumer holds t-2, t-3: 15 messages waiting, nothing stored for 70s",
        ),
        (
            replace(NOBODY, owner="them"),
            (9,),
            "no consumer in group us: 9 messages waiting, nothing stored for 70s"
            " (KAFKA_GROUP_ID is 'us', but this database belongs to group 'them')",
        ),
    ],
)
def test_what_waits_for_nobody_needs_attention(consumers: Consumers, lags: tuple[int, ...], why: str) -> None:
    what = consumed(consumers, *lags, moved_s=70)
    assert what.reasons == [why]
    assert what.as_json()["attention"] == [{"about": "consumers", "why": why}]
    assert f"needs attention\n  {why}" in shown(what)
    report = what.as_json()["consumers"]
    held = [f"{topic}-{number}" for topic, number in sorted(consumers.held)]
    assert (report["members"], report["held"]) == (consumers.members, held)


@pytest.mark.parametrize(
    ("moved_s", "waits_s", "is_healthy"),
    [(70, 70, False), (70, 5, True), (5, 70, True)],
    ids=["nothing is stored", "it has just come", "it is being stored"],
)
def test_what_its_owner_does_not_store_needs_attention(moved_s: float, waits_s: float, is_healthy: bool) -> None:
    what = consumed(CONSUMERS, 37_000, 728, moved_s=moved_s, waits_s=waits_s)
    assert what.reasons == ([] if is_healthy else ["37,728 messages waiting, nothing stored for 70s: t-0, t-1"])
    unknown = replace(CONSUMERS, state="unknown", members=None, error="no rights")
    assert replace(what, consumers=unknown).is_healthy is is_healthy, "whoever holds them"


@pytest.mark.parametrize(
    ("partitions", "words"),
    [
        ([Partition("t", 0, 5, 5, ago(1), None, 9.0)], "none"),
        (
            [
                Partition("t", 0, 0, 3000, ago(2), ago(70), 60.0),
                Partition("t", 1, 0, 1000, ago(2), ago(30), 40.0),
                Partition("t", 2, 9, 9, ago(2), None, 500.0),
            ],
            "4,000 messages waiting, 100/s stored, caught up in 40s, 70s behind",
        ),
        ([Partition("t", 0, 0, 9, ago(200), ago(150), 60.0)], "9 messages waiting, nothing stored for 3m, 2m behind"),
        ([Partition("t", 0, 0, 9, None, ago(150))], "9 messages waiting, nothing of it was ever stored, 2m behind"),
        ([Partition("t", 0, 0, 9, ago(1), ago(1))], "9 messages waiting, 1s behind"),
        ([Partition("t", 0, 0, 1, ago(1), NOON + dt.timedelta(seconds=9))], "1 message waiting, 0s behind"),
    ],
    ids=["none", "stored", "not stored", "never stored", "just begun", "a clock is ahead"],
)
def test_the_lag_is_told_with_the_time_until_it_is_none(partitions: list[Partition], words: str) -> None:
    assert str(Lag.of(partitions, NOON)) == words


def test_the_lag_is_known_only_as_kafka_tells_it() -> None:
    unasked = replace(status(), partitions=[Partition("t", 0, 90, None, ago(70))])
    assert "\nlag: not known, KAFKA_ENABLED is false; last stored 70s ago" in shown(unasked)
    assert "\nlag: not known, Kafka does not answer; last" in shown(replace(unasked, kafka_error="no answer"))
    assert "lag" not in shown(replace(status(), partitions=[])), "nothing ever came by Kafka"
    assert status().as_json()["lag"] is None
    assert consumed(CONSUMERS, 0, 200, moved_s=1, waits_s=4, rate=50).as_json()["lag"] == {
        "messages": 200, "rate": 50, "catch_up_s": 4, "behind_s": 4, "idle_s": 1,
    }  # fmt: skip


STORED = OffsetRow("kafka-1", "t", 0, "us", 90, ago(60), ago(80), 7.0)


@pytest.mark.parametrize(
    ("row", "end", "since"),
    [
        (STORED, End(90, -1, 0.0), None),
        (STORED, End(100, 90, ago(20).timestamp()), ago(20)),
        (STORED, End(100, 95, ago(20).timestamp()), ago(80)),
        (STORED, End(100, -1, 0.0), ago(80)),
        (STORED, End(100, 90, -0.001), ago(80)),
        (replace(STORED, next_offset=0, moved_at=None, observed_at=None), End(9, 3, ago(50).timestamp()), ago(50)),
        (None, End(9, 0, ago(50).timestamp()), ago(50)),
        (None, End(9, -1, 0.0), None),
    ],
    ids=["nothing", "since", "backlog", "only backlog", "no time", "never stored", "no owner yet", "no time, no owner"],
)
def test_the_oldest_message_that_waits_is_dated(row: OffsetRow | None, end: End, since: dt.datetime | None) -> None:
    (found,) = partitions_of([row] if row else [], {("t", 0): end}, TopicNames.parse("t"))
    assert (found.waiting_since, found.end) == (since, end.offset)


@pytest.mark.parametrize(
    ("consumers", "lags", "reasons"),
    [
        (replace(NOBODY, state="Stable", members=2), (0, 0), ["no consumer of 2 in group us holds a partition"]),
        (replace(NOBODY, state="PreparingRebalance", members=2), (0, 0), []),
        (replace(NOBODY, state="Stable", members=2), (), []),
        (NOBODY, (0, 0), []),
    ],
    ids=["they hold nothing", "they will", "there is nothing", "there are none"],
)
def test_members_that_hold_nothing_need_attention_though_nothing_waits(
    consumers: Consumers, lags: tuple[int, ...], reasons: list[str]
) -> None:
    assert consumed(consumers, *lags).reasons == reasons


def test_what_nobody_holds_and_what_is_not_stored_are_two_reasons() -> None:
    what = consumed(replace(CONSUMERS, held=frozenset({("t", 0)})), 5, 7, moved_s=70, waits_s=70)
    assert what.reasons == [
        "no consumer holds t-1: 7 messages waiting, nothing stored for 70s",
        "5 messages waiting, nothing stored for 70s: t-0",
    ]


def test_a_rebalance_that_does_not_end_is_named() -> None:
    what = consumed(replace(NOBODY, state="PreparingRebalance", members=3), 9)
    assert "consumers: 3 in group us, 0 of 1 partitions held (PreparingRebalance)" in shown(what)


def test_scripts_learn_why_nothing_is_known_of_consumers() -> None:
    unknown = consumed(replace(NOBODY, state="unknown", members=None, error="no rights"), 9)
    assert unknown.as_json()["consumers"] == {
        "group": "us", "state": "unknown", "members": None, "held": None, "error": "no rights",
    }  # fmt: skip
    assert status().as_json()["consumers"] is None


@pytest.mark.parametrize(
    ("what", "about", "reason"),
    [
        (status(dead_letters=3), "dead_letters", "3 dead letters; see `clusterinfo dead-letters list`"),
        (status(dead_letters=1), "dead_letters", "1 dead letter; see `clusterinfo dead-letters list`"),
        (status(kafka_error="no answer"), "kafka", "lag unknown: no answer"),
        (replace(HEALTHY, overview=Overview([], [], [], 0, NOON)), "database", "no cluster is stored here yet"),
    ],
)
def test_what_else_needs_attention_stands_among_the_reasons(what: Status, about: str, reason: str) -> None:
    assert what.as_json()["attention"] == [{"about": about, "why": reason}]
    assert what.as_json()["reasons"] == [reason]
    assert f"needs attention\n  {reason}\n" in shown(what)


def test_scripts_get_everything() -> None:
    report = orjson.loads(orjson.dumps(status(replace(PODS, reach="one", state="failed", last_error="gone")).as_json()))
    assert report["healthy"] is False
    assert report["attention"][0]["reach"] == "one"
    (cluster,) = report["clusters"]
    assert cluster["last_seen"] == "2026-11-22T12:00:00+00:00"
    assert cluster["states"] == {"verified": 1, "failed": 1}
    assert len(report["kinds"]) == 2


@pytest.mark.parametrize("consumers", [None, CONSUMERS, replace(CONSUMERS, error="not allowed", members=None)])
def test_json_is_what_its_schema_says(consumers: Consumers | None) -> None:
    """StatusDocument is what docs/schemas is made of; it refuses fields that it does not know."""
    failed = replace(PODS, reach="one", state="failed", last_error="gone", verified_at=None, age_s=None, objects=None)
    report = orjson.dumps(replace(status(failed), consumers=consumers).as_json())
    assert (
        orjson.loads(StatusDocument.model_validate_json(report).model_dump_json()).keys() == orjson.loads(report).keys()
    )


def test_the_document_names_the_keys() -> None:
    rows = [line.split("|") for line in DOCUMENT.split("## JSON")[1].splitlines() if line.startswith("| `")]
    documented = {row[1].strip(" `"): re.findall(r"`(\w+)`", row[2]) for row in rows}
    report = consumed(CONSUMERS, 9).as_json()
    assert [*documented] == [*report]
    assert documented["clusters"] == [*report["clusters"][0]]
    assert documented["kinds"][1:] == [*report["kinds"][0]]
    for key in ("lag", "consumers"):
        assert documented[key][:-1] == [*report[key]], "null comes last"
    assert documented["partitions"] == [*report["partitions"][0]]
