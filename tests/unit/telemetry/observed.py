"""One observation of every kind."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec

from clusterinfo import observations as seen
from clusterinfo.observations import Observation

VALUES: dict[Any, Any] = {
    bool: True,
    str: "x",
    int: 1,
    float: 0.5,
    float | None: 0.5,
    tuple[str, ...]: ("x",),
    tuple[int, ...]: (1,),
    tuple[float, ...]: (0.5,),
}


def all_observations() -> list[Observation]:
    kinds = [kind for kind in vars(seen).values() if isinstance(kind, type) and issubclass(kind, Observation)]
    return [
        kind(**{field.name: VALUES[get_type_hints(kind)[field.name]] for field in msgspec.structs.fields(kind)})
        for kind in kinds
        if kind not in (Observation, seen.Repeatable)
    ]
