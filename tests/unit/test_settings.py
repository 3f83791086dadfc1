"""Settings: what is allowed, what beats what, and that a mistake is reported in one line without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.settings import DEFAULT_EXCLUDE, Settings, load, near_misses, parse_size


@pytest.mark.parametrize(("text", "size"), [("512B", 512), ("4KiB", 4096), ("16MiB", 1 << 24), ("1 GiB", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["16MB", "16", "1.5MiB", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="MiB"):
        parse_size(text)


def test_the_defaults_of_the_guide() -> None:
    settings = load({})
    assert settings.kafka_enabled is False
    assert settings.kafka_brokers == ["localhost:9092"]
    assert (settings.kafka_topic, settings.kafka_partition) == ("cluster-info", 0)
    assert (settings.db_host, settings.db_port, settings.db_user) == ("localhost", 5432, "postgres")
    assert (settings.db_name, settings.db_ssl_mode) == ("postgres", "disable")
    assert settings.kafka_group_id == "cluster-info-consumer"


def test_the_process_environment_counts_only_where_it_is_passed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SIZE", "7")
    assert load({}).batch_size == 5000


def test_flags_beat_the_environment_which_beats_defaults() -> None:
    assert load({"BATCH_SIZE": "7"}).batch_size == 7
    assert load({"BATCH_SIZE": "7"}, batch_size=9).batch_size == 9
    assert load({"BATCH_SIZE": "7"}, batch_size=None).batch_size == 7


def test_lists_are_split_at_commas() -> None:
    settings = load({"KAFKA_BROKERS": "a:1, b:2,", "NAMESPACES": "one,two"})
    assert settings.kafka_brokers == ["a:1", "b:2"]
    assert settings.namespaces == ["one", "two"]


def test_empty_variables_mean_what_they_say() -> None:
    assert load({"METRICS_ADDRESS": "", "EXCLUDE": ""}).metrics_address == ""
    assert load({"METRICS_ADDRESS": "", "EXCLUDE": ""}).exclude == []
    assert load({}).exclude == DEFAULT_EXCLUDE


def test_a_plus_adds_to_the_default() -> None:
    assert load({"EXCLUDE": "+events, +*.example.com"}).exclude == [*DEFAULT_EXCLUDE, "events", "*.example.com"]
    assert load({"EXCLUDE": "+events,pods"}).exclude == [*DEFAULT_EXCLUDE, "events", "pods"]
    assert load({"EXCLUDE": "events"}).exclude == ["events"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"batch_size": "x"}, "--batch-size is 'x': allowed is a whole number from 1 to 100000"),
        ({"collect_interval": "5"}, "--interval is '5': allowed are numbers, each with a unit"),
    ],
)
def test_what_was_typed_as_a_flag_is_named_so(flags: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"BATCH_SIZE": "7", "COLLECT_INTERVAL": "6s"}, **flags)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_whatever_is_refused_what_is_allowed_is_said_in_words(field: str) -> None:
    for value in ("\0?", "-7", "0", "99999999999999999999", ",", "tcp://x:1"):
        try:
            load({field.upper(): value})
        except ConfigError as error:
            assert field == "redaction_key" or "allowed" in str(error), str(error)  # noqa: PT017 - others are fine


def test_variables_kubernetes_injects_do_not_fail() -> None:
    injected = {"KAFKA_SERVICE_PORT": "9092", "KAFKA_PORT": "tcp://10.0.0.1:9092", "DB_SERVICE_HOST": "x"}
    assert load(injected).kafka_topic == "cluster-info"


def test_passwords_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    settings = load({"DB_PASSWORD_FILE": str(tmp_path / "password")})
    assert settings.db_password is not None
    assert settings.db_password.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"KAFKA_PARTITION": "x"}, "KAFKA_PARTITION is 'x': allowed is a partition number from 0, or auto"),
        ({"KAFKA_PARTITION": "-1"}, "KAFKA_PARTITION is '-1': allowed"),
        ({"DB_PORT": "tcp://10.0.0.1:5432"}, "enableServiceLinks"),
        ({"DB_PORT": "0"}, "DB_PORT is '0': allowed is a whole number from 1 to 65535"),
        (
            {"DB_SSL_MODE": "on"},
            "DB_SSL_MODE is 'on': allowed is disable, allow, prefer, require, verify-ca or verify-full",
        ),
        ({"KAFKA_ENABLED": "maybe"}, "KAFKA_ENABLED is 'maybe': allowed is true or false"),
        ({"KAFKA_TOPIC_REPLICATION": "0"}, "KAFKA_TOPIC_REPLICATION is '0': allowed is a whole number from 1"),
        ({"KAFKA_BROKERS": ","}, "KAFKA_BROKERS is ',': allowed are one or more, with commas between them"),
        ({"COLLECT_INTERVAL": "0s"}, "COLLECT_INTERVAL is '0s': allowed is a duration above 0s"),
        ({"BATCH_WAIT": "2m"}, "BATCH_WAIT is '2m': allowed is a duration from 0s to 60s"),
        ({"PAGE_BYTES": "1KiB"}, "PAGE_BYTES is '1KiB': allowed is a size from 64KiB"),
        ({"SHUTDOWN_GRACE_S": "soon"}, "SHUTDOWN_GRACE_S is 'soon': allowed is a number above 0"),
        ({"NAMESPACES": "shop,a b"}, "NAMESPACES is 'a b': allowed are names of namespaces"),
        ({"NAMESPACES": "C!"}, "NAMESPACES is 'C!': allowed"),
        ({"NAMESPACES": "x" * 64}, "allowed are names of namespaces: small letters, digits and '-', at most 63"),
        ({"INCLUDE": "Pods"}, "INCLUDE is 'Pods': allowed are plural names of kinds in small letters"),
        ({"INCLUDE": "apps/deployments"}, "INCLUDE is 'apps/deployments': allowed"),
        ({"EXCLUDE": "pods,+events"}, "EXCLUDE is '+events': allowed"),
        ({"COLLECT_INTERVAL": "5"}, "COLLECT_INTERVAL is '5': allowed are numbers, each with a unit"),
        ({"DB_SCHEMA": "a;drop"}, "DB_SCHEMA is 'a;drop': allowed are small letters, digits and '_'"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_MECHANISM is not set"),
        (
            {"CLUSTER_ID": " prod"},
            "CLUSTER_ID is ' prod': allowed are 1 to 253 printable characters, without whitespace",
        ),
        ({"CLUSTER_ID": "prod\n"}, "CLUSTER_ID is 'prod\\n': allowed"),
        ({"CLUSTER_ID": "  "}, "CLUSTER_ID is '  ': allowed"),
        ({"CLUSTER_ID": "a\0b"}, "CLUSTER_ID is 'a\\x00b': allowed"),
        ({"CLUSTER_ID": "a\x7fb"}, "CLUSTER_ID is"),
        ({"CLUSTER_ID": "a\x85b"}, "CLUSTER_ID is"),
        ({"CLUSTER_ID": "a\udcffb"}, "CLUSTER_ID is"),
        ({"CLUSTER_ID": "x" * 254}, "CLUSTER_ID is"),
        (
            {"REDACTION_KEY": "x" * 15},
            "REDACTION_KEY: it has fewer than 16 bytes: make one with `openssl rand -hex 32`",
        ),
        ({"REDACT": "pods"}, "REDACT is 'pods': allowed is resource.group:/json/pointer"),
        ({"REDACT": "pods:/a,/b"}, "REDACT is '/b': allowed is resource.group:/json/pointer"),
        ({"REDACT": "pods:/"}, "REDACT is 'pods:/': allowed"),
        ({"REDACT": "Pods:/spec"}, "REDACT is 'Pods:/spec': allowed"),
        ({"REDACT": "pods.:/spec"}, "REDACT is 'pods.:/spec': allowed"),
        ({"REDACT": "pods:/a~2"}, "REDACT is 'pods:/a~2': allowed"),
        ({"REDACT_NOT": "pods:/a~"}, "REDACT_NOT is 'pods:/a~': allowed"),
        ({"REDACT_NOT": "pods:a"}, "REDACT_NOT is 'pods:a': allowed"),
        ({"REDACT_NOT": "secrets:/data/*"}, "REDACT_NOT is 'secrets:/data/*': values of Secrets never leave"),
        ({"REDACT_NOT": "s*:/stringData"}, "REDACT_NOT is 's*:/stringData': values of Secrets never leave"),
        ({"DB_PASSWORD_FILE": "/nowhere/at/all"}, "DB_PASSWORD_FILE names a file that cannot be read: No such file"),
    ],
)
def test_a_mistake_is_reported_in_one_line(environment: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "secret", ["canary-hunter2", "/canary-hunter2", "canary/hunter2\n", "canary-hunter2\0", "c2" * 999]
)
@pytest.mark.parametrize("variable", ["DB_PASSWORD", "KAFKA_SASL_PASSWORD", "REDACTION_KEY"])
def test_a_secret_where_its_file_is_expected_is_not_quoted(variable: str, secret: str) -> None:
    for environment in ({f"{variable}_FILE": secret}, {f"{variable}_FILE": secret, variable: "x"}):
        with pytest.raises(ConfigError, match=f"^{variable}_FILE ") as caught:
            load(environment)
        assert secret.strip("\n\0") not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "text", ["me:canary/2@host", "postgres://me:canary@host", "//me:can#ary@host:1", "me@canary@host"]
)
@pytest.mark.parametrize(
    "variable", ["DB_HOST", "KAFKA_BROKERS", "METRICS_ADDRESS", "DB_PORT", "DB_SCHEMA", "LOG_FORMAT", "PAGE_BYTES"]
)
def test_user_and_password_before_a_host_are_refused_and_not_quoted(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}, whose value is not shown") as caught:
        load({variable: text})
    assert "canary" not in str(caught.value)
    assert "allowed" in str(caught.value)


def test_what_is_redacted_besides_is_a_list_of_paths() -> None:
    settings = load({"REDACT": "pods:/spec/containers/*/args/*, *.example.com:/spec/a~1b", "REDACT_NOT": "*:/spec/x"})
    assert settings.redact == ["pods:/spec/containers/*/args/*", "*.example.com:/spec/a~1b"]
    assert settings.redact_not == ["*:/spec/x"]


def test_a_key_that_has_become_too_short_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    settings = load({"REDACTION_KEY_FILE": str(tmp_path / "key")})
    (tmp_path / "key").write_text("short")
    assert settings.secret("redaction_key") == "0123456789abcdef"
    (tmp_path / "key").write_text("another 16 bytes")
    assert settings.secret("redaction_key") == "another 16 bytes"


def test_a_cluster_id_is_any_text_that_fits() -> None:
    for text in ("prod", "x" * 253, "Büro/eu 1", "5f0c9f3e-0000-4000-8000-000000000000"):
        assert load({"CLUSTER_ID": text}).cluster_id == text
    assert load({"CLUSTER_ID": ""}).cluster_id is None, "an empty variable is not set"
    with pytest.raises(ConfigError, match="--cluster-id is ''"):
        load({}, cluster_id="")


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("KAFKA_BROKER", "KAFKA_BROKERS"),
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
        ("KAFKA_GROUP", "KAFKA_GROUP_ID"),
        ("KAFKA_TOPICS", "KAFKA_TOPIC"),
        ("DB_HOSTNAME", "DB_HOST"),
        ("DB_USERNAME", "DB_USER"),
        ("DB_DATABASE", "DB_NAME"),
        ("DB_PASSWRD_FILE", "DB_PASSWORD_FILE"),
        ("db_host", "DB_HOST"),
        ("NAMESPACE", "NAMESPACES"),
        ("KUBE_CONFIG", "KUBECONFIG"),
        ("KAFKA_HOME", ""),
        ("KAFKA_OPTS", ""),
        ("KAFKA_SERVICE_HOST", ""),
        ("KAFKA_BROKER_SERVICE_PORT", ""),
        ("KAFKA_PORT_9092_TCP_ADDR", ""),
        ("DB_URL", ""),
        ("HOSTNAME", ""),
        ("PATH", ""),
    ],
)
def test_near_misses_are_known_by_what_they_may_mean(variable: str, meant: str) -> None:
    assert near_misses({variable: "x"}) == ({variable: meant} if meant else {})


def test_what_is_set_is_not_asked_for() -> None:
    assert near_misses({"KAFKA_BROKER_ID": "1", "KAFKA_BROKERS": "b:9092"}) == {}


def test_what_is_not_a_default_is_shown_for_a_log_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("canary-of-files")
    settings = load(
        {
            "KAFKA_ENABLED": "true",
            "KAFKA_BROKERS": "a:9092,b:9092",
            "DB_PORT": "5432",
            "DB_PASSWORD_FILE": str(tmp_path / "password"),
            "KAFKA_SASL_PASSWORD": "canary-of-kafka",
            "KAFKA_SASL_USERNAME": "me:canary@example.com",
            "KAFKA_SSL_KEY_FILE": "-----BEGIN PRIVATE KEY----- canary",
            "KUBECONFIG": "/home/me/.kube/config",
            "BATCH_BYTES": "32MiB",
        },
        collect_interval="1m30s",
    )
    assert settings.changed() == (
        "KAFKA_ENABLED=true",
        "KAFKA_BROKERS=a:9092,b:9092",
        "KAFKA_SASL_USERNAME=(not shown: it has an @ in it)",
        "KAFKA_SASL_PASSWORD=**********",
        "KAFKA_SSL_KEY_FILE=something that is no path and is not shown",
        "DB_PASSWORD=**********",
        "KUBECONFIG=/home/me/.kube/config",
        "COLLECT_INTERVAL=90s",
        "BATCH_BYTES=32MiB",
    )
    assert load({}).changed() == ()
