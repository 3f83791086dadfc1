"""The executable, and `python -m clusterinfo`. Nothing is imported here that takes time.

While the rest is, Ctrl-C ends the process by the signal itself, which a shell shows as 130: Python would print where
it was. Nor is garbage collected, of which imports leave next to none: to look for it took a tenth of a start.
"""

import gc
import signal


def main() -> None:
    """Run the command of the command line, and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # until the command runs: see `lifecycle.run`
    from clusterinfo import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
