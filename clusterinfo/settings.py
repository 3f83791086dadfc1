"""Every variable the program reads: its unit, its default and the reason for it.

Flags beat the environment, which beats the defaults. The environment is passed in. Unknown variables never fail:
Kubernetes injects `KAFKA_SERVICE_PORT` and its kin. Nothing here opens a connection; password files are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from clusterinfo.allowed import allowed, unit
from clusterinfo.durations import parse_duration
from clusterinfo.errors import ConfigError, one_line, quoted_path
from clusterinfo.spelling import meant
from clusterinfo.topic_names import TopicNames

MIB = 1024 * 1024
MAX_CLUSTER_ID_CHARS = 253
"""As long as the name of a Kubernetes object may be (a DNS subdomain, RFC 1123)."""

MIN_REDACTION_KEY_BYTES = 16
"""A shorter key can be found by trying: a fingerprint would give away what it stands for."""
LIST_TIMEOUT_S = 1800.0

_SIZE_UNITS = {"B": 1, "KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)")

_REDACTION_PATH = re.compile(r"[-.a-z0-9*?!\[\]]+(?<!\.):(?:/(?:[^/~\s]|~[01])+)+")
"""The escapes are those of RFC 6901; another `~` would be read as one by nobody."""
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123, as Kubernetes wants the names of namespaces."""
_LEASE = re.compile(rf"{_DNS_LABEL.pattern}/{_DNS_LABEL.pattern}(?:\.{_DNS_LABEL.pattern})*")
_KIND_PATTERN = re.compile(r"[-.a-z0-9*?!\[\]]+")
"""Plural names and groups are DNS names, and so in small letters; beside those, the shell's wildcards."""

DEFAULT_EXCLUDE = ["leases.coordination.k8s.io", "componentstatuses", "*.metrics.k8s.io", "events.events.k8s.io"]
ADD_TO_DEFAULT = "+"


def parse_size(value: Any) -> int:
    """`512KiB`, `16MiB` -> bytes. Raises ValueError with what is allowed."""
    if isinstance(value, int):
        return value
    if match := _SIZE.fullmatch(str(value).strip()):
        return int(match[1]) * _SIZE_UNITS[match[2]]
    raise ValueError("allowed is a whole number and a unit: B, KiB, MiB or GiB, such as 16MiB")


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _matching(pattern: re.Pattern[str], allowed: str) -> Callable[[str], str]:
    """A validator that passes what `pattern` matches whole, and says what is allowed of anything else."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(allowed)
        return value

    return check


_namespace = _matching(
    _DNS_LABEL, "allowed are names of namespaces: small letters, digits and '-', at most 63, such as kube-system"
)
_kind_pattern = _matching(
    _KIND_PATTERN,
    "allowed are plural names of kinds in small letters, with their group and with * for any part, "
    "such as pods, deployments.apps or *.metrics.k8s.io",
)
_lease = _matching(_LEASE, "allowed is NAMESPACE/NAME of a Lease, such as cluster-info/cluster-info-collector")
_schema = _matching(_SCHEMA, "allowed are small letters, digits and '_', at most 63, the first no digit")
_redaction_path = _matching(
    _REDACTION_PATH,
    "allowed is resource.group:/json/pointer, * for any one name or position, "
    "such as clouds.example.com:/spec/users/*/pin",
)


def _split_exclude(value: Any) -> Any:
    """`+events` is the default and `events`."""
    words = _split(value)
    if isinstance(value, str) and value.strip().startswith(ADD_TO_DEFAULT):
        return [*DEFAULT_EXCLUDE, *(word.removeprefix(ADD_TO_DEFAULT) for word in words)]
    return words


def _host(value: str) -> str:
    if "@" in value or "://" in value:
        raise ValueError("allowed is the name or address of a host, without user, password and scheme")
    return value


def _port(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("tcp://"):
        raise ValueError(
            "allowed is a port number; Kubernetes injected this one for a Service of that name: set it yourself, "
            "or enableServiceLinks: false in the Pod"
        )
    return value


def _partition(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and value >= 0) or (isinstance(value, str) and value.isdecimal()):
        return value if value == "auto" else int(value)
    raise ValueError("allowed is a partition number from 0, or auto")


def _topics(value: str) -> str:
    return TopicNames.parse(value).given


def _cluster_id(value: str) -> str:
    if not value or len(value) > MAX_CLUSTER_ID_CHARS or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"allowed are 1 to {MAX_CLUSTER_ID_CHARS} printable characters, without whitespace at either end"
        )
    return value


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds."""
Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes."""


def _exception(value: str) -> str:
    kinds, _, pointer = _redaction_path(value).partition(":")
    if fnmatchcase("secrets", kinds) and pointer.split("/")[1] in ("data", "stringData"):
        raise ValueError("values of Secrets never leave the cluster, and are no exceptions")
    return value


def _redaction_key(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < MIN_REDACTION_KEY_BYTES:
        raise ValueError(
            f"it has fewer than {MIN_REDACTION_KEY_BYTES} bytes: make one with `openssl rand -hex 32`, or leave it out"
        )
    return value


RedactionKey = Annotated[SecretStr, AfterValidator(_redaction_key)]
ClusterId = Annotated[str, AfterValidator(_cluster_id)]
"""It goes into every key and `ce_source`, and into the database as it is: no NUL, no half of a surrogate pair."""
Host = Annotated[str, AfterValidator(_host)]
"""Or the directory of a socket, or `host:port`: what is connected to, and named in messages."""
KindPattern = Annotated[str, AfterValidator(_kind_pattern)]
"""See `kubernetes.discovery.Selection`."""
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class Settings(BaseModel):
    """All settings. The variable is the field's name in capitals; `description` is its line in docs/SETTINGS.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=False)

    kafka_enabled: bool = Field(
        default=False, description="true sends to Kafka; false makes `collect` store directly (deprecated)"
    )
    kafka_brokers: Annotated[list[Host], BeforeValidator(_split)] = Field(
        default=["localhost:9092"], min_length=1, description="Kafka brokers to bootstrap from, comma-separated"
    )
    kafka_topic: Annotated[str, AfterValidator(_topics)] = Field(
        default="cluster-info",
        description="Kafka topic; a consumer may have several, comma-separated, each may end in `*`",
    )
    kafka_group_id: str = Field(
        default="cluster-info-consumer", min_length=1, description="consumer group; one database has one"
    )
    kafka_partition: Annotated[int | Literal["auto"], BeforeValidator(_partition)] = Field(
        default=0, description="partition to send to, or `auto` to spread by kind"
    )
    kafka_topic_partitions: int = Field(
        default=12,
        ge=1,
        description="partitions of a topic that has to be created: the most consumers that can share it",
    )
    kafka_topic_replication: int | None = Field(
        default=None, ge=1, description="replicas of a topic that has to be created; the broker's default unless set"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how to talk to the brokers"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    kafka_sasl_username: str | None = Field(default=None, description="SASL user")
    kafka_sasl_password: SecretStr | None = Field(
        default=None, description="SASL password, or OAUTHBEARER token; or KAFKA_SASL_PASSWORD_FILE"
    )
    kafka_ssl_ca_file: Path | None = Field(default=None, description="CA certificates (PEM); the system's unless set")
    kafka_ssl_cert_file: Path | None = Field(default=None, description="client certificate (PEM)")
    kafka_ssl_key_file: Path | None = Field(default=None, description="key of the client certificate (PEM)")

    db_host: Host = Field(default="localhost", min_length=1, description="PostgreSQL host, or directory of its socket")
    db_port: Annotated[int, BeforeValidator(_port)] = Field(default=5432, ge=1, le=65535, description="PostgreSQL port")
    db_user: str = Field(default="postgres", min_length=1, description="PostgreSQL user")
    db_password: SecretStr | None = Field(default=None, description="PostgreSQL password; or DB_PASSWORD_FILE")
    db_name: str = Field(default="postgres", min_length=1, description="PostgreSQL database, of encoding UTF8")
    db_ssl_mode: SslMode = Field(default="disable", description="libpq's sslmode; a remote host needs `verify-full`")
    db_ssl_root_cert: Path | None = Field(default=None, description="CA certificates (PEM) of the server")
    db_ssl_cert: Path | None = Field(default=None, description="client certificate (PEM)")
    db_ssl_key: Path | None = Field(default=None, description="key of the client certificate (PEM)")
    db_schema: Annotated[str, AfterValidator(_schema)] = Field(
        default="clusterinfo", description="schema that holds everything"
    )
    db_pool_size: int = Field(
        default=4, ge=1, le=1000, description="database connections: batches stored at the same time"
    )
    db_statement_cache: int = Field(
        default=100,
        ge=0,
        le=1000,
        description="prepared statements kept by a connection; 0 behind PgBouncer before 1.21 in transaction mode",
    )
    db_synchronous_commit: Literal["on", "off", "local", "remote_write", "remote_apply"] | None = Field(
        default=None,
        description="synchronous_commit of what is stored, as PostgreSQL spells it; the server's own unless set",
    )

    kubeconfig: Path | None = Field(
        default=None, description="kubeconfig file; unset: in-cluster credentials, else ~/.kube/config"
    )
    kube_context: str | None = Field(default=None, description="context of the kubeconfig; its current one unless set")
    kube_compression: Literal["gzip", "none"] | None = Field(
        default=None,
        description="encoding of the API's answers: `gzip` on slow networks, else `none`; unless set as the kubeconfig "
        "says, gzip by default, and none in the cluster",
    )
    cluster_id: ClusterId | None = Field(
        default=None,
        description="what the cluster is known by, for ever; the uid of its kube-system namespace unless set",
    )
    cluster_name: str | None = Field(
        default=None, description="label of the cluster; the kubeconfig's name for it, else its id, unless set"
    )
    cluster_epoch: int = Field(
        default=0, ge=0, le=2**31 - 1, description="raise by one after a cluster was restored from a backup"
    )
    namespaces: Annotated[list[Annotated[str, AfterValidator(_namespace)]], BeforeValidator(_split)] = Field(
        default=[], description="namespaces to list, comma-separated; all unless set"
    )
    include: Annotated[list[KindPattern], BeforeValidator(_split)] = Field(
        default=[], description="kinds to list, as resource.group patterns, Secrets by name only; all unless set"
    )
    exclude: Annotated[list[KindPattern], BeforeValidator(_split_exclude)] = Field(
        default=DEFAULT_EXCLUDE,
        description="kinds to leave out, as resource.group patterns; `+events` adds to these",
    )
    redaction_key: RedactionKey | None = Field(
        default=None,
        description="key of the fingerprints that replace secret values, at least 16 bytes; or REDACTION_KEY_FILE",
    )
    redact_configmaps: bool = Field(
        default=False, description="true replaces the values of ConfigMaps by fingerprints as well"
    )
    redact: Annotated[list[Annotated[str, AfterValidator(_redaction_path)]], BeforeValidator(_split)] = Field(
        default=[],
        description="what else is replaced by fingerprints, as resource.group:/json/pointer, comma-separated",
    )
    redact_not: Annotated[list[Annotated[str, AfterValidator(_exception)]], BeforeValidator(_split)] = Field(
        default=[], description="what is not, likewise; values of Secrets always are"
    )
    collect_interval: Duration = Field(
        default=300.0,
        gt=0,
        description="from the start of one run of lists to the next; if set, nothing is followed without `--watch`",
    )
    resync_interval: Duration = Field(
        default=6 * 3600.0,
        gt=0,
        description="how often a kind that is followed is listed all the same, to prove it again",
    )
    collect_concurrency: int = Field(default=4, ge=1, le=64, description="kinds listed at the same time")
    leader_election: bool = Field(
        default=False, description="true: of several collectors one works, and the others stand by; not with `--once`"
    )
    leader_election_lease: Annotated[str, AfterValidator(_lease)] | None = Field(
        default=None,
        description="NAMESPACE/NAME of their Lease; `cluster-info-collector` where the Pod runs, unless set",
    )
    list_timeout: Duration = Field(
        default=LIST_TIMEOUT_S, gt=0, description="a kind that takes longer to list has failed; the others go on"
    )
    page_size: int = Field(default=500, ge=1, le=10000, description="objects asked for in a page")
    page_bytes: Size = Field(
        default=16 * MIB,
        ge=64 * 1024,
        description="a longer response is dropped and asked for again with half the objects",
    )

    batch_size: int = Field(default=5000, ge=1, le=100000, description="most records stored in one transaction")
    batch_bytes: Size = Field(default=16 * MIB, ge=1024, description="most bytes stored in one transaction")
    batch_wait: Duration = Field(default=0.02, ge=0, le=60, description="how long a batch waits for more than has come")
    history_retention: Duration = Field(default=90 * 86400.0, gt=0, description="how long superseded versions are kept")
    dead_letter_rows: int = Field(default=100_000, ge=1, description="most dead letters kept; the oldest go")
    dead_letter_bytes: Size = Field(
        default=1024 * MIB,
        ge=MIB,
        description="most bytes of dead letters kept, as the database has them; the oldest go",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    log_format: Literal["json", "console"] = Field(
        default="json", description="`console` for people; set, there are log lines on a terminal too"
    )
    metrics_address: Host = Field(
        default=":8080", description="where `/metrics`, `/livez` and `/readyz` are served; empty switches it off"
    )
    shutdown_grace_s: float = Field(default=25.0, gt=0, description="seconds to finish the batch in hand after SIGTERM")

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.kafka_security_protocol.startswith("SASL") and self.kafka_sasl_mechanism is None:
            raise ValueError("KAFKA_SASL_MECHANISM is not set, but KAFKA_SECURITY_PROTOCOL asks for SASL")
        return self

    @property
    def topics(self) -> TopicNames:
        """What KAFKA_TOPIC says, for who consumes."""
        return TopicNames.parse(self.kafka_topic)

    def sending_topic(self) -> str:
        """The one topic of who sends. Raises ConfigError if KAFKA_TOPIC may mean several."""
        if (single := self.topics.single) is None:
            raise ConfigError(
                f"KAFKA_TOPIC is {self.kafka_topic!r}: a collector sends to one topic, allowed is its name alone; "
                "several, and names that end in *, are for `clusterinfo consume`"
            )
        return single

    def changed(self) -> tuple[str, ...]:
        """`NAME=value` of those that are not their defaults, for a log: of a secret only that it is set."""
        return tuple(
            f"{name.upper()}={_shown(value, field)}"
            for name, field in type(self).model_fields.items()
            if (value := getattr(self, name)) != field.default
        )

    _secret_files: dict[str, str] = PrivateAttr(default_factory=dict)

    def was_set(self, field: str) -> bool:
        """True if the environment or a flag gave `field`, False if it is the default."""
        return field in self.model_fields_set

    def secret(self, field: str) -> str | None:
        """A secret as it is now: its file is read again. While that cannot be read, as it was at the start.

        So is a REDACTION_KEY that has become too short.
        """
        if path := self._secret_files.get(field):
            with suppress(ConfigError):
                found = _read_secret(f"{field.upper()}_FILE", path)
                if field != "redaction_key" or len(found.encode()) >= MIN_REDACTION_KEY_BYTES:
                    return found
        known: SecretStr | None = getattr(self, field)
        return known.get_secret_value() if known else None


def _shown(value: Any, field: FieldInfo) -> str:
    """A setting as one would set it, as far as it may be shown."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return unit(field)[1](value)
        case list():
            text = ",".join(map(str, value))
        case Path():
            text = quoted_path(value).strip("'")
        case _:
            text = str(value)  # of a SecretStr it is asterisks
    return "(not shown: it has an @ in it)" if "@" in text else one_line(text)


SECRET_FIELDS = ("db_password", "kafka_sasl_password", "redaction_key")
FLAGS = {"collect_interval": "--interval"}
"""Flags that are not called as their setting is."""


FAMILIES = ("KAFKA_", "DB_", "")
"""What the names of variables begin with. Whatever begins with none of the first two is most likely somebody else's."""
OTHERWISE_CALLED = {"KAFKA_BOOTSTRAP_SERVERS": "KAFKA_BROKERS", "DB_DATABASE": "DB_NAME", "DB_HOSTNAME": "DB_HOST"}
"""What other programs call ours, where the spelling does not show it."""
ALIKE_IN_A_FAMILY, ALIKE = 0.6, 0.9
_INJECTED = re.compile(r"\w+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)\w*)?)")
"""https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""

MAY_BE_EMPTY = ("metrics_address", "exclude")
"""Settings that an empty variable sets; elsewhere an empty variable means: not set."""


def load(environment: Mapping[str, str], **flags: Any) -> Settings:
    """Settings from flags (None: not given), else `environment` and its `..._FILE` variables, else defaults.

    Raises ConfigError whose one line names the variable or flag, what was given and what is allowed.
    """
    given: dict[str, Any] = {}
    for field in Settings.model_fields:
        value = environment.get(field.upper())
        if value or (value == "" and field in MAY_BE_EMPTY):
            given[field] = value
    files = _secret_files(environment, given)
    given |= {field: _read_secret(f"{field.upper()}_FILE", path) for field, path in files.items()}
    typed = {name: value for name, value in flags.items() if value is not None}
    given |= typed
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(entry, given, typed) for entry in error.errors())) from None
    settings._secret_files.update(files)
    return settings


def near_misses(environment: Mapping[str, str]) -> dict[str, str]:
    """Variable that nothing reads -> the one that may be meant, which is not set. They never fail anything."""
    known = {field.upper() for field in Settings.model_fields} | {f"{field.upper()}_FILE" for field in SECRET_FIELDS}
    strange = (name for name in environment if name not in known and not _INJECTED.fullmatch(name))
    found = ((name, _variable_meant(name, known)) for name in strange)
    return {name: other for name, other in found if other and other not in environment}


def _variable_meant(name: str, known: set[str]) -> str:
    if name.upper() in known or name in OTHERWISE_CALLED:
        return OTHERWISE_CALLED.get(name, name.upper())
    family = next(family for family in FAMILIES if name.startswith(family))
    rests = [one.removeprefix(family).lower() for one in known if one.startswith(family)]
    rest = meant(name.removeprefix(family), rests, ALIKE_IN_A_FAMILY if family else ALIKE)
    return f"{family}{rest.upper()}" if rest else ""


def _secret_files(environment: Mapping[str, str], given: dict[str, Any]) -> dict[str, str]:
    """Secret -> the file that holds it, for those that a `..._FILE` variable names."""
    found = {}
    for field in SECRET_FIELDS:
        variable = f"{field.upper()}_FILE"
        if path := environment.get(variable):
            if field in given:
                raise ConfigError(f"{variable} and {field.upper()} are both set: set one of them")
            found[field] = path
    return found


def _read_secret(variable: str, path: str) -> str:
    """`path` is not quoted: it may be the secret itself, put there by mistake."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError, a NUL in the name another
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{variable} names a file that cannot be read: {why}; expected the path of a file") from None


def _explain(entry: Any, given: Mapping[str, Any], typed: Mapping[str, Any]) -> str:
    """One of pydantic's errors in one line. `typed`: what a flag gave, under the name of its setting."""
    message = str(entry["msg"]).removeprefix("Value error, ")
    if not entry["loc"]:
        return message
    field = str(entry["loc"][0])
    name = FLAGS.get(field, f"--{field.replace('_', '-')}") if field in typed else field.upper()
    if field in SECRET_FIELDS:
        return f"{name}: {message}"
    expected = allowed(entry["type"], entry.get("ctx", {}), Settings.model_fields[field])
    expected = expected or f"{message[:1].lower()}{message[1:]}"
    # Of several words the one that is wrong; else what was given, and not what became of it (0.0 for 0s).
    value = entry["input"] if len(entry["loc"]) > 1 else given[field]
    if "@" in str(value):  # a password may stand before it, in whatever spelling
        return f"{name}, whose value is not shown as it has an @ in it: {expected}"
    return f"{name} is {value!r}: {expected}"
