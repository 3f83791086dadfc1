"""Commands of other people's tools, which health checks, probes and docs/TROUBLESHOOTING.md name: each is run.

On a server that is well, and on none, or as the document's trouble has it. Grafana alone is not to be had without its
image: what asks its /api/health is not run.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clusterinfo.sandbox.kubernetes import SimulatedCluster, SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.certificates import make_tls
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.sandbox.processes import free_port
from tests.integration.test_troubleshooting import ENTRIES, NEEDS_NO_SERVER
from tests.kafka.apache import ApacheKafka, kafka_tool
from tests.support.deployed import COMPOSE, ROOT, find, manifests
from tests.support.pod_security import containers, pod_spec
from tests.support.programs import run, running, simulated_api, started

SERVICES = COMPOSE["services"]


def probes(name: str) -> list[list[str]]:
    """The commands by which Kubernetes asks the StatefulSet of that name."""
    (owner,) = containers(pod_spec(find(manifests("overlays/dev"), "StatefulSet", name)) or {})
    return [owner[probe]["exec"]["command"] for probe in ("startupProbe", "readinessProbe")]


def checked(name: str) -> list[str]:
    """The command by which Docker asks the service of that name."""
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    return [str(part) for part in command]


async def code_of(argv: Iterable[str | Path], **env: str) -> tuple[int, str]:
    """Exit code, and everything it says."""
    done = await asyncio.to_thread(
        subprocess.run, list(argv), capture_output=True, text=True, timeout=240, check=False, env=os.environ | env
    )
    return done.returncode, done.stdout + done.stderr


# Health checks and probes


@pytest.mark.parametrize("command", [checked("postgres"), *probes("postgres")], ids=["compose", "startup", "readiness"])
async def test_postgres_is_asked(command: list[str], postgres: EmbeddedPostgres) -> None:
    assert (await code_of(command, PGPORT=str(postgres.port)))[0] == 0
    assert (await code_of(command, PGPORT=str(free_port())))[0] == 2


async def test_kafka_is_asked() -> None:
    script, *arguments = checked("kafka")
    assert arguments == ["--bootstrap-server", "localhost:9092"]
    async with ApacheKafka() as kafka:
        assert (await code_of(kafka_tool(Path(script).name, "--bootstrap-server", kafka.bootstrap)))[0] == 0
    assert (await code_of(kafka_tool(Path(script).name, "--bootstrap-server", kafka.bootstrap)))[0] == 1


async def test_the_simulated_cluster_is_served_and_asked(tmp_path: Path) -> None:
    """As compose has it, but for the port, the folder and how many objects there are."""
    cluster, port = SERVICES["cluster"], free_port()
    here = {"--port=6443": f"--port={port}", "--objects=5000": "--objects=50"}
    argv = [here.get(part, part).replace("/run/clusterinfo", str(tmp_path)) for part in cluster["command"]]
    python, *ask = [part.replace(":6443/", f":{port}/") for part in checked("cluster")]
    entry, *module = cluster["entrypoint"]
    assert python == entry == "python", "the image's; here the one that has the program"
    command = [sys.executable, *ask]
    async with started((sys.executable, *module, *argv), {}) as program:
        await program.prints()
        assert (await code_of(command))[0] == 0
        assert f'"http://cluster:{port}"' in (tmp_path / "kubeconfig").read_text()
    assert (await code_of(command))[0] == 1


async def test_prometheus_starts_as_it_is_named_and_is_asked(tmp_path: Path) -> None:
    """Where files lie, and the port, are others."""
    places = {"/etc/prometheus": str(ROOT / "compose/prometheus"), "=/prometheus": f"={tmp_path}"}
    flags = SERVICES["prometheus"]["command"]
    for place, here in places.items():
        flags = [flag.replace(place, here) for flag in flags]
    address = f"127.0.0.1:{free_port()}"
    *_, url = checked("prometheus")
    async with started(("prometheus", *flags, f"--web.listen-address={address}"), {}) as program:
        await program.wait_for_output("Server is ready to receive web requests")
        async with (
            aiohttp.ClientSession() as session,
            session.head(url.replace("127.0.0.1:9090", address)) as answer,  # what `wget --spider` asks
        ):
            assert answer.status == 200


# Troubleshooting


def documented(entry: str, program: str) -> str:
    """The one command of that program in an entry."""
    (line,) = re.findall(rf"^{program}.*$", ENTRIES[entry], re.MULTILINE)
    return str(line)


async def test_kafka_cannot_be_reached() -> None:
    tool, *arguments = documented("Kafka cannot be reached", "kafka-").split()
    arguments[-1] = f"localhost:{free_port()}"
    code, output = await code_of(kafka_tool(tool, *arguments))
    assert code == 1
    assert "Exception" in output
    assert "with an exception" in ENTRIES["Kafka cannot be reached"]


async def test_the_api_cannot_be_reached() -> None:
    line = documented("The Kubernetes API cannot be reached", "kubectl")
    async with simulated_api(30, 8) as api:
        assert await code_of(line.split(), **api.env) == (0, "ok")
        api.program.kill()
        code, output = await code_of(line.split(), **api.env)
    assert code == 1
    assert "refused" in output


async def test_one_consumer_does_all_the_work(database: Any) -> None:
    """`KAFKA_PARTITION` unset: everything waits in partition 0."""
    tool, *arguments = documented("One consumer does all the work", "kafka-").split()
    async with ApacheKafka() as kafka, simulated_api(60, 12) as api:
        env = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": kafka.bootstrap, "BATCH_WAIT": "100ms"}
        (await run("collect", "--once", env=env | api.env)).expect(0)
        (await run("consume", "--until-idle", "1s", env=env | database.env)).expect(0)
        arguments[arguments.index("localhost:9092")] = kafka.bootstrap
        _, output = await code_of(kafka_tool(tool, *arguments))
    ends = {int(row[2]): int(row[4]) for row in map(str.split, output.splitlines()) if row[1:2] == ["cluster-info"]}
    assert ends.pop(0) > 60
    assert set(ends.values()) <= {0}


async def test_postgres_cannot_be_reached(postgres: EmbeddedPostgres) -> None:
    line, right = documented("PostgreSQL cannot be reached", "pg_isready"), postgres.env()
    for port, output in ((right["DB_PORT"], "accepting connections"), (str(free_port()), "no response")):
        assert output in (await code_of(["sh", "-c", line], **right | {"DB_PORT": port}))[1]
        assert f"`{output}`" in ENTRIES["PostgreSQL cannot be reached"]


async def test_postgres_refuses_the_login(postgres: EmbeddedPostgres) -> None:
    line = documented("PostgreSQL refuses the login", "psql")
    right = postgres.env()
    assert (await code_of(["sh", "-c", line], PGPASSWORD=right["DB_PASSWORD"], **right))[0] == 0
    code, output = await code_of(["sh", "-c", line], PGPASSWORD="wrong", **right)
    assert code == 2
    assert "password authentication failed" in output
    assert "password authentication failed" in ENTRIES["PostgreSQL refuses the login"]


async def test_the_port_for_metrics_is_taken(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    line = documented("The port for metrics is taken", "ss")
    port = free_port()
    async with simulated_api(30, 8) as api:
        env = postgres.env() | api.env | {"METRICS_ADDRESS": f"127.0.0.1:{port}"}
        async with running("legacy", env=env) as program:
            await program.wait_for_output("Snapshot ended")
            code, output = await code_of(["sh", "-c", line.replace("8080", str(port))])
            assert code == 0
            assert f"pid={program.pid}," in output


async def test_the_cluster_has_no_identity(tmp_path: Path) -> None:
    line = documented("The cluster has no identity", "kubectl")
    async with SimulatedKubernetes(SimulatedCluster(), tls=make_tls("127.0.0.1")) as api:
        env = {"KUBECONFIG": str(api.write_kubeconfig(tmp_path / "kubeconfig")), "HOME": str(tmp_path)}
        assert (await code_of(line.split(), **env))[0] == 0
        api.faults.forbid("namespaces", verb="get")
        code, output = await code_of(line.split(), **env)
    assert code == 1
    assert "Forbidden" in output


async def test_no_kubeconfig(tmp_path: Path) -> None:
    line = documented("No kubeconfig", "kubectl")
    kubectl = shutil.which("kubectl")
    assert kubectl, "kubectl is not on PATH: see deployment_files in .ci/run"
    code, output = await code_of(["env", "-i", f"HOME={tmp_path}", kubectl, *line.split()[1:]])
    assert code == 1
    assert "current-context must exist" in output
    assert "current-context must exist" in ENTRIES["No kubeconfig"]


def test_every_command_of_others_is_run_here() -> None:
    named = {
        line.split()[0] for text in ENTRIES.values() for line in text.splitlines() if line.startswith(NEEDS_NO_SERVER)
    }
    assert named == {"kafka-broker-api-versions", "kafka-consumer-groups", "psql", "pg_isready", "ss", "kubectl"}
