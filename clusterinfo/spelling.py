"""What somebody may have meant by a name that there is not. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""How alike two names have to be, as difflib has it by default."""


def meant(name: str, names: Iterable[str], cutoff: float = CUTOFF) -> str:
    """The one of `names` that `name` is most like; "" if none is, or if it is one of them.

    A kind may be given without its group: `deployments` means `deployments.apps`. Wildcards do not count.
    """
    looked_for = name.lower().replace("*", "")
    by_alias: dict[str, str] = {}
    for one in names:
        by_alias[one] = one
        by_alias.setdefault(_first(one), one)
    same = [one for one in by_alias.values() if _first(one) == _first(looked_for)]
    close = difflib.get_close_matches(looked_for, same or by_alias, n=1, cutoff=0 if same else cutoff)
    found = by_alias[close[0]] if close else ""
    return found if found != name else ""


def _first(name: str) -> str:
    return name.partition(".")[0]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The question, for a message; "" if nothing is close."""
    found = meant(name, names)
    return f"did you mean {found}?" if found else ""
