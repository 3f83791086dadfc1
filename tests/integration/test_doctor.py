"""`clusterinfo doctor` against real servers, in this process: all well, and each end away, refusing or wrong."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from clusterinfo.commands import doctor
from clusterinfo.commands.output import Output
from clusterinfo.observations import unobserved
from clusterinfo.sandbox.kubernetes.faults import Verb
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.processes import free_port
from clusterinfo.settings import load
from tests.conftest import Database
from tests.integration.brokers import Broker

JSON = dict[str, Any]
CONNECT_S, WITHIN_S = 20.0, 60.0
"""Of a busy machine, so that what fails does so for the reason that is given."""
SHORT_S = 5.0
"""For ends that are not reached whatever the patience."""


@dataclass(slots=True)
class Ends:
    """What all of it runs on, and the environment that names it."""

    api: SimulatedKubernetes
    database: Database
    broker: Broker
    env: dict[str, str]
    directory: Path

    async def make_topic(self, **configs: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(self.env["KAFKA_TOPIC"], 6, 1, topic_configs=configs)])
        await admin.close()


@pytest.fixture
def ends(
    api: SimulatedKubernetes, database: Database, broker: Broker, kafka_env: dict[str, str], tmp_path: Path
) -> Ends:
    kubeconfig = {"KUBECONFIG": str(api.write_kubeconfig(tmp_path / "kubeconfig"))}
    return Ends(api, database, broker, kubeconfig | database.env | kafka_env, tmp_path)


Examined = Callable[..., Awaitable[tuple[int, dict[str, JSON]]]]


@pytest.fixture
def examined(ends: Ends, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Examined:
    async def run(
        command: str | None = None, connect_s: float = CONNECT_S, within_s: float = WITHIN_S
    ) -> tuple[int, dict[str, JSON]]:
        """The exit code, and of every check the line that fails, or else its last."""
        monkeypatch.setattr(doctor, "CONNECT_S", connect_s)
        monkeypatch.setattr(doctor, "WITHIN_S", within_s)
        code = await doctor.examine(load(ends.env), unobserved, command, output=Output.JSON)
        text = capsys.readouterr().out
        assert ends.database.env["DB_PASSWORD"] not in text
        assert ends.api.token not in text
        lines = sorted(orjson.loads(text), key=lambda line: line["state"] == "failed")
        return code, {line["check"]: line for line in lines}

    return run


async def test_all_is_well(ends: Ends, examined: Examined) -> None:
    await ends.make_topic(**{"cleanup.policy": "delete"})
    code, lines = await examined()
    assert {check: line["state"] for check, line in lines.items() if line["state"] not in ("ok", "unknown")} == {}
    topic, group = ends.env["KAFKA_TOPIC"], ends.env["KAFKA_GROUP_ID"]
    assert {*lines} == {
        "kubeconfig", "Kubernetes API", "API's clock", "kinds", "rights",
        "Kafka", f"topic {topic}", f"rights on {topic}", f"rights on group {group}",
        "database", "database's clock", "encoding", "schema", "rights in the database",
    }  # fmt: skip
    assert code == 0


async def test_a_topic_that_is_missing_is_created_later_and_fails_nothing(ends: Ends, examined: Examined) -> None:
    code, lines = await examined("collect")
    assert (code, lines["topic"]["state"]) == (0, "warning")
    assert "database" not in lines, "a collector that sends to Kafka needs none"


@pytest.mark.parametrize("refused", [(), ("create",), ("get", "update")])
async def test_who_elects_a_leader_has_to_be_allowed_to(
    ends: Ends, examined: Examined, refused: tuple[Verb, ...]
) -> None:
    await ends.make_topic()
    ends.env |= {"LEADER_ELECTION": "true", "LEADER_ELECTION_LEASE": "shop/collector"}
    for verb in refused:
        ends.api.faults.forbid("leases", verb=verb)
    code, lines = await examined("collect")
    line = lines["leader election"]
    assert (code != 0, line["state"]) == ((True, "failed") if refused else (False, "ok"))
    assert "shop/collector" in line["found"]
    assert f"not allowed to {', '.join(refused)} leases" in line["found"] or not refused
    assert "rbac --leader-election" in line.get("remedy", "") or not refused


Break = Callable[[Ends], Awaitable[None]]


async def no_kubeconfig(ends: Ends) -> None:
    ends.env["KUBECONFIG"] = str(ends.directory / "nowhere")


async def api_refuses(ends: Ends) -> None:
    ends.api.faults.unauthorized()


async def nothing_allowed(ends: Ends) -> None:
    ends.api.faults.forbid("*", verb="list")


async def a_kind_is_broken(ends: Ends) -> None:
    ends.api.faults.fail("services", verb="list")


async def nothing_to_list(ends: Ends) -> None:
    ends.env["INCLUDE"] = "nonsense"


async def no_such_partition(ends: Ends) -> None:
    await ends.make_topic()
    ends.env["KAFKA_PARTITION"] = "17"


async def wrong_password(ends: Ends) -> None:
    ends.env["DB_PASSWORD"] = "wrong"


async def no_such_database(ends: Ends) -> None:
    ends.env["DB_NAME"] = "nowhere"


async def no_schema(ends: Ends) -> None:
    ends.env["DB_SCHEMA"] = "other"


async def schema_is_old(ends: Ends) -> None:
    owner = await ends.database.connect()
    await owner.execute("delete from schema_migration where version = (select max(version) from schema_migration)")
    await owner.close()


async def may_only_read(ends: Ends) -> None:
    owner = await ends.database.connect()
    await owner.execute("""
        drop role if exists doctors_reader; create role doctors_reader login password 'secret';
        grant usage on schema clusterinfo to doctors_reader;
        grant select on all tables in schema clusterinfo to doctors_reader""")
    await owner.close()
    ends.env |= {"DB_USER": "doctors_reader", "DB_PASSWORD": "secret"}


@pytest.mark.parametrize(
    ("broken", "failed", "found"),
    [
        (no_kubeconfig, "kubeconfig", "there is no such file"),
        (api_refuses, "Kubernetes API", "does not accept our credentials"),
        (nothing_allowed, "rights", "may not be listed"),
        (a_kind_is_broken, "rights", "services cannot be listed"),
        (nothing_to_list, "kinds", "none is left to list"),
        (no_such_partition, "topic", "KAFKA_PARTITION is 17"),
        (wrong_password, "database", "password"),
        (no_such_database, "database", "does not exist"),
        (no_schema, "schema", "is not there yet"),
        (schema_is_old, "schema", "lacks"),
        (may_only_read, "rights in the database", "not allowed"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_what_is_broken_is_named_with_a_remedy_and_nothing_else_is(
    broken: Break, failed: str, found: str, ends: Ends, examined: Examined
) -> None:
    await broken(ends)
    code, lines = await examined()
    (line,) = [line for line in lines.values() if line["state"] == "failed"]
    assert line["check"].startswith(failed)
    assert found in line["found"]
    assert line["remedy"]
    assert code == 1


NOT_REACHED = ["Kubernetes API", "Kafka", "database"]


def lead_to(ends: Ends, port: int) -> None:
    """All three ends are there, whatever is."""
    ends.api.port = port
    ends.api.write_kubeconfig(ends.directory / "kubeconfig")
    ends.env |= {"KAFKA_BROKERS": f"127.0.0.1:{port}", "DB_HOST": "127.0.0.1", "DB_PORT": str(port)}


async def test_ends_that_are_away_are_told_from_each_other(ends: Ends, examined: Examined) -> None:
    lead_to(ends, free_port())
    code, lines = await examined(connect_s=SHORT_S)
    assert [check for check, line in lines.items() if line["state"] == "failed"] == NOT_REACHED
    assert [check for check in NOT_REACHED if not lines[check]["remedy"]] == []
    assert "connection refused" in lines["Kafka"]["found"].lower()
    assert code == 1


@pytest.mark.parametrize("patience", [{"connect_s": SHORT_S}, {"within_s": SHORT_S}], ids=str)
async def test_ends_that_say_nothing_hold_nobody_up(patience: dict[str, float], ends: Ends, examined: Examined) -> None:
    """Neither while they are connected to, nor at the end of all patience."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are made by the kernel; nobody accepts them
        lead_to(ends, silent.getsockname()[1])
        code, lines = await examined(**patience)
    assert [check for check, line in lines.items() if line["state"] == "failed"] == NOT_REACHED
    assert [check for check in NOT_REACHED if f"within {SHORT_S:g} s" not in lines[check]["found"]] == []
    assert [check for check in NOT_REACHED if not lines[check]["remedy"]] == []
    assert code == 1
