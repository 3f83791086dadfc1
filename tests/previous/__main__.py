"""Makes a release the previous one: `python -m tests.previous v1.2.3` builds its wheel into this folder.

The same revision gives the same bytes, as long as hatchling is the same: it dates all files alike. The sandbox stays
out: it is a third of the wheel, and nothing of it writes to a database.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def build(revision: str, folder: Path) -> Path:
    """The wheel of a revision, made in `folder`. Raises CalledProcessError for what git or pip cannot do."""
    source = folder / "source"
    archive = subprocess.run(["git", "archive", "--format=tar", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(source, filter="data")
    shutil.rmtree(source / "clusterinfo" / "sandbox")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.previous", description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="a tag, or a commit")
    revision = parser.parse_args().revision
    with tempfile.TemporaryDirectory(prefix="clusterinfo-previous-") as folder:
        wheel = build(revision, Path(folder))
        for replaced in HERE.glob("*.whl"):
            replaced.unlink()
        shutil.move(wheel, HERE / wheel.name)
    print(f"the previous release is {wheel.name} of {revision}")


if __name__ == "__main__":
    main()
