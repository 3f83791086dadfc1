"""An exec plugin that asks somebody at the terminal, as client-go's interactiveMode lets it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.kubernetes.exec_plugin import ExecPlugin
from clusterinfo.kubernetes.kubeconfig import Entry, Exec

V1 = "client.authentication.k8s.io/v1"
PLUGIN = f"""#!/bin/sh
case $KUBERNETES_EXEC_INFO in *'"interactive": true'*) told=yes;; *) told=no;; esac
printf 'Code: ' >&2
read -r answer
printf '{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{"token":"%s, asked: %s"}}}}' "$answer" $told
"""


@contextmanager
def replaced(descriptor: int, by: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    os.dup2(by, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextmanager
def terminal() -> Iterator[int]:
    """The end that a person sits at; stdin and stderr are the other. No fixture: pytest sets both between phases."""
    person, program = os.openpty()
    with (
        replaced(0, program),
        replaced(2, program),
        os.fdopen(0, closefd=False) as stdin,
        os.fdopen(2, "w", closefd=False) as stderr,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stderr", stderr)
        yield person
    os.close(person)
    os.close(program)


def shown(person: int) -> bytes:
    """What stands on the terminal, its echo included."""
    os.write(2, b"\0")
    text = b""
    while not text.endswith(b"\0"):
        text += os.read(person, 1000)
    return text


def plugin(folder: Path, mode: str) -> ExecPlugin:
    path = folder / "plugin.sh"
    path.write_text(PLUGIN)
    path.chmod(0o755)
    user = Entry("users", "me", {}, str(folder / "config"))
    return ExecPlugin(Exec(command=str(path), api_version=V1, interactive_mode=mode), user, None)


@pytest.mark.parametrize("mode", ["IfAvailable", "Always", ""])
async def test_it_may_ask(tmp_path: Path, mode: str) -> None:
    with terminal() as person:
        os.write(person, b"4711\n")

        assert (await plugin(tmp_path, mode).status()).token == "4711, asked: yes"
        assert b"Code: " in shown(person)


async def test_it_may_not_ask_where_the_kubeconfig_says_never(tmp_path: Path) -> None:
    with terminal() as person:
        os.write(person, b"4711\n")

        assert (await plugin(tmp_path, "Never").status()).token == ", asked: no"
        assert b"Code: " not in shown(person)


@pytest.mark.parametrize("mode", ["IfAvailable", ""])
async def test_without_a_terminal_it_may_not_ask(tmp_path: Path, mode: str) -> None:
    assert (await plugin(tmp_path, mode).status()).token == ", asked: no"


async def test_what_has_to_ask_is_not_run_without_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stdin is no terminal"):
        await plugin(tmp_path, "Always").status()
