"""Hands out the statements of `merge.sql` by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Name -> SQL text of every statement of `merge.sql`, captions included."""
    text = files("clusterinfo.postgres").joinpath("merge.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))
