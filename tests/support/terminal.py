"""`clusterinfo` on a terminal: a pty of 80x24, and the screen that a person is left with."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import struct
import tempfile
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import EXECUTABLE, Launching, Program

COLUMNS, LINES = 80, 24
_STYLE = re.compile(r"\x1b\[[\d;]*m")
_PROGRESS = re.compile(r"\d+/(\d+|\?) kinds|━|[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]")
_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+|\x1b")


MODES = "?25", "?7"
"""The cursor is shown; lines that are too long go on in the next one."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How a program ended, all that it wrote to its terminal, and to the pipe that was its stdout, if it was one."""

    code: int
    terminal: str
    piped: str

    @property
    def moves(self) -> list[str]:
        """Whatever the terminal was sent besides text, line ends and styles: what a progress display is made of."""
        plain = _STYLE.sub("", self.terminal).replace("\r\n", "\n")
        return re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|[\x00-\x09\x0b-\x1f\x7f]", plain)

    @property
    def passing_progress(self) -> bool:
        """True if a progress display was shown, and nothing of it is left."""
        left = [line for line in self.screen() if _PROGRESS.search(line)]
        return bool(_PROGRESS.search(self.terminal)) and not left

    def screen(self) -> list[str]:
        """The lines that are left, scrolled ones included, without spaces at their ends."""
        return rendered(self.terminal)


def rendered(written: str) -> list[str]:
    """What a terminal shows of it. Raises for a control sequence that is not known here, and for a hidden cursor."""
    screen, row, column, modes = [""], 0, 0, dict.fromkeys(MODES, True)
    for token in _TOKEN.finditer(written):
        text, (argument, order) = token[0], token.groups()
        if order is None and text not in "\r\n":
            assert text.isprintable(), f"{text!r} on a terminal"
            row, column = _put(screen, row, column, text if modes["?7"] else text[: COLUMNS - column])
        elif text == "\r":
            column = 0
        elif text == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif order == "A":
            row = max(0, row - int(argument or 1))
        elif order == "K":
            screen[row] = "" if argument == "2" else screen[row][:column]
        elif order == "H" and not argument:
            row, column = 0, 0
        elif order == "J" and not argument:
            screen[row:] = [screen[row][:column]]
        elif argument in MODES:
            modes[argument] = order == "h"
        else:
            assert order == "m", f"{text!r} on a terminal"
    assert all(modes.values()), "the cursor stays hidden, or long lines cut"
    return [line.rstrip() for line in screen]


def _put(screen: list[str], row: int, column: int, text: str) -> tuple[int, int]:
    """Write over what stands there, and on into the next line; gives row and column."""
    for character in text:
        if column == COLUMNS:
            column, row = 0, row + 1
            screen += [""] * (row + 1 - len(screen))
        line = screen[row].ljust(column)
        screen[row] = line[:column] + character + line[column + 1 :]
        column += 1
    return row, column


async def on_terminal(
    *args: str, env: Mapping[str, str], typed: str = "", pipe: bool = False, timeout_s: float = 60
) -> Shown:
    """`clusterinfo ARGS` with stdin, stderr and (unless `pipe`) stdout on a terminal, until it ends by itself.

    `env` is all of its environment but what finds programs. `typed` is answered to what it asks (it ends with a colon).
    """
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory(prefix="clusterinfo-test-") as name, contextlib.ExitStack() as stack:
        stack.callback(os.close, ours)
        directory = Path(name)
        for stream in ("stdin", "stderr") if pipe else ("stdin", "stdout", "stderr"):
            (directory / stream).symlink_to(os.ttyname(its))
        with os.fdopen(its):
            program = Launching.launch((str(EXECUTABLE), *args), {"TERM": "xterm-256color", **env}, directory)
            stack.callback(program.kill)  # before the thread that reads is waited for: it ends with the program
            await _holds(program, os.ttyname(its))
        async with asyncio.timeout(timeout_s):
            written = await asyncio.to_thread(_read, ours, typed)
            code = await asyncio.to_thread(program.wait, timeout_s)
        return Shown(code, written, program.stdout() if pipe else "")


async def _holds(program: Program, terminal: str) -> None:
    """Wait until it has opened its terminal, or it has ended: who closes it last ends what is read of it."""
    async with asyncio.timeout(60):
        while program.is_running:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # it is just ending
                if str(Path(f"/proc/{program.pid}/fd/2").readlink()) == terminal:
                    return
            await asyncio.sleep(0.005)


def _read(terminal: int, typed: str) -> str:
    """All of it, until whoever writes to it has ended: Linux says so by EIO. A question is answered by `typed`."""
    read = bytearray()
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 65536):
            read += chunk
            if typed and read.endswith(b": "):
                os.write(terminal, typed.encode())
                typed = ""
    return read.decode(errors="backslashreplace")
