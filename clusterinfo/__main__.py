"""The executable, and `python -m clusterinfo`. Nothing is imported here that takes time.

While the rest is, Ctrl-C ends the process by the signal itself, which a shell shows as 130: Python would print where
it was.
"""

import signal


def main() -> None:
    """Run the command of the command line, and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from clusterinfo import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
