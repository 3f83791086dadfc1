"""Kubeconfigs that are broken: the message names file, line and problem, and nothing that the file holds."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.kubernetes.credentials import load_credentials
from clusterinfo.settings import Settings, load

SECRET = "canary-hunter2"
HEAD = 'clusters: [{name: k, cluster: {server: "https://127.0.0.1:1"}}]\ncurrent-context: c\n'
CONTEXTS = "contexts: [{name: c, context: {cluster: k, user: u}}]\n"


async def refusal(path: Path, content: str | bytes, **settings: Any) -> str:
    """The one line, after a look at all that a traceback would show."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        await load_credentials(Settings(kubeconfig=path, **settings))
    shown = "".join(traceback.format_exception(caught.value, chain=True))
    assert SECRET not in shown
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("users", "where"),
    [
        (f"users:\n- name: u\n  user:\n    token: {SECRET}: {SECRET}\n", "line 7, column 26: mapping values are not"),
        (f"users:\n- name: u\n  user:\n\ttoken: {SECRET}\n", "line 7, column 1: found character"),
        (f"users:\n- name: u\n  user: {{token: {SECRET}", "expected , or }, but got <stream end>"),
        (f'users:\n- name: u\n  user: {{token: "{SECRET}', "found unexpected end of stream"),
        (
            f"users:\n- name: u\n  user: {{token: !{SECRET} x}}\n",
            "line 6, column 17: could not determine a constructor",
        ),
        (f"users:\n- name: u\n  user: {{token: *{SECRET}}}\n", "line 6, column 17: found undefined alias"),
        (f"users:\n- name: u\n  user:\n    token\n    x: {SECRET}\n", "line 8, column 6: mapping values are not"),
        (f"users: []\n{SECRET}\nx: 1\n", "line 6, column 1: could not find expected :"),
        (f"users:\n- name: u\n  user: {{token: {SECRET}\x01}}\n", "line 6: it holds a character that YAML does not"),
        (f"users:\n- name: u\n  user: {{token: {SECRET}, x: !!int {SECRET}}}\n", "a value that is none in YAML"),
        (f"users: {{u: {SECRET}}}\n", "expected users to be a list"),
        (f"users: [{SECRET}]\n", "entry 1 of users has no name"),
        (f"users: [{{user: {SECRET}}}]\n", "entry 1 of users: expected `user` to be a map"),
        (f"users: [{{name: [{SECRET}]}}]\n", "entry 1 of users has no name"),
        (f"kind: {SECRET}\n", "its apiVersion and kind are not v1 and Config"),
        (f"current-context: [{SECRET}]\n", "expected current-context to be text"),
    ],
)
async def test_a_kubeconfig_that_is_no_yaml_is_not_quoted(tmp_path: Path, users: str, where: str) -> None:
    message = await refusal(tmp_path / "config", HEAD + CONTEXTS + users)

    assert message.startswith(f"KUBECONFIG '{tmp_path / 'config'}' cannot be read: ")
    assert where in message


@pytest.mark.parametrize("content", [b"\xff\xfe" + SECRET[1:].encode(), b"\xff" + SECRET.encode()])
async def test_a_kubeconfig_that_is_no_utf_8_says_so(tmp_path: Path, content: bytes) -> None:
    assert "UTF-8" in await refusal(tmp_path / "config", content)


@pytest.mark.parametrize(
    ("user", "where"),
    [
        (f"{{name: u, user: {{auth-provider: {{name: oidc, config: {{id-token: {SECRET}}}}}}}}}", "is no JWT"),
        (f"{{name: u, user: {{auth-provider: {{name: oidc, config: {{id-token: a.{SECRET}.b}}}}}}}}", "is no JWT"),
        (f"{{name: u, user: {{auth-provider: {{name: oidc, config: {{id-token: [{SECRET}]}}}}}}}}", "`$.auth-provider"),
        (f"{{name: u, user: {{tokenFile: {SECRET}}}}}", "`tokenFile` names no file"),
        (f"{{name: u, user: {{tokenFile: {SECRET * 30}}}}}", "`tokenFile` names no file"),
        (f"{{name: u, user: {{client-certificate: c, client-key: {SECRET}}}}}", "`client-certificate` names no file"),
        (f"{{name: u, user: {{client-certificate: config, client-key: {SECRET}}}}}", "`client-key` names no file"),
        (f"{{name: u, user: {{client-certificate-data: '{SECRET}!', client-key: x}}}}", "data` is no base64"),
        (f"{{name: u, user: {{client-certificate-data: 'é{SECRET}', client-key: x}}}}", "data` is no base64"),
        (
            f"{{name: u, user: {{exec: {{command: x, env: {SECRET}}}}}}}",
            "Expected `array`, got `str` - at `$.exec.env`",
        ),
        (f"{{name: u, user: {{exec: {{command: x, args: {{a: {SECRET}}}}}}}}}", "got `object` - at `$.exec.args`"),
        (f"{{name: u, user: {{token: [{SECRET}]}}}}", "user 'u' of the kubeconfig '"),
        (f"{{name: u, user: {SECRET}}}", "expected `user` to be a map"),
    ],
)
async def test_a_user_that_cannot_be_used_is_not_quoted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, user: str, where: str
) -> None:
    message = await refusal(tmp_path / "config", f"{HEAD}{CONTEXTS}users: [{user}]\n")

    assert where in message
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "cluster", ["server: 'http://x', proxy-url: 5", "server: 'http://x', proxy-url: [x]", "server: 'https://[::1'"]
)
async def test_a_cluster_that_cannot_be_used_is_reported_in_one_line(tmp_path: Path, cluster: str) -> None:
    text = f"clusters: [{{name: k, cluster: {{{cluster}}}}}]\ncurrent-context: c\n{CONTEXTS}users: []\n"

    assert "kubeconfig" in (await refusal(tmp_path / "config", text)).lower()


@pytest.mark.parametrize("text", [f"users:\n- {SECRET}", json.dumps({"users": [SECRET]}), f'  {{"x": "{SECRET}"}}'])
async def test_a_kubeconfig_in_the_variable_itself_is_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError, match="KUBECONFIG holds a kubeconfig itself") as caught:
        await load_credentials(load({"KUBECONFIG": text}))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_file_name_nobody_can_use_is_no_file() -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        await load_credentials(load({"KUBECONFIG": "x" * 5000}))


async def test_of_several_files_the_broken_one_is_named_and_the_first_entry_of_a_name_counts(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.write_text(f"{HEAD}{CONTEXTS}users: [{{name: u, user: {{token: first}}}}]\n")
    broken.write_text("current-context: other\nusers: [{name: u, user: {token: second}}]\n")
    both = load({"KUBECONFIG": f"{whole}{os.pathsep}{broken}"})
    credentials = await load_credentials(both)
    assert await credentials.configuration.get_api_key_with_prefix("BearerToken") == "Bearer first"

    broken.write_text(f"users: [{SECRET}: {SECRET}: x]\n")

    with pytest.raises(ConfigError, match=rf"'{broken}' cannot be read: line 1, ") as caught:
        await load_credentials(both)
    assert SECRET not in str(caught.value)
