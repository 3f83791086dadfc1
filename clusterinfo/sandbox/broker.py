"""A Kafka-compatible broker of our own for `clusterinfo demo` and the tests: `noida-db`, its other services off.

For development only: it keeps its data in memory and writes all of it to one file every second and on SIGTERM (0.2.3,
measured), so that a kill loses what was confirmed since; and it never evicts a group member that died without a word:
those who join afterwards never come to rest (12 rebalances in a minute, measured), until somebody removes the dead one.
The binary is run itself, since the package's Python wrapper forwards no signals.
"""

import importlib.util
import signal
from pathlib import Path
from typing import Literal

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest

from clusterinfo.sandbox.processes import (
    HOW_TO_INSTALL,
    Account,
    SandboxError,
    give,
    is_reachable,
    unprivileged_account,
)
from clusterinfo.sandbox.servers import Server, accepts_connections

_STOP_SIGNALS = {"graceful": signal.SIGTERM, "kill": signal.SIGKILL}


def find_binary() -> Path:
    """The `noida-db` executable. Raises SandboxError if the package is not installed."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise SandboxError(f"no broker to start: {HOW_TO_INSTALL}")
    return Path(spec.origin).with_name("noida-db")


class EmbeddedBroker(Server):
    """`async with EmbeddedBroker() as broker:` runs a broker on 127.0.0.1 until the block ends.

    Attributes: `host`, `port`, `bootstrap` (`host:port`), `log` (a file).
    """

    label = "broker"
    program = "noida-db"
    port_taken = "in use"
    start_timeout_s = 20.0

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    def env(self) -> dict[str, str]:
        """The KAFKA_* variable that makes `clusterinfo` use this broker."""
        return {"KAFKA_BROKERS": self.bootstrap}

    async def stop(self, mode: Literal["graceful", "kill"] = "graceful") -> None:
        """Stop the broker. `graceful` saves its data; `kill` loses what was confirmed in the last second."""
        await self._end(_STOP_SIGNALS[mode])

    async def forget_members(self, group: str) -> int:
        """Remove every member of a consumer group, and return how many: those that live join again within a second."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            [described] = await admin.describe_consumer_groups([group])
            [(_, _, _, _, _, members, *_)] = described.groups
            for member_id, *_ in members:
                await admin._client.send(admin._client.get_random_node(), LeaveGroupRequest(group, member_id))
            return len(members)
        finally:
            await admin.close()

    async def ends(self, topic: str) -> dict[int, int]:
        """Partition -> the offset of the message to come, of those that hold any."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            found = await consumer.end_offsets(consumer.assignment())
            return {partition.partition: end for partition, end in found.items() if end}
        finally:
            await consumer.stop()

    def _choose_account(self) -> Account | None:
        """It does not insist on an ordinary user, so root serves where an ordinary user cannot reach the binary."""
        account = unprivileged_account()
        return account if account and is_reachable(find_binary(), account) else None

    async def _prepare(self) -> None:
        self.data.mkdir()
        give(self.data, self._account)

    def _command(self) -> list[str | Path]:
        command: list[str | Path] = [find_binary(), "start", "--data-dir", self.data, "--host", self.host]
        return [*command, "--only", "kafka", "--kafka-port", str(self.port)]

    async def _is_ready(self) -> bool:
        return await accepts_connections(self.host, self.port)
