"""What the database says of lists that were sent whole, as the exit code of a run straight into it takes it."""

from __future__ import annotations

from clusterinfo.commands.pipelines import UnverifiedLists
from clusterinfo.model import Outcome
from clusterinfo.observations import ListEnded, Observation, UnitFailed, UnitVerified


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
