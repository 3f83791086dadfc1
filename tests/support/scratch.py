"""Where tests put what is gone after them: into memory, where the machine has a file system for that and room in it.

Each test clones a database of three hundred files; on a disk's file system that costs a tenth of a second of processor
time, in memory a tenth of that. No test is about a disk.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30
"""Left free for what else uses it; a run takes a quarter of that. Docker gives a container 64 MiB."""


def use_memory(directory: Path = IN_MEMORY) -> None:
    """Make it the temporary directory of this process and of those it starts, if it suits and none was chosen."""
    if "TMPDIR" not in os.environ and suits(directory):
        os.environ["TMPDIR"] = tempfile.tempdir = str(directory)


def suits(directory: Path) -> bool:
    """True if anybody may make files there and execute them, and there is room."""
    if not directory.is_dir() or directory.stat().st_mode & 0o1777 != 0o1777:
        return False
    found = os.statvfs(directory)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM_BYTES
