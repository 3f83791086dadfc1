"""What the Dockerfile and requirements/ say. Whether an image of it runs is asked in tests/image."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from clusterinfo import __version__
from clusterinfo.settings import Settings
from tests.support.dockerfile import ROOT, TEXT, admitted, argv, base, lineage, runs, stages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNNING = ("collector", "consumer", "sandbox", "default")
LOCKS = {
    "program": PROJECT["project"]["dependencies"],
    "sandbox": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["sandbox"],
    "build": PROJECT["build-system"]["requires"],
}


def lock_file(name: str) -> Path:
    return ROOT / f"requirements/{name}.txt"


def pins(name: str) -> dict[str, Version]:
    """Package -> version."""
    pinned = re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock_file(name).read_text(), re.MULTILINE)
    return {package: Version(version) for package, version in pinned}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_what_the_project_asks_for(name: str) -> None:
    """Indirect dependencies too: whether they are all there, and only they, `make lock` shows; .ci/run runs it."""
    pinned = pins(name)
    for wanted in map(Requirement, LOCKS[name]):
        assert pinned[wanted.name.replace("_", "-").lower()] in wanted.specifier, f"{wanted}: run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_pin_with_hashes_and_names_no_index(name: str) -> None:
    text = lock_file(name).read_text()
    entries = re.split(r"\n(?=[a-z])", text.split("make lock\n")[1])
    assert len(entries) == len(pins(name))
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ (; .* )?\\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry), entry[:80]
    assert "://" not in text
    assert "--index" not in text


def test_the_locks_agree_with_each_other() -> None:
    program, sandbox = pins("program"), pins("sandbox")
    assert program == {package: sandbox[package] for package in program}


def test_nothing_is_installed_but_what_is_locked() -> None:
    installing = [command for stage in stages() for command in runs(stage)]
    for command in " && ".join(installing).split(" && "):
        if " install " in f"{command} " and "pip" in command:
            locked = "--require-hashes" in command and "--only-binary :all:" in command
            assert locked or "--no-deps --no-index" in command, command
    assert not re.search(r"apt|gcc|build-essential|curl", " ".join(installing))


@pytest.mark.parametrize("stage", RUNNING)
def test_what_runs_has_nothing_that_was_built_with(stage: str) -> None:
    """It is made from the slim image, and takes the finished environment alone from the stages that build."""
    made_of = {base(stage), *(base(name) for name in ("program", "runtime"))}
    assert {name for name in made_of if name not in stages()} == {base("runtime")}
    assert base("runtime") == "${PYTHON}", "see test_images_have_a_python_that_the_program_is_tested_with"
    copied = {rest.split(" ", 1)[1] for keyword, rest in lineage(stage) if keyword == "COPY"}
    assert copied == {"/opt/clusterinfo /opt/clusterinfo"}


@pytest.mark.parametrize("stage", RUNNING)
def test_an_image_says_what_it_is(stage: str) -> None:
    (given,) = [rest for keyword, rest in lineage(stage) if keyword == "LABEL"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', given))
    project = PROJECT["project"]
    assert (labels["title"], labels["licenses"]) == (project["name"], project["license"])
    assert labels["version"] == __version__
    declared = {rest.partition("=")[0] for keyword, rest in lineage(stage) if keyword == "ARG"}
    assert {labels["revision"], labels["base.name"]} == {"${REVISION}", "${PYTHON}"}
    assert declared >= {"REVISION", "PYTHON"}, "or they would be empty"


@pytest.mark.parametrize("stage", RUNNING)
def test_it_is_the_program_and_not_root_that_runs(stage: str) -> None:
    assert argv(stage, "ENTRYPOINT") == ["clusterinfo"]
    assert [rest for keyword, rest in lineage(stage) if keyword == "USER"] == ["65532:65532"]


@pytest.mark.parametrize(("stage", "command"), [("collector", "collect"), ("consumer", "consume"), ("sandbox", "demo")])
def test_a_target_does_what_it_is_called(stage: str, command: str) -> None:
    assert argv(stage, "CMD") == [command]


@pytest.mark.parametrize("stage", ["collector", "consumer"])
def test_the_health_check_asks_what_is_served(stage: str) -> None:
    served = Settings.model_fields["metrics_address"].default
    assert f"http://127.0.0.1{served}/livez" in argv(stage, "HEALTHCHECK")[-1]
    assert ("EXPOSE", served.removeprefix(":")) in lineage(stage)


def test_images_are_built_from_all_that_the_wheel_needs() -> None:
    needed = {"pyproject.toml", "requirements", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    needed |= set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert set(admitted()) == needed


def test_images_have_a_python_that_the_program_is_tested_with() -> None:
    (version,) = re.findall(r"^ARG PYTHON=python:([\d.]+)-slim$", TEXT, re.MULTILINE)
    foreign = [found for stage in stages() if (found := base(stage)) not in stages()]
    assert foreign == ["${PYTHON}"] * 2, "one base, which can be given by its digest"
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]
