from __future__ import annotations

import datetime as dt
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from clusterinfo.errors import ConfigError, TransientError
from clusterinfo.kubernetes import client, errors
from clusterinfo.kubernetes import credentials as credentials_module
from clusterinfo.kubernetes.credentials import load_credentials
from clusterinfo.kubernetes.errors import ApiStatusError, ApiTransientError
from clusterinfo.model import GroupVersionResource
from clusterinfo.settings import Settings, load

RECORDED = Path(__file__).parents[2] / "recorded"
NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", None),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert errors.parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_transient(status: int) -> None:
    error = errors.status_error(status, b"oops", "3", NOW)

    assert isinstance(error, ApiTransientError)
    assert (error.status, error.retry_after_s) == (status, 3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("error-400-continue", "BadRequest"),
        ("error-403", "Forbidden"),
        ("error-404", "NotFound"),
        ("error-405", "MethodNotAllowed"),
        ("error-410-continue", "Expired"),
    ],
)
def test_what_will_be_refused_again_is_a_status(name: str, reason: str) -> None:
    exchange = json.loads((RECORDED / f"{name}.json").read_text())

    error = errors.status_error(exchange["status"], exchange["body"].encode(), None, NOW)

    assert isinstance(error, ApiStatusError)
    assert (error.status, error.reason) == (exchange["status"], reason)
    assert len(error.message) <= 300
    assert "\n" not in str(error)


def test_paths_are_those_of_the_api() -> None:
    pods = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
    widgets = GroupVersionResource("shop.example.com", "v2", "widgets", "Widget", namespaced=True)

    assert client.resource_path(pods) == "/api/v1/pods"
    assert client.resource_path(widgets, "a/b") == "/apis/shop.example.com/v2/namespaces/a%2Fb/widgets"


# --- credentials -----------------------------------------------------------------------------------------------------


def _kubeconfig(path: Path, user: dict[str, Any], **cluster: Any) -> Settings:
    document = {
        "clusters": [{"name": "blue", "cluster": {"server": "http://127.0.0.1:1", **cluster}}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "ctx", "context": {"cluster": "blue", "user": "me"}}],
        "current-context": "ctx",
    }
    path.write_text(json.dumps(document))  # JSON is YAML
    return Settings(kubeconfig=path)


async def _token(credentials: credentials_module.Credentials) -> str:
    return str(await credentials.configuration.get_api_key_with_prefix("BearerToken"))


@pytest.mark.parametrize("text", ["", "\n# nothing yet\n", "- a list", "just words"])
async def test_a_file_that_holds_no_kubeconfig_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ConfigError, match=r"KUBECONFIG '.*config' holds no kubeconfig: expected clusters, users"):
        await load_credentials(load({}, kubeconfig=str(tmp_path / "config")))


async def test_an_empty_file_among_several_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    settings = _kubeconfig(tmp_path / "config", {"token": "abc"})
    several = load({}, kubeconfig=f"{tmp_path / 'empty'}{os.pathsep}{settings.kubeconfig}")
    assert await _token(await load_credentials(several)) == "Bearer abc"


async def test_a_token_file_may_end_in_a_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    settings = _kubeconfig(tmp_path / "config", {"tokenFile": "token"})

    credentials = await load_credentials(settings)

    assert await _token(credentials) == "Bearer abc"
    assert credentials.cluster_name == "blue"


async def test_a_plugins_token_is_asked_for_again_before_it_expires(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"""#!/bin/sh
echo x >> {tmp_path}/calls
echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
"status":{{"token":"t'$(wc -l < {tmp_path}/calls)'","expirationTimestamp":"2020-01-01T00:00:00Z"}}}}'
"""
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}

    credentials = await load_credentials(_kubeconfig(tmp_path / "config", user))

    assert [await _token(credentials), await _token(credentials)] == ["Bearer t2", "Bearer t3"]


async def test_a_plugin_that_fails_later_is_transient(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        """#!/bin/sh
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
"status":{"token":"t","expirationTimestamp":"2020-01-01T00:00:00Z"}}'
"""
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    credentials = await load_credentials(_kubeconfig(tmp_path / "config", user))
    plugin.write_text("#!/bin/sh\nexit 1\n")

    with pytest.raises(TransientError, match="plugin"):
        await _token(credentials)
    plugin.unlink()
    with pytest.raises(TransientError, match="it cannot be run: No such file"):
        await _token(credentials)


async def test_a_plugin_that_fails_at_the_start_is_a_config_error(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(tmp_path / "none")}}

    with pytest.raises(ConfigError, match=r"user 'me' of the kubeconfig .*none: it cannot be run: No such"):
        await load_credentials(_kubeconfig(tmp_path / "config", user))


async def test_in_a_cluster_the_service_account_is_used_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "ca.crt").write_text("a certificate")
    monkeypatch.setattr(credentials_module, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("kubernetes_asyncio.config.incluster_config.TOKEN_REFRESH_PERIOD", dt.timedelta(0))

    credentials = await load_credentials(Settings())

    assert credentials.configuration.host == "https://10.0.0.1:443"
    assert credentials.headers == [("Accept-Encoding", "identity")], "the network is fast there"
    assert await _token(credentials) == "Bearer abc"
    (tmp_path / "token").write_text("def\n")
    assert await _token(credentials) == "Bearer def"


@pytest.mark.parametrize(
    ("setting", "cluster", "encoding"),
    [
        (None, {}, "gzip"),
        (None, {"disable-compression": True}, "identity"),
        ("gzip", {"disable-compression": True}, "gzip"),
        ("none", {}, "identity"),
    ],
)
async def test_a_setting_goes_before_what_the_kubeconfig_says_of_compression(
    tmp_path: Path, setting: str | None, cluster: dict[str, Any], encoding: str
) -> None:
    kubeconfig = _kubeconfig(tmp_path / "config", {}, **cluster).kubeconfig

    credentials = await load_credentials(load({"KUBE_COMPRESSION": setting or ""}, kubeconfig=str(kubeconfig)))

    assert credentials.headers == [("Accept-Encoding", encoding)]


async def test_a_named_kubeconfig_beats_the_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("abc")
    monkeypatch.setattr(credentials_module, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

    credentials = await load_credentials(_kubeconfig(tmp_path / "config", {"token": "mine"}))

    assert await _token(credentials) == "Bearer mine"


async def test_without_any_kubeconfig_the_message_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(ConfigError, match=r"KUBECONFIG is not set, .*/\.kube/config does not exist") as caught:
        await load_credentials(Settings())
    assert caught.value.exit_code == 2


async def test_a_kubeconfig_without_current_context_lists_the_contexts(tmp_path: Path) -> None:
    settings = _kubeconfig(tmp_path / "config", {})
    document = json.loads((tmp_path / "config").read_text())
    del document["current-context"]
    (tmp_path / "config").write_text(json.dumps(document))

    with pytest.raises(ConfigError, match="no current-context: allowed is one of ctx"):
        await load_credentials(settings)


@pytest.mark.parametrize("proxy", ["me:hun/ter2@proxy:3128", "//me:hunter2@proxy:3128", "socks5://me:hun#ter2@proxy"])
async def test_a_proxy_that_is_refused_is_not_quoted(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"`proxy-url` is .*http://.*https://") as caught:
        await load_credentials(_kubeconfig(tmp_path / "config", {}, **{"proxy-url": proxy}))
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "just text", "contexts: 5", "a: [", "contexts: [{}]", "contexts: [5]"])
async def test_what_is_no_kubeconfig_is_a_config_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)

    with pytest.raises(ConfigError, match=r"KUBECONFIG|KUBE_CONTEXT"):
        await load_credentials(Settings(kubeconfig=tmp_path / "config"))
