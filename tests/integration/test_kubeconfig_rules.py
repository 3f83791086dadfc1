"""Kubeconfigs as client-go reads them: a table of members, what kubectl 1.37 does, and what we do.

Every line is sent to a server with TLS, or is refused in one line that quotes nothing. What kubectl does was observed,
with the same kubeconfigs and the same server.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from aiohttp import web
from cryptography import x509

from clusterinfo.errors import ClusterinfoError, ConfigError, TransientError
from clusterinfo.kubernetes import authentication, credentials
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.settings import Settings, load

pytestmark = pytest.mark.embedded_only

SECRET = "canary-hunter2"
OBSERVED = ("Authorization", "Accept-Encoding", "Impersonate-")
PLUGIN = f"""#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" > info
echo "{SECRET}" >&2
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
 "status": {{"token": "'"${{TOKEN-of-the-plugin}}$*"'", "expirationTimestamp": null}}}}'
"""


@dataclass(frozen=True)
class Sent:
    """What reached the server: the value of Authorization, the path, whether compressed answers were asked for."""

    authorization: str | None
    path: str = "/version"
    compressed: bool = True
    impersonated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """Nothing reached the server; `why` is part of what was said."""

    why: str


SAME = Sent("as kubectl")
ANONYMOUS = Sent(None)
TOKEN = Sent("Bearer t")


@dataclass(frozen=True)
class Line:
    """`given`: members of the user; `cluster` and `top`: members beside those of BASE, None: without it."""

    what: str
    given: dict[str, Any] | None
    kubectl: Sent | Refused | str
    ours: Sent | Refused = SAME
    cluster: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    text: Callable[[str], bytes] = str.encode


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin.sh", "interactiveMode": "Never"}
BASIC = "Basic " + base64.b64encode(b"me:pw").decode()
T = {"token": "t"}
ISSUER = {"idp-issuer-url": "https://127.0.0.1:9", "client-id": "me"}
ASKS = "asks for a user name; anonymous where it cannot"
LOCAL = "asks localhost:8080"
NO_CREDENTIALS = "sends no credentials without TLS"
BOTH = "are both specified"


def execute(**members: Any) -> dict[str, Any]:
    return {"exec": {name: value for name, value in (EXEC | members).items() if value is not ...}}


def inserted(old: str, new: str) -> Callable[[str], bytes]:
    return lambda text: text.replace(old, new).encode()


TABLE = [
    # who we are: tokens
    Line("token", T, TOKEN),
    Line("token is null", {"token": None}, ASKS, ANONYMOUS),
    Line("token is a number", {"token": 5}, Refused("cannot unmarshal number"), Refused("Expected `str`, got `int`")),
    Line("token ends in a newline", {"token": "t\n"}, Refused("invalid header field value"), TOKEN),
    Line("tokenFile", {"tokenFile": "token-file"}, Sent("Bearer of-the-file")),
    Line("tokenFile beside token", {"token": "stale", "tokenFile": "token-file"}, Sent("Bearer of-the-file")),
    Line("tokenFile that is away, beside token", T | {"tokenFile": "none"}, TOKEN),
    Line(
        "tokenFile that is away", {"tokenFile": SECRET}, Refused("no such file"), Refused("`tokenFile` names no file")
    ),
    Line("tokenFile that is empty", {"tokenFile": "empty"}, ASKS, Refused("holds no token")),
    # passwords
    Line("username and password", {"username": "me", "password": "pw"}, Sent(BASIC)),
    Line("username", {"username": "me"}, Sent("Basic bWU6")),
    Line("password", {"password": SECRET}, ASKS, ANONYMOUS),
    Line(
        "token beside username and password",
        T | {"username": "me", "password": SECRET},
        Refused("more than one authentication method"),
        Refused("it has a token and a user name"),
    ),
    # certificates
    Line("client-certificate without key", {"client-certificate": "ca.crt"}, Refused("must be"), Refused("has no key")),
    Line("client-key without certificate", T | {"client-key": SECRET}, TOKEN),
    Line(
        "client-certificate beside -data",
        {"client-certificate": "ca.crt", "client-certificate-data": "YQ==", "client-key": "ca.crt"},
        Refused(BOTH),
        Refused("`client-certificate` and `client-certificate-data`"),
    ),
    Line(
        "client-key beside -data",
        {"client-certificate": "ca.crt", "client-key-data": "YQ==", "client-key": "ca.crt"},
        Refused(BOTH),
        Refused("`client-key` and `client-key-data`"),
    ),
    Line(
        "client-certificate that is away",
        {"client-certificate": "none", "client-key": "none"},
        Refused("unable to read client-cert"),
        Refused("`client-certificate` names no file"),
    ),
    Line(
        "client-key-data that is no base64",
        {"client-certificate": "ca.crt", "client-key-data": f"{SECRET}!"},
        Refused("illegal base64"),
        Refused("`client-key-data` is no base64"),
    ),
    Line("empty *-data", T | {"client-certificate-data": "", "client-key-data": None}, TOKEN),
    # plugins
    Line("exec", execute(), Sent("Bearer of-the-plugin")),
    Line("exec.args", execute(args=["-a", "b"]), Sent("Bearer of-the-plugin-a b")),
    Line("exec.args is text", execute(args=SECRET), Refused("cannot unmarshal"), Refused("Expected `array`")),
    Line("exec.args and env are null", execute(args=None, env=None), Sent("Bearer of-the-plugin")),
    Line("exec.env", execute(env=[{"name": "TOKEN", "value": "t"}]), TOKEN),
    Line("exec.env without value", execute(env=[{"name": "TOKEN"}], args=["t"]), TOKEN),
    Line(
        "exec.env without name",
        execute(env=[{"value": SECRET}]),
        Refused("must be specified"),
        Refused("without a name"),
    ),
    Line("exec.command is missing", execute(command=...), Refused("must be specified"), Refused("has no command")),
    Line("exec.command of PATH", execute(command="on-path"), Sent("Bearer of-the-plugin")),
    Line(
        "exec.command that is not there",
        execute(command="none-such", installHint="Install it.\n\nSo."),
        Refused("It looks like you are trying to use a client-go credential plugin that is not installed"),
        Refused("exec plugin none-such: it cannot be run: No such file or directory; Install it. So."),
    ),
    Line(
        "exec.command is a line of a shell",
        execute(command=f"login --password {SECRET}"),
        Refused("not found"),
        Refused("(its command is no program): it cannot be run"),
    ),
    Line("exec.command that fails", execute(command="./fails.sh"), Refused("exit code 7"), Refused("exit code 7")),
    Line(
        "exec.command that prints no JSON",
        execute(command="./mumbles.sh"),
        Refused("decoding"),
        Refused("ExecCredential"),
    ),
    Line(
        "exec.apiVersion v1alpha1",
        execute(apiVersion="client.authentication.k8s.io/v1alpha1"),
        Refused("invalid apiVersion"),
        Refused("another apiVersion"),
    ),
    Line(
        "exec.apiVersion v1beta1, answered in v1",
        execute(apiVersion="client.authentication.k8s.io/v1beta1"),
        Refused("plugin returned version"),
        Refused("does not answer in client.authentication.k8s.io/v1beta1"),
    ),
    Line("exec.interactiveMode IfAvailable", execute(interactiveMode="IfAvailable"), Sent("Bearer of-the-plugin")),
    Line(
        "exec.interactiveMode Always",
        execute(interactiveMode="Always"),
        Refused("not a terminal"),
        Refused("no terminal"),
    ),
    Line(
        "exec.interactiveMode is another",
        execute(interactiveMode="never"),
        Refused("invalid"),
        Refused("interactiveMode"),
    ),
    Line(
        "exec.interactiveMode is missing",
        execute(interactiveMode=...),
        Refused("must be specified"),
        Sent("Bearer of-the-plugin"),
    ),
    Line("exec beside token: not run", T | execute(command="none-such"), TOKEN),
    Line(
        "exec beside username: not run",
        {"username": "me", "password": "pw"} | execute(command="none-such"),
        Sent(BASIC),
    ),
    Line(
        "exec beside auth-provider",
        execute() | {"auth-provider": {"name": "oidc"}},
        Refused("in combination"),
        Refused("leave out"),
    ),
    # what is gone
    Line(
        "auth-provider gcp",
        {"auth-provider": {"name": "gcp"}},
        Refused("has been removed"),
        Refused("gke-gcloud-auth-plugin"),
    ),
    Line(
        "auth-provider azure", {"auth-provider": {"name": "azure"}}, Refused("has been removed"), Refused("kubelogin")
    ),
    Line(
        "auth-provider another",
        {"auth-provider": {"name": SECRET}},
        Refused("no Auth Provider found"),
        Refused("auth-provider"),
    ),
    Line(
        "auth-provider oidc: its token",
        {"auth-provider": {"name": "oidc", "config": ISSUER | {"id-token": "e30.eyJleHAiOjQwMDAwMDAwMDB9.x"}}},
        Sent("Bearer e30.eyJleHAiOjQwMDAwMDAwMDB9.x"),
    ),
    Line(
        "auth-provider oidc: a token that has expired",
        {"auth-provider": {"name": "oidc", "config": ISSUER | {"id-token": f"{SECRET}.eyJleHAiOjF9.x"}}},
        "asks the issuer for another one, and writes it into the kubeconfig",
        Refused("any kubectl command renews it"),
    ),
    # impersonation
    Line(
        "as, as-uid, as-groups, as-user-extra",
        T | {"as": "v", "as-uid": "u", "as-groups": ["a", "b"], "as-user-extra": {"x/y": ["c"]}},
        Sent("Bearer t", impersonated=("Extra-x%2fy: c", "Group: a", "Group: b", "Uid: u", "User: v")),
    ),
    Line(
        "as-groups without as",
        T | {"as-groups": [SECRET]},
        Refused("without impersonating"),
        Refused("without impersonating"),
    ),
    # nobody
    Line("user is null", None, ASKS, ANONYMOUS),
    Line("context without user", T, ASKS, ANONYMOUS, top={"contexts": [{"name": "c", "context": {"cluster": "k"}}]}),
    Line("context of a user that is not there", T, ASKS, Refused("names user 'u', which"), top={"users": None}),
    # where the API is
    Line("server without scheme", T, NO_CREDENTIALS, Refused("`server` has no scheme"), {"server": "{plain}"}),
    Line(
        "server without scheme or credentials",
        {},
        ANONYMOUS,
        cluster={"server": "{plain}", "certificate-authority": None},
    ),
    Line("server of http", T, NO_CREDENTIALS, TOKEN, {"server": "http://{plain}"}),
    Line(
        "server with a path",
        T,
        Sent("Bearer t", "/k8s/c-1/version"),
        cluster={"server": "https://{tls}/k8s/c-1/?a=b#c"},
    ),
    Line("server with a query", T, TOKEN, cluster={"server": "https://{tls}?a=b"}),
    Line("server in capitals", T, TOKEN, cluster={"server": "HTTPS://{tls}"}),
    Line("server with userinfo", {}, ASKS, Sent(BASIC), {"server": "https://me:pw@{tls}"}),
    Line("server with userinfo beside token", T, Sent(BASIC), cluster={"server": "https://me:pw@{tls}"}),
    Line(
        "server with an odd password",
        T,
        Refused("must be a URL"),
        Refused("`server` is no"),
        {"server": f"https://me:{SECRET}/@{{tls}}"},
    ),
    Line(
        "server with a path, without scheme",
        T,
        Refused("must be a URL"),
        Refused("a path, but no scheme"),
        {"server": "{plain}/x"},
    ),
    Line(
        "server with a space", T, Refused("invalid character"), Refused("`server` is no"), {"server": " https://{tls}"}
    ),
    Line(
        "server of another scheme",
        T,
        Refused("unsupported protocol"),
        Refused("`server` is no"),
        {"server": "ftp://{tls}"},
    ),
    Line("server is missing", T, LOCAL, Refused("has no `server`"), {"server": None}),
    Line("tls-server-name", T, TOKEN, cluster={"server": "https://localhost:{port}", "tls-server-name": "127.0.0.1"}),
    Line("disable-compression", T, Sent("Bearer t", compressed=False), cluster={"disable-compression": True}),
    Line("proxy-url is empty", T, TOKEN, cluster={"proxy-url": ""}),
    Line(
        "proxy-url of socks5",
        T,
        "uses it",
        Refused("another scheme"),
        {"proxy-url": f"socks5://me:{SECRET}@127.0.0.1:9"},
    ),
    Line(
        "proxy-url of socks4",
        T,
        Refused("must be http, https"),
        Refused("another scheme"),
        {"proxy-url": f"socks4://{SECRET}@x:9"},
    ),
    Line(
        "proxy-url without scheme",
        T,
        Refused("must be http, https"),
        Refused("proxy-url"),
        {"proxy-url": f"me:{SECRET}@x:9"},
    ),
    Line(
        "proxy-url with an odd password",
        T,
        Refused("could not parse"),
        Refused("`proxy-url` is no URL"),
        {"proxy-url": f"http://me:{SECRET}/@x:9"},
    ),
    # whom we trust
    Line(
        "certificate-authority-data",
        T,
        TOKEN,
        cluster={"certificate-authority": None, "certificate-authority-data": "{ca}"},
    ),
    Line("certificate-authority-data is empty", T, TOKEN, cluster={"certificate-authority-data": ""}),
    Line("certificate-authority-data is null", T, TOKEN, cluster={"certificate-authority-data": ...}),
    Line(
        "certificate-authority beside -data",
        T,
        Refused(BOTH),
        Refused("`certificate-authority` and `certificate-authority-data`"),
        {"certificate-authority-data": "{ca}"},
    ),
    Line(
        "certificate-authority that is away",
        T,
        Refused("unable to read"),
        Refused("names no file"),
        {"certificate-authority": "none"},
    ),
    Line(
        "certificate-authority-data without a certificate",
        T,
        Refused("unable to parse bytes as PEM"),
        Refused("certificates of the kubeconfig cannot be used"),
        {"certificate-authority": None, "certificate-authority-data": "YWJj"},
    ),
    Line(
        "insecure-skip-tls-verify", T, TOKEN, cluster={"certificate-authority": None, "insecure-skip-tls-verify": True}
    ),
    Line(
        "insecure-skip-tls-verify beside an authority",
        T,
        Refused("is not allowed"),
        Refused("leave out"),
        {"insecure-skip-tls-verify": True},
    ),
    Line(
        "insecure-skip-tls-verify is text",
        T,
        Refused("cannot unmarshal"),
        Refused("Expected `bool`"),
        {"insecure-skip-tls-verify": "true"},
    ),
    # the file
    Line(
        "current-context is empty",
        T,
        LOCAL,
        Refused("no current-context: allowed is one of c"),
        top={"current-context": ""},
    ),
    Line(
        "current-context of none",
        T,
        Refused("was not found"),
        Refused("allowed is one of c"),
        top={"current-context": "d"},
    ),
    Line("context of a cluster that is not there", T, LOCAL, Refused("names cluster 'k', which"), top={"clusters": []}),
    Line(
        "an entry of null", T, TOKEN, top={"contexts": [None, {"name": "c", "context": {"cluster": "k", "user": "u"}}]}
    ),
    Line("an entry without name", T, TOKEN, top={"users": [{"user": {"token": SECRET}}, {"name": "u", "user": T}]}),
    Line(
        "a name twice",
        T,
        Refused("duplicate name"),
        Refused("name of another"),
        top={"users": [{"name": "u"}, {"name": "u"}]},
    ),
    Line(
        "a name that is a number", T, Refused("cannot unmarshal"), Refused("has no name"), top={"users": [{"name": 5}]}
    ),
    Line("kind of another", T, Refused("no kind"), Refused("it is no kubeconfig"), top={"kind": "Pod"}),
    Line("apiVersion and kind are missing", T, TOKEN, top={"kind": None, "apiVersion": None}),
    Line("UTF-16", T, TOKEN, text=lambda text: text.encode("utf-16")),
    Line("UTF-16, big end first", T, TOKEN, text=lambda text: b"\xfe\xff" + text.encode("utf-16-be")),
    Line("UTF-8 with a mark", T, TOKEN, text=lambda text: text.encode("utf-8-sig")),
    Line("lines of Windows", T, TOKEN, text=lambda text: text.replace("\n", "\r\n").encode()),
    Line("a second document", T, TOKEN, text=lambda text: f"---\n{text}---\na: b\n".encode()),
    Line("a date", {"token": "@"}, Sent("Bearer 2020-01-01"), text=inserted("'@'", "2020-01-01")),
    Line("a key twice", {"token": "@"}, TOKEN, text=inserted("token: '@'", "token: a\n    token: t")),
    Line("a merged map", {"token": "@"}, TOKEN, text=inserted("token: '@'", "<<: {token: t}")),
    Line("members in other letters", T | {"Token": "x", "TokenFile": "x"}, TOKEN),
    Line("members that nobody knows", T | {"x": 1}, TOKEN, top={"preferences": {"colors": True}, "extensions": []}),
]


@dataclass
class Server:
    """What it saw, and what stands for it in the table."""

    folder: Path
    authority: trustme.CA
    places: dict[str, str] = field(default_factory=dict)
    seen: list[web.Request] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Serial numbers of the certificates that clients showed."""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        certificate = request.get_extra_info("peercert") if request.secure else None
        self.shown += [certificate["serialNumber"].lstrip("0")] if certificate else []
        return web.json_response({"gitVersion": "v1.37.0"})

    def sent(self) -> Sent:
        """The last request."""
        request = self.seen[-1]
        said = [
            f"{name.removeprefix('Impersonate-').capitalize()}: {value}"
            for name, value in request.headers.items()
            if "Imperso" in name
        ]
        compressed = "gzip" in request.headers.get("Accept-Encoding", "")
        return Sent(request.headers.get("Authorization"), request.path_qs, compressed, tuple(sorted(said)))

    def write(self, line: Line) -> Path:
        """The kubeconfig of a line."""
        cluster = {"server": "https://{tls}", "certificate-authority": "ca.crt"} | line.cluster
        kept = {name: None if value is ... else value for name, value in cluster.items() if value is not None}
        placed = {
            name: value.format(**self.places) if isinstance(value, str) else value for name, value in kept.items()
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "k", "cluster": placed}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "users": [{"name": "u", "user": line.given}],
        } | line.top
        path = self.folder / "config"
        path.write_bytes(line.text(yaml.safe_dump({k: v for k, v in document.items() if v is not None})))
        return path


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """One server with TLS and without, in whose folder the kubeconfig's files are; we are somewhere else."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token-file").write_text("of-the-file\n")
    (tmp_path / "empty").touch()
    for name, script in (
        ("plugin", PLUGIN),
        ("fails", f"#!/bin/sh\necho {SECRET} >&2; exit 7\n"),
        ("mumbles", f"#!/bin/sh\necho {SECRET}\n"),
    ):
        (tmp_path / f"{name}.sh").write_text(script.replace("> info", f"> {tmp_path}/info"))
        (tmp_path / f"{name}.sh").chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "on-path").symlink_to(tmp_path / "plugin.sh")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    serving = Server(tmp_path, authority)
    app = web.Application()
    app.router.add_get("/{path:.*}", serving.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    for ssl_context in (context, None):
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    tls, plain = (f"{host}:{port}" for host, port in runner.addresses)
    encoded = base64.encodebytes((tmp_path / "ca.crt").read_bytes()).decode()
    serving.places |= {"tls": tls, "plain": plain, "port": tls.rpartition(":")[2], "ca": encoded}
    yield serving
    await runner.cleanup()


@pytest.mark.parametrize("line", TABLE, ids=lambda line: line.what)
async def test_a_kubeconfig_is_read_as_kubectl_reads_it(
    server: Server, line: Line, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = line.kubectl if line.ours is SAME else line.ours
    settings = Settings(kubeconfig=server.write(line))

    if isinstance(expected, Refused):
        with pytest.raises(ClusterinfoError) as caught:
            async with KubernetesClient.connect(settings, identify=False):
                pass
        assert expected.why in str(caught.value)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert server.seen == []
    else:
        async with KubernetesClient.connect(settings, identify=False):
            assert server.sent() == expected
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_the_table_says_of_every_line_what_kubectl_does() -> None:
    assert [line.what for line in TABLE if line.ours is SAME and not isinstance(line.kubectl, Sent)] == []
    assert len({line.what for line in TABLE}) == len(TABLE)


# What takes more than one line


async def test_a_plugin_is_told_of_the_cluster_if_it_asks_for_that(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x", "none": None}}
    told = {"tls-server-name": "127.0.0.1", "disable-compression": True, "proxy-url": "", "extensions": [extension]}
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pw@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    line = Line("", execute(provideClusterInfo=True), TOKEN, cluster=told)

    async with KubernetesClient.connect(Settings(kubeconfig=server.write(line)), identify=False):
        assert server.sent().authorization == "Bearer of-the-plugin"

    info = json.loads((server.folder / "info").read_text())
    authority = base64.b64encode((server.folder / "ca.crt").read_bytes()).decode()
    assert info == {
        "kind": "ExecCredential",
        "apiVersion": "client.authentication.k8s.io/v1",
        "spec": {
            "interactive": False,
            "cluster": {
                "server": f"https://{server.places['tls']}",
                "tls-server-name": "127.0.0.1",
                "certificate-authority-data": authority,
                "disable-compression": True,
                "config": {"audience": "x", "none": None},
            },
        },
    }


async def test_a_plugin_that_does_not_ask_is_not_told_of_the_cluster(server: Server) -> None:
    async with KubernetesClient.connect(Settings(kubeconfig=server.write(Line("", execute(), TOKEN))), identify=False):
        assert json.loads((server.folder / "info").read_text())["spec"] == {"interactive": False}


async def test_a_plugin_has_our_environment_but_for_our_secrets(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "t")
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    plugin = (server.folder / "plugin.sh").read_text().replace("TOKEN-of-the-plugin", "AWS_PROFILE")
    (server.folder / "plugin.sh").write_text(plugin.replace("$*", "$DB_PASSWORD"))
    async with KubernetesClient.connect(Settings(kubeconfig=server.write(Line("", execute(), TOKEN))), identify=False):
        assert server.sent() == TOKEN


async def test_a_plugin_that_takes_too_long_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (server.folder / "plugin.sh").write_text(f"#!/bin/sh\necho $$ > {server.folder}/pid\nexec sleep 60\n")
    await credentials.load_credentials(Settings(kubeconfig=server.write(Line("", T, TOKEN))))  # imports take long
    monkeypatch.setattr(credentials, "CREDENTIALS_S", 0.5)

    with pytest.raises(TransientError, match="plugin gave no credentials within"):
        await credentials.load_credentials(Settings(kubeconfig=server.write(Line("", execute(), TOKEN))))
    with pytest.raises(ProcessLookupError):
        os.kill(int((server.folder / "pid").read_text()), 0)


async def test_a_tokens_file_is_looked_at_again_and_kept_while_it_is_away_or_is_none(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file = server.folder / "token-file"
    line = Line("", {"tokenFile": "token-file"}, TOKEN)
    async with KubernetesClient.connect(Settings(kubeconfig=server.write(line)), identify=False) as client:
        token_file.write_text("another")
        await client.ping()
        assert server.sent().authorization == "Bearer of-the-file", "within a minute nobody looks"
        monkeypatch.setattr(authentication, "TOKEN_FILE_S", 0)
        await client.ping()
        assert server.sent().authorization == "Bearer another"
        for change in (token_file.unlink, token_file.touch, lambda: token_file.write_text("half\nof a header")):
            change()
            await client.ping()
            assert server.sent().authorization == "Bearer another"


async def test_of_several_files_the_first_with_a_name_counts_whole_and_each_names_files_from_its_own_folder(
    server: Server,
) -> None:
    """As kubectl merges them; what is not there, or empty, is passed over."""
    first, second = server.folder / "first", server.folder / "second" / "config"
    second.parent.mkdir()
    (second.parent / "token-file").write_text("of-the-second")
    first.write_text(
        f"current-context: c\nclusters: [{{name: k, cluster: {{server: 'https://{server.places['tls']}', "
        "certificate-authority: ca.crt}}]\nusers: [{name: other, user: {token: x}}]\n"
    )
    second.write_text(
        "current-context: d\nclusters: [{name: k, cluster: {server: 'https://127.0.0.1:1', tls-server-name: x}}]\n"
        "users: [{name: u, user: {tokenFile: token-file}}, {name: other, user: {username: y}}]\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}, {name: d, context: {cluster: k, user: other}}]\n"
    )
    paths = os.pathsep.join(map(str, ("", server.folder / "none", server.folder / "empty", first, second, first)))

    for context, token in ((None, "of-the-second"), ("d", "x")):
        settings = load({"KUBECONFIG": paths} | ({"KUBE_CONTEXT": context} if context else {}))
        async with KubernetesClient.connect(settings, identify=False):
            assert server.sent() == Sent(f"Bearer {token}")


@pytest.mark.parametrize("spelling", ["files", "data", "plugin"])
async def test_a_client_certificate_is_shown(server: Server, spelling: str) -> None:
    leaf = server.authority.issue_cert("me@example.com")
    certificate, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
    (server.folder / "me.crt").write_bytes(certificate)
    (server.folder / "me.key").write_bytes(key)
    status = {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}
    answer = {"apiVersion": EXEC["apiVersion"], "kind": "ExecCredential", "status": status}
    (server.folder / "answer").write_text(json.dumps(answer))
    users: dict[str, dict[str, Any]] = {
        "files": {"client-certificate": "me.crt", "client-key": "me.key"},
        "data": {
            f"client-{name}-data": base64.b64encode(pem).decode()
            for name, pem in (("certificate", certificate), ("key", key))
        },
        "plugin": execute(command="cat", args=[str(server.folder / "answer")]),
    }
    line = Line("", users[spelling], ANONYMOUS)

    async with KubernetesClient.connect(Settings(kubeconfig=server.write(line)), identify=False):
        assert server.sent() == ANONYMOUS
    assert server.shown == [leaf_serial(certificate)]


def leaf_serial(certificate: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(certificate).serial_number:X}"


async def test_a_netrc_does_not_concern_us(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp refuses a request that has a token if the file has a login for its host."""
    (server.folder / "netrc").write_text("default login me password pw\n")
    monkeypatch.setenv("NETRC", str(server.folder / "netrc"))
    async with KubernetesClient.connect(Settings(kubeconfig=server.write(Line("", T, TOKEN))), identify=False):
        assert server.sent() == TOKEN


@pytest.mark.parametrize(
    "value",
    [
        f"http://me:{SECRET}/@x:1",
        f"me:{SECRET}@x:y",
        f"http://me:{SECRET}#@",
        f"ftp://{SECRET}@x",
        f"http://me:{SECRET} @x",
    ],
)
async def test_a_proxy_of_the_environment_that_is_none_is_not_quoted(
    server: Server, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    settings = Settings(kubeconfig=server.write(Line("", T, TOKEN)))

    with pytest.raises(ConfigError, match="HTTPS_PROXY names no proxy: expected http") as caught:
        await credentials.load_credentials(settings)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with KubernetesClient.connect(settings, identify=False):
        assert server.sent() == TOKEN


async def test_a_proxy_of_the_environment_may_have_no_scheme(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "me:pw@127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", f"me:{SECRET}@x:y")
    found = await credentials.load_credentials(Settings(kubeconfig=server.write(Line("", T, TOKEN))))
    assert found.configuration.proxy == "http://me:pw@127.0.0.1:9"
