"""The executable, before it knows what it is to do."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, *_):
        if name == "clusterinfo.cli":
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
from clusterinfo.__main__ import main

main()
"""


def test_the_executable_begins_there() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"clusterinfo": "clusterinfo.__main__:main"}


def test_ctrl_c_while_it_is_imported_ends_it_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "importing\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=150)
        assert (program.returncode, errors) == (-signal.SIGINT, "")
