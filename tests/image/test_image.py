"""The images without Docker: the Dockerfile's own commands, run on what .dockerignore admits, with /opt replaced.

What comes of it runs as a container would have it: as the image's user, without a capability, on a root file system
that is mounted read-only. Not among `testpaths`: it needs root, for a mount namespace of its own, and the package
index; .ci/run has both.
"""

from __future__ import annotations

import asyncio
import base64
import filecmp
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
import yaml
from packaging.requirements import Requirement

from clusterinfo.sandbox.broker import EmbeddedBroker
from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.support.dockerfile import ROOT, admitted, argv, runs, variables
from tests.support.programs import Ended, Program, simulated_api, started

PYTHON = Path("/usr/bin/python3")
"""Debian's, since every user may run it: one made by hand may live in somebody's home."""
INSTALL_S = 600
pytestmark = pytest.mark.timeout(2 * INSTALL_S)
IN_NAMESPACE = """
set -eu
mount --bind {opt} /opt
mount --bind {passwd} /etc/passwd
{more}
"""
READ_ONLY = """
mount -o remount,bind,ro /opt
mount -o remount,bind,ro /
cd /tmp
exec setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- {command}
"""
TMPFS = "mount -t tmpfs tmpfs /tmp\n"
INLINE_CA = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()


@dataclass(frozen=True, slots=True)
class Image:
    """A stage's /opt and /etc/passwd."""

    stage: str
    root: Path

    def namespaced(self, more: str) -> list[str]:
        """argv of a shell to which this image's files are /opt and /etc/passwd; nobody else sees them there."""
        mounts = IN_NAMESPACE.format(opt=self.root / "opt", passwd=self.root / "passwd", more=more)
        return ["unshare", "--mount", "bash", "-c", mounts]

    def build(self, stage: str) -> None:
        """Run a stage's RUN instructions, where COPY has put the files, with Debian's python."""
        tools = self.root / "bin"
        environment = os.environ | variables(stage) | {"PATH": f"{tools}:{os.environ['PATH']}"}
        for command in runs(stage):
            script = self.namespaced(f"cd /opt/src\n{command}")
            done = subprocess.run(
                script, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def argv(self, *command: str, mounts: str = "") -> tuple[str, ...]:
        """What runs a command in a container of this image; by default its entrypoint and its own command."""
        given = command or (*argv(self.stage, "ENTRYPOINT"), *argv(self.stage, "CMD"))
        return tuple(self.namespaced(mounts + READ_ONLY.format(command=shlex.join(given))))

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": f"/opt/clusterinfo/bin:{os.environ['PATH']}", "HOME": "/", "TMPDIR": "/tmp", **more}

    async def run(self, *command: str, timeout_s: float = 150, mounts: str = "", **env: str) -> Ended:
        async with started(self.argv(*command, mounts=mounts), self.environment(env)) as program:
            return await program.ended(timeout_s)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage `build`: what the images that collect and consume copy /opt/clusterinfo from."""
    root = tmp_path_factory.mktemp("image")
    for folder in ("opt/src", "bin"):
        (root / folder).mkdir(parents=True)
    (root / "bin/python").write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')  # a venv would take the name of a symlink
    (root / "bin/python").chmod(0o755)
    entry = re.findall(r"echo '([^']*)' >>/etc/passwd", " ".join(runs("runtime")))[0]
    (root / "passwd").write_text(Path("/etc/passwd").read_text() + entry + "\n")
    copy_admitted(root / "opt/src")
    Image("build", root).build("build")
    return root


def copy_admitted(target: Path) -> None:
    for name in admitted():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)


@pytest.fixture(scope="session")
def collector(built: Path) -> Image:
    return Image("collector", built)


@pytest.fixture(scope="session")
def consumer(built: Path) -> Image:
    return Image("consumer", built)


@pytest.fixture(scope="session")
def sandbox(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("sandbox") / "image"
    shutil.copytree(built, root, symlinks=True)  # venvs name their files by /opt, where this copy will be too
    Image("build-sandbox", root).build("build-sandbox")
    return Image("sandbox", root)


def site_packages(image: Image) -> Path:
    (found,) = image.root.glob("opt/clusterinfo/lib/python*/site-packages")
    return found


def locked(name: str, version: str) -> dict[str, str]:
    """Package -> version that requirements/`name` has for that version of Python."""
    lines = re.findall(r"^([a-z0-9][^\\\n]*?) *\\?$", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
    found = {"python_version": version, "python_full_version": f"{version}.0"}
    wanted = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate(found)]
    return {one.name: next(iter(one.specifier)).version for one in wanted}


def installed(image: Image) -> dict[str, str]:
    found = importlib.metadata.distributions(path=[str(site_packages(image))])
    return {str(one.metadata["Name"]).lower().replace("_", "-"): one.version for one in found}


# What is in it


@pytest.mark.parametrize(("name", "lock"), [("collector", "program.txt"), ("sandbox", "sandbox.txt")])
def test_it_holds_what_is_locked_and_the_program(name: str, lock: str, request: pytest.FixtureRequest) -> None:
    image: Image = request.getfixturevalue(name)
    found = installed(image)
    assert found.pop("clusterinfo")
    assert found == locked(lock, site_packages(image).parent.name.removeprefix("python"))


def test_the_program_is_whole(collector: Image) -> None:
    package = site_packages(collector) / "clusterinfo"
    compared = filecmp.dircmp(collector.root / "opt/src/clusterinfo", package, ignore=["__pycache__"])
    assert differing(compared) == []


def differing(compared: filecmp.dircmp[str]) -> list[str]:
    here = [*compared.left_only, *compared.right_only, *compared.diff_files, *compared.funny_files]
    return here + [name for inner in compared.subdirs.values() for name in differing(inner)]


# How it runs


async def test_nothing_can_be_written_and_nothing_is_allowed(collector: Image) -> None:
    asked = """
import errno, json, os
def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
with open("/proc/self/status") as status:
    capabilities = {line.split()[1] for line in status if line.startswith(("CapEff", "CapPrm", "CapBnd"))}
print(json.dumps([os.getuid(), os.getgid(), refused("/tmp/x"), refused("/opt/clusterinfo/x"), sorted(capabilities)]))
"""
    ended = (await collector.run("python", "-c", asked)).expect(0)
    assert json.loads(ended.stdout) == [65532, 65532, "EROFS", "EROFS", ["0" * 16]]


async def test_collector_and_consumer_do_their_work(collector: Image, consumer: Image, database: Database) -> None:
    """Each with no command of its own, as the guide's Deployments have them; health asked as the image asks it."""
    address = f"127.0.0.1:{free_port()}"
    async with EmbeddedBroker() as broker, simulated_api(200) as api:
        shutil.copy(api.kubeconfig, collector.root / "opt/kubeconfig")
        (collector.root / "opt/kubeconfig").chmod(0o644)
        env = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": broker.bootstrap, "METRICS_ADDRESS": address}
        assert await health(collector, address) == 1
        collecting = collector.environment(env | {"KUBECONFIG": "/opt/kubeconfig"})
        async with started(collector.argv(), collecting) as program:
            await program.wait_for_output('"Snapshot ended"')
            assert await health(collector, address) == 0
            await stopped(program)
        async with started(consumer.argv(), consumer.environment(env | database.env)) as program:
            connection = await database.connect()
            try:
                async with asyncio.timeout(60):
                    while await connection.fetchval("select count(*) from pods") == 0:
                        await asyncio.sleep(0.1)
            finally:
                await connection.close()
            assert await health(consumer, address) == 0
            await stopped(program)


async def test_certificates_in_a_kubeconfig_need_a_place_in_tmp(collector: Image) -> None:
    """Which compose/ gives it; without, one line says what is missing."""
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://127.0.0.1:9", "certificate-authority-data": INLINE_CA}},
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (collector.root / "opt/inline").write_text(yaml.safe_dump(kubeconfig))
    asked = ("clusterinfo", "rbac", "--discover")
    without = await collector.run(*asked, KUBECONFIG="/opt/inline")
    assert "temporary directory" in without.expect(2).errors()[0]
    within = await collector.run(*asked, mounts=TMPFS, KUBECONFIG="/opt/inline")
    assert "127.0.0.1:9 was not reached" in within.expect(1).errors()[0]


async def health(image: Image, address: str) -> int:
    """Exit code of the image's HEALTHCHECK, asked at another address than its default."""
    *python, code = argv(image.stage, "HEALTHCHECK")
    assert "127.0.0.1:8080" in code
    return (await image.run(*python, code.replace("127.0.0.1:8080", address))).code


async def stopped(program: Program) -> None:
    """Ended by SIGTERM, as a container is: with 0."""
    program.signal(signal.SIGTERM)
    (await program.ended()).expect(0)


async def test_the_sandbox_shows_its_demonstration(sandbox: Image) -> None:
    """It alone needs a place to write: its PostgreSQL and its broker live in /tmp."""
    ended = await sandbox.run("clusterinfo", "demo", "--objects", "100", mounts=TMPFS)
    ended.expect(0)
    assert "pods" in ended.stdout
