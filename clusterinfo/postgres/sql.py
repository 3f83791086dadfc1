"""Hands out the statements of the SQL files beside it by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

FILES = "merge/merge.sql", "admin/admin.sql", "admin/overview.sql"
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Name -> SQL text of every statement, captions included."""
    found: dict[str, str] = {}
    for name in FILES:
        _, *parts = _NAME.split(files("clusterinfo.postgres").joinpath(name).read_text(encoding="utf-8"))
        found |= zip(parts[::2], parts[1::2], strict=True)
    return found
