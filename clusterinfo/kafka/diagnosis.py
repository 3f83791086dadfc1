"""What `clusterinfo doctor` asks of Kafka: who answers, the topics as they are, what we may do. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from clusterinfo.durations import short_duration
from clusterinfo.findings import Findings, State
from clusterinfo.kafka import rights
from clusterinfo.kafka.errors import REMEDIES, is_final, translate
from clusterinfo.kafka.rights import Operation
from clusterinfo.kafka.topics import connected_admin, describe, topic_settings
from clusterinfo.settings import Settings

LEAST_RETENTION_S = 3600.0
"""For how long consumers may be away, at least, before messages are gone that they did not store."""
CLEANUP, RETENTION = "cleanup.policy", "retention.ms"
NOT_TOLD = "this broker does not tell"


@dataclass(frozen=True, slots=True)
class Use:
    """What the settings use Kafka for."""

    sends: bool
    reads: bool

    @property
    def operations(self) -> list[Operation]:
        """What has to be allowed on the topic."""
        return [Operation.Write] * self.sends + [Operation.Read] * self.reads


async def examine(settings: Settings, use: Use, findings: Findings, within_s: float) -> None:
    """Check all of it, in order. Raises a ClusterinfoError for what ends the examination; `within_s`: to connect."""
    findings.begin("Kafka", "check KAFKA_BROKERS, and the advertised.listeners of the brokers")
    if use.sends:
        settings.sending_topic()
    async with connected_admin(settings, within_s) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        findings.ok(f"{','.join(settings.kafka_brokers)}, brokers: {brokers}, cluster {cluster['cluster_id']}")
        findings.begin("topic")
        _, partitions = await describe(admin, settings.topics)
        _report_missing(settings, use, partitions, findings)
        allowed = await rights.on_topics(admin, sorted(partitions)) if partitions else {}
        for name, count in sorted(partitions.items()):
            findings.begin(f"topic {name}")
            found = await topic_settings(admin, name, CLEANUP, RETENTION)
            report_topic(count, found, settings, use, findings)
            findings.begin(f"rights on {name}")
            _report_rights(use.operations, allowed.get(name), REMEDIES[29], findings)
        if use.reads:
            await _check_group(admin, settings.kafka_group_id, findings)


def _report_missing(settings: Settings, use: Use, partitions: dict[str, int], findings: Findings) -> None:
    grant = f"grant {' and '.join(one.name for one in use.operations)} on it"
    for name in settings.topics.names:
        if name not in partitions:
            found = f"there is no {name} yet, or this user does not see it"
            remedy = f"it is created at the first start, if this user may; if it is there, {grant}"
            findings.note(State.WARNING, found, remedy)
    if not partitions and not settings.topics.names:
        found = f"there is none yet that KAFKA_TOPIC means: {settings.kafka_topic}"
        findings.note(State.WARNING, found, f"it is read as soon as there is one; if there is, {grant}")


def report_topic(partitions: int, found: dict[str, str], settings: Settings, use: Use, findings: Findings) -> None:
    """Lines on a topic that is there; `found`: those of its settings that may be read."""
    pinned = settings.kafka_partition
    if use.sends and pinned != "auto" and pinned >= partitions:
        wrong = f"KAFKA_PARTITION is {pinned}, but it has {partitions} partitions"
        findings.note(State.FAILED, wrong, f"allowed is 0 to {partitions - 1}, or auto")
    if not found:
        findings.note(State.UNKNOWN, f"{partitions} partitions; its settings may not be read", "grant DescribeConfigs")
        return
    policy, retention_s = found.get(CLEANUP, "delete"), int(found.get(RETENTION, -1)) / 1000
    if policy != "delete":
        remedy = f"set it to delete (kafka-configs.sh --alter --add-config {CLEANUP}=delete)"
        wrong = f"its {CLEANUP} is {policy}: compaction removes parts of lists, which are then not verified"
        findings.note(State.FAILED, wrong, remedy)
    kept = "for ever" if retention_s < 0 else f"for {short_duration(retention_s)}"
    if 0 <= retention_s < LEAST_RETENTION_S:
        remedy = f"raise its {RETENTION}: what consumers did not store by then is lost until the next lists"
        findings.note(State.WARNING, f"it keeps messages {kept} only", remedy)
    findings.ok(f"{partitions} partitions, kept {kept}")


async def _check_group(admin: AIOKafkaAdminClient, name: str, findings: Findings) -> None:
    findings.begin(f"rights on group {name}", REMEDIES[30])
    try:
        allowed = await rights.on_group(admin, name)
    except KafkaError as error:
        if is_final(error):
            raise translate(error, f"consumer group {name!r}") from error
        findings.note(State.UNKNOWN, f"its coordinator does not answer yet: {type(error).__name__}")
        return
    _report_rights([Operation.Read], allowed, REMEDIES[30], findings)


def _report_rights(
    wanted: list[Operation], allowed: frozenset[Operation] | None, remedy: str, findings: Findings
) -> None:
    names = ", ".join(one.name for one in wanted)
    if allowed is None:
        findings.note(State.UNKNOWN, f"{names}: {NOT_TOLD}")
    elif missing := [one.name for one in wanted if one not in allowed]:
        findings.note(State.FAILED, f"not allowed: {', '.join(missing)}", remedy.rpartition("; ")[2])
    else:
        findings.ok(f"allowed: {names}")
