"""`clusterinfo doctor`, what is pure of it: which ends it asks, clocks, a topic's settings, and what it prints."""

from __future__ import annotations

import datetime as dt

import pytest

from clusterinfo.commands.doctor import ends, of_variables, result
from clusterinfo.commands.output import Output
from clusterinfo.errors import ConfigError
from clusterinfo.findings import Finding, Findings, State, clock_ahead_s
from clusterinfo.kafka.diagnosis import Use, report_topic
from clusterinfo.kafka.rights import Operation, operations
from clusterinfo.settings import load

NOON = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
BOTH = Use(sends=True, reads=True)


@pytest.mark.parametrize(
    ("env", "command", "asked"),
    [
        ({}, None, ["Kubernetes", "PostgreSQL"]),
        ({}, "collect", ["Kubernetes", "PostgreSQL"]),
        ({}, "consume", ["Kafka", "PostgreSQL"]),
        ({"KAFKA_ENABLED": "true"}, None, ["Kubernetes", "Kafka", "PostgreSQL"]),
        ({"KAFKA_ENABLED": "true"}, "collect", ["Kubernetes", "Kafka"]),
        ({"KAFKA_ENABLED": "true"}, "legacy", ["Kubernetes", "PostgreSQL"]),
    ],
)
def test_only_what_is_used_is_asked(env: dict[str, str], command: str | None, asked: list[str]) -> None:
    assert ends(load(env), command) == asked


def test_a_consumer_without_kafka_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="KAFKA_ENABLED is false"):
        ends(load({"KAFKA_ENABLED": "false"}), "consume")


@pytest.mark.parametrize(
    ("theirs_s", "step_s", "ahead_s"),
    [(0, 0, 0), (1.5, 0, 0), (3, 0, 1), (-1, 0, -1), (-1, 1, 0), (-400, 1, -399), (302, 1, 300)],
)
def test_a_clock_is_compared_with_when_it_was_asked(theirs_s: float, step_s: float, ahead_s: float) -> None:
    asked, answered = NOON, NOON + dt.timedelta(seconds=2)
    assert clock_ahead_s(NOON + dt.timedelta(seconds=theirs_s), asked, answered, step_s) == ahead_s


@pytest.mark.parametrize(
    ("ahead_s", "state", "found"),
    [
        (0, State.OK, "agrees with this machine's"),
        (20, State.OK, "20s ahead of this machine's"),
        (-100, State.WARNING, "100s behind this machine's"),
        (400, State.FAILED, "6m ahead of this machine's"),
    ],
)
def test_a_clock_that_is_wrong_is_told_by_how_much(ahead_s: float, state: State, found: str) -> None:
    findings = Findings()
    findings.compare_clock(NOON + dt.timedelta(seconds=ahead_s), NOON, NOON)
    (line,) = findings.lines
    assert (line.state, line.found, bool(line.remedy)) == (state, found, state is not State.OK)


@pytest.mark.parametrize(
    ("found", "partition", "states"),
    [
        ({"cleanup.policy": "delete", "retention.ms": "604800000"}, "auto", [State.OK]),
        ({"cleanup.policy": "delete", "retention.ms": "-1"}, "5", [State.OK]),
        ({"cleanup.policy": "delete", "retention.ms": "-1"}, "6", [State.FAILED, State.OK]),
        ({"cleanup.policy": "compact", "retention.ms": "-1"}, "auto", [State.FAILED, State.OK]),
        ({"cleanup.policy": "compact,delete", "retention.ms": "60000"}, "0", [State.FAILED, State.WARNING, State.OK]),
        ({}, "auto", [State.UNKNOWN]),
    ],
)
def test_a_topic_is_judged_by_its_settings(found: dict[str, str], partition: str, states: list[State]) -> None:
    findings = Findings()
    report_topic(6, found, load({"KAFKA_PARTITION": partition}), BOTH, findings)
    assert [line.state for line in findings.lines] == states
    assert [line for line in findings.lines if line.state is not State.OK and not line.remedy] == []


def test_rights_are_bits() -> None:
    assert operations(1 << 3 | 1 << 8) == frozenset({Operation.Read})
    assert operations(0) == frozenset()
    assert operations(-(2**31)) is None


def test_an_error_s_remedy_is_what_stands_behind_its_last_semicolon() -> None:
    findings = Findings()
    findings.begin("x", "look there")
    findings.fail("it is away; refused; start it")
    findings.fail("no answer")
    assert [(line.found, line.remedy) for line in findings.lines] == [
        ("it is away; refused", "start it"),
        ("no answer", "look there"),
    ]


def test_misspelt_variables_are_warnings_and_no_value_is_shown() -> None:
    (line,) = of_variables({"DB_PASSWD": "canary", "DB_HOST": "db"})
    assert line == Finding(
        "environment", State.WARNING, "DB_PASSWD is set, and nothing reads it", "did you mean DB_PASSWORD?"
    )


def test_the_verdict_comes_first_and_remedies_are_never_cut() -> None:
    remedy = "do this " * 20 + "and that"
    lines = [Finding("a", State.OK, "well"), Finding("b", State.FAILED, "it is away", remedy)]
    assert result(lines).text(Output.TABLE).splitlines() == [
        "1 of 2 checks failed", f"  b: it is away; {remedy}", "",
        "CHECK   STATE    FOUND", "a       ok       well", "b       failed   it is away",
    ]  # fmt: skip
    on_terminal = result(lines).text(Output.TABLE, width=80)
    assert f"b: it is away; {remedy} CHECK" in " ".join(on_terminal.split()), "folded"
    assert result(lines).text(Output.NAME) == "b\n"
    assert result(lines[:1]).text(Output.TABLE).startswith("all 1 checks passed\n")
    unknown, warning = Finding("c", State.UNKNOWN, "it does not tell"), Finding("d", State.WARNING, "late")
    for more, verdict in (
        ([unknown], "1 of 2 checks passed, 1 unknown"),
        ([warning], "all 2 checks passed, 1 with a warning"),
        ([unknown, warning], "2 of 3 checks passed, 1 unknown, 1 with a warning"),
    ):
        assert result([lines[0], *more]).text(Output.TABLE).startswith(f"{verdict}\n")
