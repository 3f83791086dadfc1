"""The tools that read what is shipped. Not among `testpaths`: .ci/run installs them and puts them on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployed import K8S

Run = Callable[..., str]


def kustomized(run: Run, folder: Path, overlay: str, components: Sequence[str]) -> list[Any]:
    """The manifests of an overlay with some components, taken into it as docs/DEPLOYMENT.md says, in `folder`."""
    copy = folder / "k8s"
    shutil.copytree(K8S, copy, ignore=shutil.ignore_patterns("chart"))
    path = copy / overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text())
    if overlay == "base":  # nobody changes it: an overlay of one's own takes it, and components
        path = copy / "overlays/mine/kustomization.yaml"
        path.parent.mkdir()
        kustomization = {"resources": ["../../base"]}
    kustomization["components"] = [os.path.relpath(copy / "components" / name, path.parent) for name in components]
    path.write_text(yaml.safe_dump(kustomization))
    return list(yaml.safe_load_all(run("kubectl", "kustomize", path.parent)))


@pytest.fixture(scope="session")
def tool() -> Run:
    """Run a tool by its name: gives its stdout, fails with what it printed."""

    def run(name: str, *args: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
        assert shutil.which(name), f"{name} is not on PATH: see deployment_files in .ci/run"
        argv = [name, *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=env)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
