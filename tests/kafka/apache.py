"""A real Apache Kafka of one node (KRaft) for the tests: the only judge of groups, leaders and refusals.

`mvn dependency:copy-dependencies` (see pom.xml) fetches its jars from Maven Central into `target/jars`, once. What the
JVM has made of their classes after one start it keeps in an archive (class data sharing), which halves the processor
time of every start, of the broker and of its tools: 2.7 s in place of 5.0. `python -m tests.kafka.apache` does both.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import signal
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from clusterinfo.sandbox.processes import Process, free_port
from clusterinfo.sandbox.servers import accepts_connections

HERE = Path(__file__).parent
JARS = HERE / "target" / "jars"
ARCHIVE = HERE / "target" / "classes.jsa"
FORMATTED = HERE / "target" / "formatted"
"""A data directory that was formatted and not used: what a broker's begins as, but for the ids."""
START_TIMEOUT_S = 150.0
STOP_GRACE_S = 60.0
_HEAP = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_SHARED = ["-Xshare:auto", f"-XX:SharedArchiveFile={ARCHIVE}", "-Xlog:disable"]
"""Another JVM's archive, or none, is no error: classes are loaded as ever, and nothing is printed of it."""
_SIGNALS = {"clean": signal.SIGTERM, "hard": signal.SIGKILL}


def fetch_jars() -> None:
    """Have Maven fetch Kafka unless it has already."""
    if not JARS.is_dir():
        subprocess.run(["mvn", "-B", "-q", "dependency:copy-dependencies"], cwd=HERE, check=True, timeout=600)


def prepare() -> None:
    """Fetch the jars and make the archive, unless they are there."""
    fetch_jars()
    make_archive()


def make_archive() -> None:
    """Have a broker write down its classes at its end, unless one has already; who comes second waits."""
    with (HERE / "pom.xml").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ARCHIVE.is_file():
            asyncio.run(_archive_of_one_start())


async def _archive_of_one_start() -> None:
    unfinished, broker = ARCHIVE.with_suffix(".new"), ApacheKafka()
    broker.classes = [f"-XX:ArchiveClassesAtExit={unfinished}", "-Xlog:disable"]
    shutil.rmtree(FORMATTED, ignore_errors=True)
    try:
        await broker.begin()
        await broker.stop(grace_s=START_TIMEOUT_S)
    finally:
        await broker.close()
    unfinished.rename(ARCHIVE)


def _java(*arguments: str | Path, log_level: str = "error", classes: Sequence[str] = _SHARED) -> list[str | Path]:
    logging = f"-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"
    return ["java", *_HEAP, *classes, logging, "-cp", f"{JARS}/*", *arguments]


TOOLS = {
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
}
"""Script in Kafka's bin/ -> the class it starts."""


def kafka_tool(script: str, *arguments: str) -> list[str | Path]:
    """argv of one of Kafka's scripts, with or without its `.sh`: the jars come without them."""
    return _java(TOOLS[script.removesuffix(".sh")], *arguments)


class ApacheKafka:
    """`async with ApacheKafka() as broker:` runs Apache Kafka on 127.0.0.1 until the block ends.

    Attributes: `bootstrap` (`host:port`), `log` (a file). `listeners`: more of them, name (capitals) to security
    protocol; what they need besides is in `properties`, server properties on top of ours. `scram`: credentials to begin
    with, such as `SCRAM-SHA-256=[name=me,password=...]`.
    """

    is_formatted_alike = True
    """Its properties make no difference to what its data directory begins as."""

    def __init__(
        self, listeners: Mapping[str, str] | None = None, scram: Sequence[str] = (), **properties: str
    ) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._controller_port = free_port()
        self._protocols = dict(listeners or {})
        self._ports = {name: free_port() for name in self._protocols}
        self._scram = scram
        self.classes: Sequence[str] = _SHARED
        self._properties = {name.replace("_", "."): value for name, value in properties.items()}
        self._directory: Path | None = None
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(prepare)
        try:
            await self.begin()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def begin(self) -> None:
        """Start for the first time. `close` follows, whether or not it succeeds."""
        self._directory = Path(tempfile.mkdtemp(prefix="clusterinfo-kafka-"))
        self.config.write_text(self._config())
        await self._format()
        await self.start()

    async def close(self) -> None:
        """End it and remove what it has written."""
        try:
            await self.stop("hard")
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory)
                self._directory = None

    @property
    def directory(self) -> Path:
        assert self._directory is not None, "use it inside `async with`"
        return self._directory

    @property
    def config(self) -> Path:
        return self.directory / "server.properties"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    def bootstrap_of(self, listener: str) -> str:
        """Where one of `listeners` is reached."""
        return f"{self.host}:{self._ports[listener]}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start (again), on the same port and data; returns when it answers requests."""
        argv = _java("kafka.Kafka", self.config, log_level="warn", classes=self.classes)
        self._process = Process.start("kafka", argv, log=self.log, cwd=self.directory)
        await self._process.wait_ready(lambda: accepts_connections(self.host, self.port), START_TIMEOUT_S)

    async def stop(self, mode: Literal["clean", "hard"] = "clean", grace_s: float = STOP_GRACE_S) -> None:
        """Stop it: `clean` hands over its groups, `hard` kills it."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop(_SIGNALS[mode], grace_s)

    async def restart(self, mode: Literal["clean", "hard"] = "clean") -> None:
        await self.stop(mode)
        await self.start()

    async def consumer_groups_describe(self, group: str) -> str:
        """What `kafka-consumer-groups --describe --group <group>` prints."""
        argv = kafka_tool(
            "kafka-consumer-groups", *("--bootstrap-server", self.bootstrap, "--describe", "--group", group)
        )
        ended = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=True)
        return str(ended.stdout)

    async def change_password(self, user: str, mechanism: str, password: str) -> None:
        """Give a user another SCRAM password, as an administrator does."""
        argv = _java(
            "kafka.admin.ConfigCommand",
            *("--bootstrap-server", self.bootstrap, "--alter", "--entity-type", "users", "--entity-name", user),
            *("--add-config", f"{mechanism}=[password={password}]"),
        )
        await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=60, check=True)

    async def _format(self) -> None:
        if FORMATTED.is_dir() and self.is_formatted_alike and not self._scram:
            self._format_again()
            return
        scram = [f"--add-scram={credential}" for credential in self._scram]
        argv = _java("kafka.tools.StorageTool", "format", f"--cluster-id={_new_id()}", "-c", self.config, *scram)
        await Process.start("kafka-storage", argv, log=self.log, cwd=self.directory).finish(START_TIMEOUT_S)
        if self.classes is not _SHARED:
            shutil.copytree(self.directory / "data", FORMATTED)

    def _format_again(self) -> None:
        """Without a JVM that starts for it."""
        shutil.copytree(FORMATTED, self.directory / "data")
        properties = {"version": "1", "node.id": "1", "cluster.id": _new_id(), "directory.id": _new_id()}
        (self.directory / "data" / "meta.properties").write_text(_lines(properties))

    def _config(self) -> str:
        served = [f"PLAINTEXT://{self.bootstrap}", *(f"{name}://{self.bootstrap_of(name)}" for name in self._ports)]
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"} | self._protocols
        ours = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.host}:{self._controller_port}",
            "listeners": ",".join([*served, f"CONTROLLER://{self.host}:{self._controller_port}"]),
            "advertised.listeners": ",".join(served),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.retention.check.interval.ms": "1000",
            # Else it writes twice a second that there is nothing to write: a third of what an idle broker costs.
            "metadata.max.idle.interval.ms": "0",
        }
        return _lines(ours | self._properties)


def _new_id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _lines(properties: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in properties.items())


if __name__ == "__main__":
    prepare()
