"""The commands and their flags: help says all that it is given."""

from __future__ import annotations

import re
import subprocess
from typing import Any, Literal, cast, get_args

import pytest
import typer
from typer.testing import CliRunner

from clusterinfo import cli
from tests.support.cli_document import Path, page, paths
from tests.support.programs import EXECUTABLE


def test_every_flag_says_what_it_does() -> None:
    commands = cast(Any, typer.main.get_command(cli.app)).commands
    for group in (commands["dead-letters"].commands, commands["clusters"].commands, {"forget": commands["forget"]}):
        for name, command in group.items():
            assert command.help, name
            assert [p.name for p in command.params if p.param_type_name == "option" and not p.help] == [], name


def command_of(path: Path) -> Any:
    """What these words name."""
    command = cast(Any, typer.main.get_command(cli.app))
    for name in path:
        command = command.commands[name]
    return command


def shown(path: Path, width: int = 80) -> str:
    """A help page on one line."""
    return " ".join(page(path, width).split())


@pytest.mark.parametrize("path", [*paths()], ids=" ".join)
def test_help_shows_every_text_whole(path: Path) -> None:
    """What stands in brackets, too: rich would take it for markup."""
    command = command_of(path)
    texts = [command.help, *(option.help for option in command.params if option.param_type_name == "option")]
    page = shown(path, width=1000)
    assert [text for text in texts if " ".join(text.split()) not in page] == []


@pytest.mark.parametrize("path", [(), ("dead-letters",), ("offsets",)], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence(path: Path) -> None:
    assert "..." not in shown(path).partition("Commands:")[2]


def test_help_says_how_to_install_the_extra() -> None:
    assert "pip install -e '.[sandbox]'" in shown(("demo",))


@pytest.mark.parametrize("path", [*paths()], ids=" ".join)
def test_help_is_asked_for_by_a_letter_too(path: Path) -> None:
    assert CliRunner().invoke(cli.app, [*path, "-h"]).output == CliRunner().invoke(cli.app, [*path, "--help"]).output


@pytest.mark.parametrize("path", [*paths()], ids=" ".join)
def test_help_shows_no_types_of_the_language(path: Path) -> None:
    assert re.findall(r"<\w+>|\b(?:bool|str|int|BOOLEAN|INTEGER)\b", shown(path)) == []


PRINT_NO_RESULT = {"collect", "consume", "legacy", "demo", "migrate", "completion"}
"""Progress, a script or SQL: what these write has one form."""


@pytest.mark.parametrize("path", [*paths()], ids=" ".join)
def test_whoever_prints_a_result_prints_it_in_every_form(path: Path) -> None:
    command = command_of(path)
    if not hasattr(command, "commands"):
        flags = {flag for option in command.params for flag in option.opts}
        assert ({"-o", "--output"} <= flags) is (path[0] not in PRINT_NO_RESULT)


COMPLETE = """
PATH={bin}:$PATH
source <(clusterinfo completion bash)
COMP_WORDS=(clusterinfo dead-letters "") COMP_CWORD=2
_clusterinfo_completion clusterinfo
echo "${{COMPREPLY[@]}}"
"""


def test_bash_completes() -> None:
    script = COMPLETE.format(bin=EXECUTABLE.parent)
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.split() == ["list", "show", "replay", "drop"]


@pytest.mark.parametrize("shell", get_args(cli.Shell))
def test_each_shell_has_a_script_and_answers(
    shell: Literal["bash", "zsh", "fish"], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = CliRunner().invoke(cli.app, ["completion", shell]).output
    assert f"{cli.COMPLETE}=complete_{shell}" in script
    for name, value in {
        cli.COMPLETE: f"complete_{shell}",
        "COMP_WORDS": "clusterinfo offsets ", "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "clusterinfo offsets ", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["clusterinfo"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert "reset" in capsys.readouterr().out


def test_without_a_command_the_help_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["clusterinfo", "offsets"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    captured = capsys.readouterr()
    assert "clusterinfo offsets [OPTIONS] COMMAND" in captured.out.splitlines()[0]
    assert captured.out.splitlines()[-1].split()[0] == "reset"
    assert captured.err == ""
