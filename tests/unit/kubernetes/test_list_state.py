"""What may complete, and why not: an attempt to list, given pages, items and failures one by one."""

from __future__ import annotations

import pytest

from clusterinfo.kubernetes import listed_keys
from clusterinfo.kubernetes.list_state import PAGE_FAILURES, ListState, Verdict
from clusterinfo.kubernetes.pages import ListPage
from clusterinfo.model import CLOCK, GroupVersionResource, ListLane, Outcome, Unit, digest_hex, item_digest
from clusterinfo.statements import ListCompleted, ListFailed

PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
NODES = GroupVersionResource("", "v1", "nodes", "Node", namespaced=False)


def begun(gvr: GroupVersionResource = PODS, reach: str = "", newest: int = 0, ordering: str = "") -> ListState:
    lane = ListLane(Unit("c", gvr.group, gvr.resource), reach)
    return ListState(lane, gvr, "list-1", newest=newest, ordering=ordering)


def page(version: str = "7", token: str = "") -> ListPage:
    return ListPage(resource_version=version, continue_token=token, items=[])


def reason(verdict: Verdict | None) -> str:
    """Of a list that failed."""
    assert verdict is not None
    assert isinstance(verdict.statement, ListFailed)
    return verdict.statement.reason


def test_a_list_of_no_items_completes() -> None:
    state = begun()
    assert state.admit(page())
    assert (state.is_whole, state.version) == (True, "7")
    assert state.verdict() == Verdict(outcome=Outcome.COMPLETED, statement=ListCompleted(0, "0" * 32))


def test_pages_follow_each_other_by_their_tokens_and_every_item_counts() -> None:
    state = begun()
    tokens = []
    for token in ("one", "two", ""):
        assert state.admit(page(token=token))
        tokens.append((state.token, state.pages, state.is_whole))
        state.add("shop", f"before-{token}", "5")
    assert tokens == [("one", 1, False), ("two", 2, False), ("", 3, True)]
    digest = sum(item_digest("shop", f"before-{token}", "5") for token in ("one", "two", ""))
    assert state.verdict().statement == ListCompleted(3, digest_hex(digest))


def test_the_order_of_items_does_not_matter_and_what_they_are_does() -> None:
    def digest(*items: tuple[str, str, str]) -> str:
        state = begun()
        state.admit(page())
        for item in items:
            assert state.add(*item)
        statement = state.verdict().statement
        assert isinstance(statement, ListCompleted)
        return statement.digest

    one, other = ("shop", "a", "1"), ("shop", "b", "2")
    assert digest(one, other) == digest(other, one)
    assert len({digest(one), digest(other), digest(one, other), digest(("shop", "a", "2"))}) == 4


# --- what keeps it from completing -----------------------------------------------------------------------------------


def test_a_page_of_another_version_ends_it() -> None:
    state = begun()
    state.admit(page("7", token="one"))
    state.add("shop", "a", "5")
    assert not state.admit(page("8", token="two"))
    assert (state.is_whole, state.version, state.pages) == (True, "7", 1)
    assert reason(state.verdict()) == "page 1 is of resourceVersion 8, not 7"
    assert state.verdict().statement == ListFailed(0, reason(state.verdict()), sent=1)


@pytest.mark.parametrize(("version", "newest", "admitted"), [("9", 10, False), ("10", 10, True), ("abc", 10, True)])
def test_a_list_older_than_the_one_before_fails(version: str, newest: int, admitted: bool) -> None:
    state = begun(newest=newest)
    assert state.admit(page(version)) is admitted
    verdict = state.verdict()
    assert verdict.outcome is (Outcome.COMPLETED if admitted else Outcome.FAILED)
    assert ("from 10 to 9" in verdict.error, "CLUSTER_EPOCH" in verdict.error) == (not admitted, not admitted)


def test_what_is_ordered_by_the_clock_may_be_of_an_older_version() -> None:
    state = begun(newest=10, ordering=CLOCK)
    assert state.admit(page("9"))
    assert (state.verdict().outcome, state.ordering) == (Outcome.COMPLETED, CLOCK)


@pytest.mark.parametrize("version", ["", "abc", "0", "-1", "1.5", "9223372036854775808", "1" * 5000])
def test_a_version_that_is_no_integer_of_64_bits_orders_nothing(version: str) -> None:
    state = begun(newest=10)
    assert state.ordering == ""
    assert state.admit(page(version, token="one"))
    assert state.ordering == CLOCK
    assert not state.admit(page("12")), "its pages are of one version all the same"
    assert state.ordering == CLOCK
    assert state.again("list-2").ordering == CLOCK


def test_a_version_that_is_one_orders_its_list() -> None:
    state = begun()
    state.admit(page("4611686018427387904", token="one"))
    assert not state.admit(page("abc"))
    assert state.ordering == state.again("list-2").ordering == ""


def test_an_item_that_was_skipped_keeps_it_from_completing_and_the_first_says_why() -> None:
    state = begun()
    state.admit(page())
    state.add("shop", "a", "5")
    state.skip("it has no name")
    state.skip("it is a number")
    verdict = state.verdict()
    assert (verdict.outcome, verdict.error) == (Outcome.FAILED, "it has no name")
    assert verdict.statement == ListFailed(0, "it has no name", sent=1)


@pytest.mark.parametrize(("namespace", "named"), [("shop", "shop/a"), ("", "a")])
def test_an_item_that_comes_twice_is_not_sent_again_and_keeps_it_from_completing(namespace: str, named: str) -> None:
    state = begun()
    state.admit(page(token="one"))
    assert state.add(namespace, "a", "5")
    assert state.add(namespace, "b", "6")
    state.admit(page())
    assert not state.add(namespace, "a", "7")
    assert state.verdict().statement == ListFailed(0, f"the list names {named} twice", sent=2)
    assert state.again("list-2").add(namespace, "a", "5"), "another attempt begins again"


def test_a_name_in_two_namespaces_is_two_items() -> None:
    state = begun()
    state.admit(page())
    assert [state.add(namespace, "a", "5") for namespace in ("shop", "blog", "")] == [True] * 3
    assert state.verdict().outcome is Outcome.COMPLETED


def test_a_list_that_cannot_be_told_to_name_all_once_does_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_keys, "KEPT", 2)
    state = begun()
    state.admit(page())
    assert all(state.add("shop", name, "5") for name in "bcdea")
    assert "whether the list names an object twice cannot be told" in reason(state.verdict())
    assert state.count == 5, "it is sent all the same"


# --- failures and refusals -------------------------------------------------------------------------------------------


def test_a_page_may_fail_four_times_in_a_row() -> None:
    state = begun()
    for token in ("one", ""):
        assert [state.after_failure(500, "down") for _ in range(PAGE_FAILURES - 1)] == [None] * (PAGE_FAILURES - 1)
        assert state.admit(page(token=token))
    assert state.verdict().outcome is Outcome.COMPLETED


def test_the_fifth_failure_in_a_row_ends_it() -> None:
    state = begun()
    state.admit(page(token="one"))
    state.add("shop", "a", "5")
    *_, last = [state.after_failure(503, "down") for _ in range(PAGE_FAILURES)]
    assert last is not None
    assert last.statement == ListFailed(503, "5 failures in a row, the last: down", sent=1)


def test_another_attempt_has_another_five() -> None:
    state = begun()
    for _ in range(PAGE_FAILURES - 1):
        state.after_failure(500, "down")
    assert state.again("list-2").after_failure(500, "down") is None


@pytest.mark.parametrize(
    ("status", "message", "outcome", "statement", "error"),
    [
        (403, "pods is forbidden", Outcome.FORBIDDEN, "Forbidden", "Forbidden: pods is forbidden"),
        (404, "no such kind", Outcome.FAILED, "Refused: no such kind", "Refused: no such kind"),
        (405, "", Outcome.FAILED, "Refused", "Refused"),
        (410, "too old", Outcome.FAILED, "Refused: too old", "Refused: too old"),
    ],
)
def test_what_is_refused_fails_at_once(status: int, message: str, outcome: Outcome, statement: str, error: str) -> None:
    verdict = begun().after_refusal(status, "Refused", message)
    expected = ListFailed(status, statement)
    assert verdict == Verdict(outcome=outcome, statement=expected, error=error, is_too_slow=False)


@pytest.mark.parametrize(
    ("gvr", "reach", "remedy"),
    [(PODS, "", "namespace by namespace"), (PODS, "shop", "PAGE_SIZE"), (NODES, "", "PAGE_SIZE")],
)
def test_the_second_token_that_expires_ends_it(gvr: GroupVersionResource, reach: str, remedy: str) -> None:
    first = begun(gvr, reach)
    first.admit(page(token="one"))
    first.add("shop", "a", "5")
    assert first.after_refusal(410, "Expired", "too old") is None
    second = first.again("list-2")
    assert (second.id, second.token, second.version, second.count) == ("list-2", "", None, 0)
    second.admit(page("8", token="one"))
    verdict = second.after_refusal(410, "Expired", "too old")
    assert verdict is not None
    assert verdict.is_too_slow
    assert reason(verdict).startswith("the continue token expired 2 times: ")
    assert remedy in reason(verdict)


def test_another_attempt_is_still_not_older_than_the_list_before() -> None:
    assert not begun(newest=10).again("list-2").admit(page("9"))
