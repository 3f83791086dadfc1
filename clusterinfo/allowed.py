"""What a setting allows, in words, where pydantic would answer in its own. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

NUMBERS = {
    "int_parsing", "int_type", "float_parsing", "float_type", "int_parsing_size", "finite_number",
    "greater_than", "greater_than_equal", "less_than_equal",
}  # fmt: skip
"""pydantic's types of errors about a number, which all have one answer: https://docs.pydantic.dev/latest/errors/validation_errors/"""
SIZES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}


def allowed(kind: str, context: dict[str, Any], field: FieldInfo) -> str:
    """`allowed is ...` for pydantic's type of an error and its context; "" where its own message has to do."""
    match kind:
        case "bool_parsing" | "bool_type":
            return "allowed is true or false"
        case "literal_error":
            return f"allowed is {context['expected'].replace(chr(39), '')}"
        case "too_short":
            return "allowed are one or more, with commas between them"
        case _ if kind in NUMBERS:
            return f"allowed is {_number(field)}"
    return ""


def _number(field: FieldInfo) -> str:
    """`a whole number from 1 to 1000`, `a duration above 0s`."""
    noun, spelled = unit(field)
    words = noun
    for bound in field.metadata:
        match bound:
            case Gt(gt=least):
                words += f" above {spelled(least)}"
            case Ge(ge=least):
                words += f" from {spelled(least)}"
            case Le(le=most):
                words += f" to {spelled(most)}"
    return words


def unit(field: FieldInfo) -> tuple[str, Callable[[Any], str]]:
    """What its numbers are called and how one is spelled."""
    parsers = {getattr(getattr(one, "func", None), "__name__", "") for one in field.metadata}
    if "parse_duration" in parsers:
        return "a duration", lambda seconds: f"{seconds:g}s"
    if "parse_size" in parsers:
        return "a size", _size
    whole = int in (field.annotation, *get_args(field.annotation))
    return ("a whole number" if whole else "a number"), lambda number: f"{number:g}" if number < 1e6 else str(number)


def _size(count: int) -> str:
    return next(f"{count // bytes_}{unit}" for unit, bytes_ in SIZES.items() if count % bytes_ == 0)
