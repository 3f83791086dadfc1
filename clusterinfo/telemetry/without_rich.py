"""structlog without rich, which it imports wherever it finds it: 30 ms of a start, for tracebacks in colour.

A traceback is text here before any renderer has it (`logs.py`). Whoever wants structlog imports it from here.
"""

from __future__ import annotations

import sys

_HIDDEN = [name for name in ("rich.console", "rich.pretty", "rich.traceback") if name not in sys.modules]

sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]  # None: it cannot be imported
try:
    import structlog
finally:
    for name in _HIDDEN:
        del sys.modules[name]

__all__ = ["structlog"]
