"""The commands and their flags: help says all that it is given."""

from __future__ import annotations

from typing import Any, cast

import pytest
import typer

from clusterinfo import cli
from tests.support.cli_document import Path, page, paths


def test_every_flag_says_what_it_does() -> None:
    commands = cast(Any, typer.main.get_command(cli.app)).commands
    for group in (commands["dead-letters"].commands, commands["clusters"].commands, {"forget": commands["forget"]}):
        for name, command in group.items():
            assert command.help, name
            assert [p.name for p in command.params if p.param_type_name == "option" and not p.help] == [], name


def shown(path: Path, width: int = 80) -> str:
    """A help page on one line."""
    return " ".join(page(path, width).split())


@pytest.mark.parametrize("path", [*paths()], ids=" ".join)
def test_help_shows_every_text_whole(path: Path) -> None:
    """What stands in brackets, too: rich would take it for markup."""
    command = cast(Any, typer.main.get_command(cli.app))
    for name in path:
        command = command.commands[name]
    texts = [command.help, *(option.help for option in command.params if option.param_type_name == "option")]
    page = shown(path, width=1000)
    assert [text for text in texts if " ".join(text.split()) not in page] == []


@pytest.mark.parametrize("path", [(), ("dead-letters",), ("offsets",)], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence(path: Path) -> None:
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
