"""`python -m tests.faults.program ARGS`: `clusterinfo ARGS`, with a short session in the consumer group.

SESSION_TIMEOUT_S sets how long the group keeps the partitions of a member that was killed (the program's own: 30 s).
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

from clusterinfo import cli
from clusterinfo.kafka import group

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
BEATS_A_SESSION = 4


def die_with_parent() -> None:
    """Whoever runs the tests may be killed: nothing of them stays behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def shorten_sessions(session_timeout_s: float) -> None:
    """Have every consumer made from now on join with this session timeout."""
    module: Any = group
    make: Callable[..., Any] = module.AIOKafkaConsumer
    session_timeout_ms = int(session_timeout_s * 1000)
    short = {
        "session_timeout_ms": session_timeout_ms,
        "heartbeat_interval_ms": session_timeout_ms // BEATS_A_SESSION,
        "retry_backoff_ms": 50,
    }

    def made(*args: Any, **options: Any) -> Any:
        return make(*args, **options | short)

    module.AIOKafkaConsumer = made


def main() -> None:
    die_with_parent()
    if seconds := os.environ.get("SESSION_TIMEOUT_S"):
        shorten_sessions(float(seconds))
    cli.main()


if __name__ == "__main__":
    main()
