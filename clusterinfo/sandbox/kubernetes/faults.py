"""What goes wrong on purpose: a list of rules, which the server consults at each request. Pure.

Resources are named as kubectl does (`pods`, `deployments.apps`), `*` is all of them. `times`: how often, None for ever;
`page`: only that page of a list, counted from 1, None for all.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Verb = Literal["get", "list", "watch", "create", "update"]
What = Literal[
    "forbid", "fail", "throttle", "expire", "cut", "stall", "wrong-version", "list-version", "null-items",
    "watch-cut", "watch-silence", "watch-line",
]  # fmt: skip


@dataclass(slots=True)
class Rule:
    """One fault. `value`: HTTP status, seconds, or nothing, as `what` needs it."""

    what: What
    resource: str
    value: float = 0
    times: int | None = None
    page: int | None = None
    namespace: str | None = None
    verb: Verb | None = None
    text: str = ""

    def applies(self, resource: str, verb: Verb, namespace: str | None, page: int) -> bool:
        return (
            self.times != 0
            and self.resource in ("*", resource)
            and self.verb in (None, verb)
            and self.namespace in (None, namespace)
            and self.page in (None, page)
        )


class Faults:
    """Faults in force. `fired` counts how often each (what, resource) struck."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.fired: Counter[tuple[str, str]] = Counter()
        self.stale_groups: dict[str, bool] = {}
        self.aggregated_versions: tuple[str, ...] = ("v2", "v2beta1")
        self.all_unauthorized = False

    def forbid(self, resource: str, namespace: str | None = None, verb: Verb | None = None) -> None:
        """403 for every verb, or for one, everywhere or in one namespace; until `clear`."""
        self.rules.append(Rule("forbid", resource, namespace=namespace, verb=verb))

    def forbids(self, resource: str, namespace: str, verb: str) -> bool:
        """Whether that is forbidden, for a review of rights."""
        return any(
            rule.what == "forbid"
            and rule.resource in ("*", resource)
            and rule.namespace in (None, namespace)
            and rule.verb in (None, verb)
            for rule in self.rules
        )

    def fail(
        self,
        resource: str,
        status: int = 500,
        times: int | None = None,
        page: int | None = None,
        verb: Verb | None = None,
    ) -> None:
        """Any other HTTP status, with a Status document."""
        self.rules.append(Rule("fail", resource, status, times, page, verb=verb))

    def throttle(self, resource: str, retry_after_s: int = 1, times: int | None = 1) -> None:
        """429 with Retry-After in seconds."""
        self.rules.append(Rule("throttle", resource, retry_after_s, times))

    def expire_token(self, resource: str, after_page: int = 1, times: int | None = 1) -> None:
        """410 for the token that page `after_page` gave; the token in that answer still works."""
        self.rules.append(Rule("expire", resource, 0, times, after_page + 1))

    def cut_body(self, resource: str, times: int | None = 1, page: int | None = None) -> None:
        """Half of the body, then the connection is closed."""
        self.rules.append(Rule("cut", resource, 0, times, page))

    def stall(self, resource: str, seconds: float, times: int | None = 1, page: int | None = None) -> None:
        """Half of the body, then silence for `seconds`, then the rest."""
        self.rules.append(Rule("stall", resource, seconds, times, page))

    def wrong_resource_version(self, resource: str, page: int = 2, times: int | None = None) -> None:
        """The page claims another list resourceVersion than the list's."""
        self.rules.append(Rule("wrong-version", resource, 0, times, page))

    def list_version(self, resource: str, version: str) -> None:
        """All its lists claim this resourceVersion whatever changes; "" leaves it out, as computed kinds do."""
        self.rules.append(Rule("list-version", resource, text=version))

    def null_items(self, resource: str, times: int | None = None) -> None:
        """An empty list has `"items":null`, as some aggregated servers do."""
        self.rules.append(Rule("null-items", resource, 0, times))

    def cut_watch(self, resource: str, times: int | None = 1) -> None:
        """Half of the next line of a watch, then the connection is closed."""
        self.rules.append(Rule("watch-cut", resource, 0, times))

    def silence_watch(self, resource: str, seconds: float, times: int | None = 1) -> None:
        """The next line of a watch, bookmarks included, comes so many seconds late, and what follows after it."""
        self.rules.append(Rule("watch-silence", resource, seconds, times))

    def say_on_watch(self, resource: str, line: str, times: int | None = 1) -> None:
        """This instead of the next line of a watch: garbage, an ERROR, an object of another kind."""
        self.rules.append(Rule("watch-line", resource, 0, times, text=line))

    def stale_discovery(self, group: str, lists: bool = False) -> None:
        """A group whose server is down: freshness Stale, no resources, 503 in legacy; `lists`: there too."""
        self.stale_groups[group] = lists

    def no_aggregated_discovery(self) -> None:
        """Only legacy discovery is served, as before Kubernetes 1.27."""
        self.aggregated_versions = ()

    def only_beta_discovery(self) -> None:
        """Aggregated discovery as v2beta1 only, as in Kubernetes 1.27 to 1.29."""
        self.aggregated_versions = ("v2beta1",)

    def unauthorized(self, on: bool = True) -> None:
        """401 for every request."""
        self.all_unauthorized = on

    def clear(self, resource: str | None = None) -> None:
        """Drop all faults, or the rules of one resource."""
        if resource is not None:
            self.rules = [rule for rule in self.rules if rule.resource != resource]
            return
        self.rules.clear()
        self.stale_groups.clear()
        self.aggregated_versions = ("v2", "v2beta1")
        self.all_unauthorized = False

    def take(self, what: What, resource: str, verb: Verb, namespace: str | None, page: int = 1) -> Rule | None:
        """The rule of that sort that strikes this request, counted as used; None if there is none."""
        for rule in self.rules:
            if rule.what == what and rule.applies(resource, verb, namespace, page):
                if rule.times is not None:
                    rule.times -= 1
                self.fired[what, resource] += 1
                return rule
        return None
