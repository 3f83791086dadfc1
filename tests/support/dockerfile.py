"""What the Dockerfile says: its stages and their instructions, as far as it uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its (instruction, rest of it) in order, FROM first; the one without a name is `default`."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []  # what stands before the first stage: the base that may be given
    for line in filter(None, joined.splitlines()):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            current = found.setdefault(rest.partition(" AS ")[2] or "default", [])
        current.append((keyword, rest))
    return found


def base(stage: str) -> str:
    """What the stage is made from: an image, or another stage."""
    return stages()[stage][0][1].split(" ")[0]


def lineage(stage: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of all stages it is made from, the oldest first."""
    own = stages()
    return (lineage(base(stage)) if base(stage) in own else []) + own[stage]


def runs(stage: str) -> list[str]:
    """The shell commands that the stage itself runs."""
    return [rest for keyword, rest in stages()[stage] if keyword == "RUN"]


def variables(stage: str) -> dict[str, str]:
    """The environment that the stage and those it is made from set."""
    return dict(pair.split("=", 1) for keyword, rest in lineage(stage) if keyword == "ENV" for pair in rest.split(" "))


def argv(stage: str, instruction: str) -> list[str]:
    """The argument list of ENTRYPOINT, CMD or HEALTHCHECK as the stage's container has it."""
    last = [rest for keyword, rest in lineage(stage) if keyword == instruction][-1]
    found: Any = json.loads(last[last.index("[") :])
    return [str(part) for part in found]


def admitted() -> list[str]:
    """What .dockerignore lets into the build."""
    return re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
