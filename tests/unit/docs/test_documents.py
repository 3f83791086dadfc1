"""What the documents say twice is checked against the code that says it first."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import typer

from clusterinfo import cli, errors, exit_codes
from clusterinfo.model import RecordType
from clusterinfo.sandbox import demo_tables
from clusterinfo.settings import Settings, load
from clusterinfo.telemetry.logs import MESSAGES
from tests import tuning
from tests.bench import WAIT, Servers
from tests.support import generated
from tests.support.documents import anchors
from tests.support.settings_table import SHOWN

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CLI = (ROOT / "docs/CLI.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs/DESIGN.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", generated.PARTS, ids=lambda part: str(part.document))
def test_what_is_generated_is_what_the_code_says(part: generated.Region | generated.Whole) -> None:
    assert part.found() == part.text(), f"run `{generated.COMMAND}`"


@pytest.mark.parametrize("command", sorted(tuning.BASELINE))
def test_what_tuning_was_measured_against_is_what_is_measured(command: str) -> None:
    assert f"| `{command}` | {tuning.BASELINE[command]} | 1.00 |" in (ROOT / "docs/TUNING.md").read_text("utf-8")
    meant = dict(re.findall(r"`(\w+)=(\w+)`", tuning.BASELINE[command]))
    given = WAIT if command == "consume" else Servers(Mock(env=lambda _: {}), "", Mock(env={})).env("t", "d")
    assert meant.items() <= given.items()


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_defaults_that_are_written_differently_mean_the_same(name: str) -> None:
    assert getattr(load({}, **{name: SHOWN[name]}), name) == Settings.model_fields[name].default


COMMANDS: Any = typer.main.get_command(cli.app)
USED = re.compile(r"(?<![-/.\w] )\bclusterinfo ((?:[a-z][a-z-]+ ?)+)([^\n#`|;]*)")
"""A command of ours in a document's code: its words, and what follows them."""


def used(document: Path) -> list[tuple[str, str]]:
    """Words and rest of each command in the document's blocks of bash and in its `code`."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`(clusterinfo [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [found for part in (*blocks, *spans) for found in USED.findall(part)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_flag_of_a_document_exists(document: Path) -> None:
    for words, rest in used(document):
        command, known = COMMANDS, {"--help"}
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            command = command.commands[word]
        known |= {flag for parameter in command.params for flag in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known, f"clusterinfo {words}{rest}"


def test_commands_are_found_in_documents() -> None:
    assert ("dead-letters drop ", "--replayed         ") in used(ROOT / "docs/MAINTENANCE.md")
    assert {words.split()[0] for words, _ in used(ROOT / "README.md")} >= {"collect", "consume", "migrate", "rbac"}


def test_the_exit_codes_are_the_programs() -> None:
    documented = {int(code) for code in re.findall(r"^\| `(\d+)` \|", CLI, re.MULTILINE)}
    codes = {code for name, code in vars(exit_codes).items() if name.startswith("EXIT_")}
    raised = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert raised <= codes
    assert documented == codes


FROM_AN_INDEX = re.compile(
    r"clusterinfo\["  # with an extra
    r"|\b(?:uvx|(?:pip3?|pipx|uv|poetry)\b[^\n#;|&/]* (?:install|add|run))\b[^\n#;|&/]*[ '\"]clusterinfo(?![\w./-])"
)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pip install clusterinfo", True),
        ("pip install 'clusterinfo[sandbox]'", True),
        ("python -m pip install --upgrade clusterinfo==1.0", True),
        ("install clusterinfo[sandbox]", True),
        ("uvx clusterinfo demo", True),
        ("pipx run clusterinfo demo", True),
        ("pip install -e '.[sandbox]'  # then clusterinfo demo", False),
        ("pip --python /opt/clusterinfo/bin/python install --no-deps /opt/wheel/*.whl", False),
    ],
)
def test_installing_from_an_index_is_recognised(line: str, found: bool) -> None:
    assert bool(FROM_AN_INDEX.search(line)) == found


def test_nobody_is_advised_to_install_from_an_index() -> None:
    """There the name is not ours: whoever takes it would be installed."""
    folders = [path for name in ("clusterinfo", "compose", "docs", "k8s", ".ci") for path in (ROOT / name).rglob("*")]
    texts = [path for path in [*ROOT.glob("*"), *folders] if path.is_file() and path.suffix not in (".pyc", ".whl")]
    assert {"README.md", "Dockerfile", "Makefile", "cli.py", "demo.py", "DEPLOYMENT.md"} <= {
        path.name for path in texts
    }
    found = {str(path.relative_to(ROOT)): FROM_AN_INDEX.findall(path.read_text("utf-8")) for path in texts}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_the_picture_of_the_demo_is_what_it_shows() -> None:
    (picture,) = re.findall(
        r"A part of what it shows:\n\n```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
    )
    asked = {f"-- {one.words}\n{one.sql.strip()};" for one in (*demo_tables.QUESTIONS, demo_tables.CHANGES)}
    shown = re.findall(r"^-- .*\n[^;]*;$", picture, re.MULTILINE)
    assert len(shown) == 2
    assert set(shown) <= asked


def defined(path: Path) -> set[str]:
    """What a module defines: `function`, `Class`, `Class.method`; of SQL its statements, views, tables, functions."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        created = r"^(?:-- name:|create (?:or replace )?(?:view|table|function)) (\w+)"
        return set(re.findall(created, source, re.MULTILINE))
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names


def linked() -> list[tuple[str, str]]:
    """Name and file of each link of ARCHITECTURE.md to code."""
    return re.findall(r"\[`([^`]+)`\]\(([\w/]+\.(?:py|sql))\)", ARCHITECTURE)


def test_the_walk_leads_to_code() -> None:
    assert len(linked()) > 15


@pytest.mark.parametrize(("name", "file"), linked())
def test_architecture_names_what_its_links_define(name: str, file: str) -> None:
    assert name in defined(ROOT / file), f"{file} does not define {name}"


def test_troubleshooting_quotes_messages_of_the_log() -> None:
    """A quotation of several words that begins with a capital is a line of the log."""
    text = (ROOT / "docs/TROUBLESHOOTING.md").read_text(encoding="utf-8")
    symptoms = " ".join(re.findall(r"^\*\*Symptom\*\*:.*?\n\n", text, re.MULTILINE | re.DOTALL))
    quoted = set(re.findall(r"`([A-Z][a-z]+ [^`]+)`", symptoms))
    assert len(quoted) > 3
    assert quoted <= {message for _, message in MESSAGES.values()}


def test_the_design_names_the_types_on_the_wire() -> None:
    (row,) = re.findall(r"^\| types, `io\.clusterinfo\.<\.\.\.>\.v1` \| (.+) \|$", DESIGN, re.MULTILINE)
    assert {f"io.clusterinfo.{name}.v1" for name in re.findall(r"`([^`]+)`", row)} == {
        kind.value for kind in RecordType
    }


def test_the_design_names_every_table() -> None:
    schema = (ROOT / "clusterinfo/postgres/schema").glob("*.sql")
    tables = {name for file in schema for name in re.findall(r"^create table (\w+) \(", file.read_text(), re.MULTILINE)}
    assert "resource_history" in tables
    missing = {name for name in tables if f"`{name}`" not in DESIGN}
    assert missing == set()


def test_the_table_of_tests_names_every_folder() -> None:
    rows = re.findall(r"^\| ((?:`\w+` ?)+)\|", (ROOT / "tests/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    there = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("[a-z]*/**/*.*")}
    assert sorted(named) == sorted(there)
