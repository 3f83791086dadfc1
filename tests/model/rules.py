"""What can happen in a history, and how often: the rules' names, what they are given, what opens a history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.model.draws import Among, Draw, Made, Many, Maybe, Whole
from tests.model.events import MOST_PARTITIONS, NAMES, NAMESPACES, Change, Job, Plan, Wish
from tests.model.scenarios import SCENES
from tests.model.schedule import AFTER, AT_COMMIT, BEFORE, Crash
from tests.model.state import NUL, REFUSED, WILD

JOBS = Made(
    Job,
    {
        "partition": Among((0, 0, 1, 2)), "size": Among((2, 3, 5, 8, 30)),
        "claims": Among((False, False, False, True)),
    },
)  # fmt: skip
CRASHES = Made(
    Crash,
    {
        "actor": Whole(0, 1), "step": Among((*range(23), AT_COMMIT, AT_COMMIT, AT_COMMIT)),
        "when": Among((BEFORE, AFTER)), "hard": Among((False,) * 7 + (True,)),
    },
)  # fmt: skip
RUNS = Many(Whole(1, 14), 0, 5)
PLANS = Made(Plan, {"first": JOBS, "second": Maybe(JOBS, 0.3), "runs": RUNS, "crash": Maybe(CRASHES, 0.4)})
DELIVERY = Maybe(PLANS, 0.5)
WISHES = Made(
    Wish,
    {
        "cluster": Whole(0, 1), "kind": Among((0, 0, 0, 1, 2, 3)), "reach": Among(("", "", "", "n1", "n2")),
        "rules": Among((1, 1, 2)), "stubs": Among((0, 0, 0, 1, 2, 7)), "slow": Among((False, True)),
        "fate": Among(
            ("whole",) * 7 + ("cut", "lost", "swapped", "failed", "forbidden", "expired", "twice", "late", "late")
            + ("overtaken", "pages")
        ),
        "where": Whole(0, 5),
    },
)  # fmt: skip
CHANGES = Made(
    Change,
    {
        "kind": Among((0, 0, 0, 1, 2, 3)), "namespace": Among(NAMESPACES), "name": Among(NAMES),
        "what": Among(("put", "put", "delete", "recreate")),
        "content": Among((0, 1, 2, 0, 1, 2, REFUSED, NUL, WILD)), "watched": Among((False, True)),
    },
)  # fmt: skip
UPSETS = (
    "restore forwards", "restore backwards", "restore backwards", "restore in silence", "repartition", "scatter",
    "send again", "send again", "intrude", "reset", "upgrade",
)  # fmt: skip

OPENING: Mapping[str, Draw] = {
    "clusters": Whole(1, 2), "one_name": Among((False, True)),
    "partitions": Whole(1, MOST_PARTITIONS), "scattered": Whole(0, 2), "changes": Many(CHANGES, 2, 5),
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """What can happen: a method of `History`, what it is given, how often it is drawn, and when it can be."""

    draws: Mapping[str, Draw]
    weight: int = 1
    possible: Callable[[Any], object] = lambda _: True


RULES: Mapping[str, Rule] = {
    "change": Rule({"cluster": Whole(0, 1), "changes": Many(CHANGES, 1, 4), "plan": DELIVERY}),
    "collect": Rule({"wish": WISHES, "plan": DELIVERY}),
    "change_and_collect": Rule({"changes": Many(CHANGES, 1, 3), "wish": WISHES, "plan": PLANS}, 2),
    "collect_twice": Rule(
        {"first": WISHES, "changes": Many(CHANGES, 1, 3), "second": WISHES, "mixed": Whole(0, 1 << 16), "plan": PLANS}
    ),
    "deliver_late": Rule({"count": Whole(1, 8), "plan": DELIVERY}, 1, lambda history: history.held),
    "snapshot": Rule(
        {
            "cluster": Whole(0, 1), "renamed": Among((False, True)),
            "fates": Many(Among(("completed",) * 5 + ("gone", "excluded", "failed", "forbidden")), 4, 4),
            "whole": Among((True, True, False)), "plan": DELIVERY, "late": Among((False, False, True)),
        }
    ),
    "upset": Rule(
        {
            "what": Among(UPSETS), "cluster": Whole(0, 1), "partition": Whole(0, MOST_PARTITIONS - 1),
            "number": Whole(1, 8), "plan": DELIVERY,
        }
    ),
    "consume": Rule({"plan": PLANS}, 2),
    "write_page": Rule(
        {"both": Among((False, True)), "runs": Many(Whole(1, 14), 0, 4), "crash": Maybe(CRASHES)},
        2, lambda history: history.pages,
    ),
    "scene": Rule({"name": Among(tuple(SCENES)), "seed": Whole(0, 1 << 16)}),
}  # fmt: skip
