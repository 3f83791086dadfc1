"""The exit codes, a contract: docs/CLI.md has the table of them."""

EXIT_DONE = 0
EXIT_STOPPED = 1
"""Unreachable, refused, or stopped before the end."""
EXIT_USAGE = 2
"""Wrong usage or settings."""
EXIT_ATTENTION = 3
"""A kind failed, or something needs attention."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, whatever else: 128 + SIGINT, as shells have it."""
