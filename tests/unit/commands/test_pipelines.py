"""Observers of pipelines: lists that were sent whole and not believed, as an exit code; batches, as a sum."""

from __future__ import annotations

from clusterinfo.commands.pipelines import Sum, UnverifiedLists
from clusterinfo.model import Outcome
from clusterinfo.observations import (
    AllStored,
    BatchStored,
    ListEnded,
    Observation,
    UnitFailed,
    UnitVerified,
    unobserved,
)


def failed(reach: str = "", state: str = "failed", resource: str = "pods") -> UnitFailed:
    return UnitFailed(cluster="c", resource=resource, reach=reach, state=state, error="it went back")


def verified(reach: str = "") -> UnitVerified:
    return UnitVerified(cluster="c", resource="pods", reach=reach, objects=1, deleted=0)


def ended(outcome: Outcome, reach: str = "") -> ListEnded:
    return ListEnded(resource="pods", reach=reach, outcome=outcome, objects=1, size_bytes=1, seconds=1)


def is_unverified(*seen: Observation) -> bool:
    passed_on: list[Observation] = []
    observe = UnverifiedLists(passed_on.append)
    for observation in seen:
        observe(observation)
    assert passed_on == [*seen]
    return bool(observe)


def test_a_list_that_was_sent_whole_and_not_believed_is_unverified() -> None:
    assert not is_unverified()
    assert not is_unverified(verified(), ended(Outcome.COMPLETED))
    assert is_unverified(failed(), ended(Outcome.COMPLETED))
    assert is_unverified(failed(state="unverified"), ended(Outcome.COMPLETED))


def test_one_that_is_believed_after_all_is_not() -> None:
    assert not is_unverified(failed(state="unverified"), verified(), ended(Outcome.COMPLETED))
    assert is_unverified(failed("shop"), verified("blog"), ended(Outcome.COMPLETED, "shop"))


def test_what_the_collector_knows_to_have_failed_is_its_own_affair() -> None:
    """What is forbidden is no failure unless it was asked for; namespaces may prove what a list of all cannot."""
    assert not is_unverified(failed(state="forbidden"), ended(Outcome.FORBIDDEN))
    assert not is_unverified(failed(), ended(Outcome.FAILED), verified("shop"), ended(Outcome.COMPLETED, "shop"))
    assert is_unverified(failed(), ended(Outcome.COMPLETED), failed(resource="nodes"), ended(Outcome.FAILED))


def test_batches_are_added_up() -> None:
    moments = iter([10.0, 12.5])
    stored = Sum(unobserved, lambda: next(moments))
    for records in (3, 4):
        stored(
            BatchStored(
                lane="t-0", records=records, rows_written=2, rows_unchanged=1, rows_ignored=0, rows_deleted=1,
                history_rows=5, dead_letters=0, size_bytes=100, copy_s=0.1, merge_s=0.1, commit_s=0.1,
            )
        )  # fmt: skip
    assert stored.all_stored() == AllStored(
        batches=2, records=7, rows_written=4, rows_unchanged=2, rows_ignored=0, rows_deleted=2, dead_letters=0,
        size_bytes=200, seconds=2.5,
    )  # fmt: skip
