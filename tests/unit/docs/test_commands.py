"""The commands and their flags: the README shows those below a command, and their help says all that it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

from clusterinfo import cli

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_every_command_below_a_command() -> None:
    commands = cast(Any, typer.main.get_command(cli.app)).commands
    groups = {name: group.commands for name, group in commands.items() if hasattr(group, "commands")}
    assert set(groups) == {"clusters", "dead-letters", "offsets"}
    known = {f"{name} {below}": command for name, group in groups.items() for below, command in group.items()}
    shown = re.findall(r"\bclusterinfo ((?:clusters|dead-letters|offsets) [a-z]+)([^#\n]*)", README)
    assert {name for name, _ in shown} == set(known)
    for name, rest in shown:
        flags = {flag for parameter in known[name].params for flag in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= flags, name


def test_every_flag_says_what_it_does() -> None:
    commands = cast(Any, typer.main.get_command(cli.app)).commands
    for group in (commands["dead-letters"].commands, commands["clusters"].commands, {"forget": commands["forget"]}):
        for name, command in group.items():
            assert command.help, name
            assert [p.name for p in command.params if p.param_type_name == "option" and not p.help] == [], name


def pages(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that lead to each help page."""
    command = command or typer.main.get_command(cli.app)
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from pages(below, (*path, name))


def shown(path: tuple[str, ...], width: int = 80) -> str:
    """A help page on one line."""
    result = CliRunner().invoke(cli.app, [*path, "--help"], terminal_width=width)
    assert result.exit_code == 0
    return " ".join(result.output.split())


@pytest.mark.parametrize("path", [*pages()], ids=" ".join)
def test_help_shows_every_text_whole(path: tuple[str, ...]) -> None:
    """What stands in brackets, too: rich would take it for markup."""
    command = cast(Any, typer.main.get_command(cli.app))
    for name in path:
        command = command.commands[name]
    texts = [command.help, *(option.help for option in command.params if option.param_type_name == "option")]
    page = shown(path, width=1000)
    assert [text for text in texts if " ".join(text.split()) not in page] == []


@pytest.mark.parametrize("path", [(), ("dead-letters",), ("offsets",)], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence(path: tuple[str, ...]) -> None:
    assert "..." not in shown(path).partition("Commands:")[2]


def test_help_says_how_to_install_the_extra() -> None:
    assert "pip install -e '.[sandbox]'" in shown(("demo",))


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
