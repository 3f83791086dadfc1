"""Durations as people write and read them: `1m30s` in settings and flags, `4m` in what is printed. Pure."""

from __future__ import annotations

import re
from typing import Any

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*"
_WHOLE = re.compile(f"(?:{_PART})+")


def parse_duration(value: Any) -> float:
    """`500ms`, `1m30s`, `90d` -> seconds. Raises ValueError with what is allowed."""
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    if _WHOLE.fullmatch(text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, text))
    raise ValueError("allowed are numbers, each with a unit: ms, s, m, h or d, such as 30s or 1m30s")


def short_duration(seconds: float) -> str:
    """`70s`, `5m`, `3h`, `2d`: as kubectl has ages, the largest unit of which there are enough to tell."""
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS_S[unit]:
            return f"{int(seconds // _UNITS_S[unit])}{unit}"
    return f"{int(max(0, seconds))}s"
