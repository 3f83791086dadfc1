"""Dead letters as people and scripts read them. What strangers wrote never reaches a terminal unescaped. Pure but for
`print_table`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clusterinfo.model import ListLane, Unit
from clusterinfo.postgres.admin.dead_letters import Letter

PIPED_WIDTH = 200
"""Columns where stdout is no terminal: a line a letter, however narrow the screen is that nobody looks at."""


def printable(text: str, keep: str = "") -> str:
    """`text` with what would steer a terminal as backslash escapes, but for the characters of `keep`."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def what(letter: Letter) -> str:
    """The object it is about, as kubectl would name it, else the CloudEvents subject, else nothing."""
    if letter.identity is None:
        subject = dict(letter.headers).get("ce_subject")
        return (subject or b"").decode(errors="backslashreplace")
    cluster, group, resource, namespace, name = letter.identity
    kind = str(ListLane(Unit(cluster, group, resource)))
    return " ".join(part for part in (kind, f"{namespace}/{name}" if namespace else name) if part)


def print_table(letters: Sequence[Letter]) -> None:
    """One line a letter; only the headings if there are none."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("id", "created", "topic/partition/offset", "what", "reason", "replayed"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "id" else "left")
    for letter in letters:
        cells = (
            str(letter.id),
            f"{letter.created_at:%Y-%m-%d %H:%M:%SZ}",
            f"{letter.topic}/{letter.partition}/{letter.offset}" if letter.topic else "no topic",
            what(letter),
            letter.reason,
            f"{letter.replayed_at:%Y-%m-%d %H:%M:%SZ}" if letter.replayed_at else "",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)


def as_json(letter: Letter) -> str:
    """One line for scripts: all but key, headers and value."""
    cluster = letter.identity[0] if letter.identity else None
    shown = {
        "id": letter.id,
        "created_at": letter.created_at,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "cluster": cluster,
        "what": what(letter),
        "reason": letter.reason,
        "sqlstate": letter.sqlstate,
        "size_bytes": letter.size_bytes,
        "cut_off": letter.is_cut_off,
        "replayed_at": letter.replayed_at,
    }
    return orjson.dumps(shown, option=orjson.OPT_UTC_Z).decode()


def as_text(letter: Letter) -> str:
    """All that is known: attributes, key, headers, an empty line, the value. Undecodable bytes as escapes."""
    attributes = {
        "id": letter.id,
        "created": letter.created_at.isoformat(),
        "replayed": letter.replayed_at.isoformat() if letter.replayed_at else "no",
        "topic": f"{letter.topic}, partition {letter.partition}, offset {letter.offset}" if letter.topic else "none",
        "reason": letter.reason,
        "sqlstate": letter.sqlstate or "none",
        "size": f"{letter.size_bytes} bytes" + (", of which not all were kept" if letter.is_cut_off else ""),
        "key": "none" if letter.key is None else letter.key.decode(errors="backslashreplace"),
    }
    lines = [f"{name}: {printable(str(value))}" for name, value in attributes.items()]
    lines += [f"header {printable(name)}: {printable(_text(value))}" for name, value in letter.headers]
    value = (letter.value or b"").decode(errors="backslashreplace")
    return "\n".join([*lines, "", printable(value, keep="\n\t")])


def _text(value: bytes | None) -> str:
    return "null" if value is None else value.decode(errors="backslashreplace")
