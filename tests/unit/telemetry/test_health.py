"""When a process is ready for work, and when it should be replaced."""

from __future__ import annotations

from clusterinfo import observations as seen
from clusterinfo.telemetry.health import SILENT_S, Health
from clusterinfo.telemetry.probes import STEP

RETRYING = seen.Retrying(lane="pods", step="write", error="PostgreSQL is away", wait_s=1)


def test_readiness_follows_failing_steps() -> None:
    health = Health()
    health.observe(RETRYING)
    assert health.failing == {("pods", "write"): "PostgreSQL is away"}
    health.observe(seen.Recovered(lane="pods", step="write", attempts=2))
    assert health.failing == {}
    health.observe(RETRYING)
    health.observe(seen.LaneEnded(lane="other"))
    assert health.failing
    health.observe(seen.LaneEnded(lane="pods"))
    assert health.failing == {}, "a lane that ended while a step failed does not fail for ever"


def test_a_run_of_lists_without_progress_is_not_alive() -> None:
    """Every step of it has a deadline, so none is known that does; another process is the last resort."""
    now_s = 0.0
    health = Health(clock=lambda: now_s)
    run = seen.Discovered(cluster="a", units=2, excluded=0)
    ended = seen.SnapshotEnded(cluster="a", kinds=2, failed=0, forbidden=0, objects=0, size_bytes=0, seconds=1)
    health.observe(run)
    now_s += SILENT_S
    health.observe(seen.PageListed(resource="pods", reach="", items=1, size_bytes=1))
    now_s += SILENT_S
    assert health.not_alive == []
    health.observe(seen.Retrying(lane="Kafka", step=STEP, error="away", wait_s=1))
    now_s += 1
    assert health.not_alive == ["a: its run of lists has made no progress for 601 s"], (
        "an answer to a probe is no progress"
    )
    health.observe(RETRYING)
    assert health.not_alive == [], "what is tried again is not stuck"
    health.observe(ended)
    now_s += 100 * SILENT_S
    assert health.not_alive == [], "between two runs nothing has to move"


def test_a_list_that_was_abandoned_is_not_taken_for_the_next_one() -> None:
    """As one beside a watch whose kind is gone, or that is listed for another reason: none other of it may end."""
    now_s = 0.0
    health = Health(clock=lambda: now_s)
    page = seen.PageListed(resource="pods", reach="", items=0, size_bytes=1)
    health.observe(page)
    health.observe(seen.ListAbandoned(resource="pods", reach=""))
    now_s += 2 * (health.list_within_s + SILENT_S)
    health.observe(page)
    assert health.not_alive == []


def test_a_list_that_brings_pages_long_after_its_time_is_not_alive() -> None:
    """Pages are progress, and a server may send them for ever. A list whose sink is away brings none."""
    now_s = 0.0
    health = Health(clock=lambda: now_s)
    health.list_within_s = 100
    page = seen.PageListed(resource="pods", reach="", items=0, size_bytes=1)
    ended = seen.ListEnded(resource="pods", reach="", outcome="failed", objects=0, size_bytes=0, seconds=1)
    health.observe(seen.Discovered(cluster="a", units=2, excluded=0))
    health.observe(page)
    now_s += 100 + SILENT_S
    health.observe(page)
    assert health.not_alive == []
    now_s += 1
    health.observe(RETRYING)
    assert health.not_alive == [], "no page came"
    health.observe(page)
    assert health.not_alive == ["pods: its list still brings pages after 701 s"]
    health.observe(ended)
    assert health.not_alive == []
    health.observe(page)
    assert health.not_alive == [], "another list"


def test_readiness_follows_runs_of_lists() -> None:
    health = Health()
    failed = seen.RunFailed(cluster="a", error="the API cannot be reached", wait_s=1)
    health.observe(failed)
    assert health.failing == {("a", "run of lists"): "the API cannot be reached"}
    health.observe(seen.SnapshotEnded(cluster="a", kinds=0, failed=0, forbidden=0, objects=0, size_bytes=0, seconds=1))
    assert health.failing == {}


def test_a_collector_that_stands_by_is_asked_for_no_progress_and_for_what_it_still_does() -> None:
    clock = [0.0]
    health = Health(clock=lambda: clock[0])
    health.observe(seen.Connected(cluster="a"))
    health.observe(seen.Discovered(cluster="a", units=1, excluded=0))
    health.observe(seen.Retrying(lane="pods", step="read", error="500", wait_s=1.0))
    health.observe(seen.StandsBy(cluster="a", lease="l", holder="other"))
    clock[0] = 10 * SILENT_S
    assert health.not_alive == []
    assert health.not_ready == []
    health.observe(seen.Retrying(lane="lease l", step="renew", error="403", wait_s=2.0))
    health.observe(seen.StandsBy(cluster="a", lease="l"))
    assert health.not_ready == ["lease l, renew: 403"]
