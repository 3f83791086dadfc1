"""The commands below a command, and their flags: the README shows each of them, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import typer

from clusterinfo import cli

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_every_command_below_a_command() -> None:
    commands = cast(Any, typer.main.get_command(cli.app)).commands
    groups = {name: group.commands for name, group in commands.items() if hasattr(group, "commands")}
    assert set(groups) == {"dead-letters", "offsets"}
    known = {f"{name} {below}": command for name, group in groups.items() for below, command in group.items()}
    shown = re.findall(r"\bclusterinfo ((?:dead-letters|offsets) [a-z]+)([^#\n]*)", README)
    assert {name for name, _ in shown} == set(known)
    for name, rest in shown:
        flags = {flag for parameter in known[name].params for flag in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= flags, name


def test_every_flag_says_what_it_does() -> None:
    commands = cast(Any, typer.main.get_command(cli.app)).commands
    for group in (commands["dead-letters"].commands, {"forget": commands["forget"]}):
        for name, command in group.items():
            assert command.help, name
            assert [p.name for p in command.params if p.param_type_name == "option" and not p.help] == [], name
