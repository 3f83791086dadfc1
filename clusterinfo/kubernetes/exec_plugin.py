"""A kubeconfig's exec plugin, run as client-go runs it (plugin/pkg/client/auth/exec/exec.go).

What a plugin prints is a secret or may hold one: neither its stdout nor its stderr is repeated in a message. Only where
somebody sits at the terminal does the plugin share it, to ask them to log in.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from clusterinfo.errors import ConfigError, TransientError, one_line
from clusterinfo.kubernetes.kubeconfig import EXEC_EXTENSION, Cluster, Entry, Exec, without_nulls
from clusterinfo.settings import SECRET_FIELDS

EXEC_INFO = "KUBERNETES_EXEC_INFO"
API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
INTERACTIVE_MODES = ("", "Never", "IfAvailable", "Always")
"""client-go wants one of v1 to be said; unsaid is what it takes for v1beta1: IfAvailable."""
MAX_PRINTED_BYTES = 1024 * 1024
"""A token has 1 to 10 kB, a certificate with its chain not much more."""
DRAIN_S = 1.0
_PROGRAM = re.compile(r"[\w./~+-]{1,200}")


class PluginStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What it printed: a token, a certificate and its key (PEM), or all of them."""

    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None


class _Answer(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    status: PluginStatus


@dataclass(slots=True)
class ExecPlugin:
    """One user's plugin; asked again by `status` when what it gave has expired, and never twice at a time."""

    plugin: Exec
    user: Entry
    told: dict[str, Any] | None
    """What it is told of the cluster; None unless it asks for that."""
    _known: PluginStatus | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def status(self) -> PluginStatus:
        """Raises ConfigError for a plugin that cannot be run, TransientError for one that fails."""
        async with self._asking:
            if self._known is None or self._has_expired():
                self._known = self._read(await self._run())
            return self._known

    def _has_expired(self) -> bool:
        expires = self._known.expiration_timestamp if self._known else None
        return expires is not None and dt.datetime.now(dt.UTC) >= expires

    async def _run(self) -> bytes:
        interactive = self.plugin.interactive_mode != "Never" and sys.stdin.isatty()
        if self.plugin.interactive_mode == "Always" and not interactive:
            raise self._wrong("it wants to ask a person (`interactiveMode: Always`), and stdin is no terminal")
        process = await self._start(interactive)
        try:
            stdout = await self._printed(process)
            await process.wait()
        except BaseException:  # the time for it is over, or it prints without end
            await _kill(process, with_children=not interactive)
            raise
        if process.returncode:
            raise TransientError(
                f"the exec plugin {self._name} of user {self.user.name!r} failed with exit code "
                f"{process.returncode}; it tells why on stderr, which may hold secrets and is not shown: run it by hand"
            )
        return stdout

    async def _printed(self, process: asyncio.subprocess.Process) -> bytes:
        assert process.stdout is not None
        try:
            await process.stdout.readexactly(MAX_PRINTED_BYTES + 1)
        except asyncio.IncompleteReadError as all_of_it:
            return all_of_it.partial
        raise self._failed(f"it printed more than {MAX_PRINTED_BYTES} bytes")

    async def _start(self, interactive: bool) -> asyncio.subprocess.Process:
        shared = None if interactive and sys.stderr.isatty() else subprocess.DEVNULL
        try:
            return await asyncio.create_subprocess_exec(
                self._command(),
                *self.plugin.args,
                env=self._environment(interactive),
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=shared,
                start_new_session=not interactive,  # who asks a person stays in the terminal's
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its arguments hold a NUL"
            hint = f"; {one_line(self.plugin.install_hint)}" if self.plugin.install_hint else ""
            raise self._wrong(f"it cannot be run: {reason}{hint}") from None

    def _command(self) -> str:
        """Relative to the kubeconfig's folder if it has a slash in it, else what PATH has."""
        command = self.plugin.command
        if os.sep in command:
            return str(Path(self.user.path).absolute().parent / command)
        return shutil.which(command) or command

    def _environment(self, interactive: bool) -> dict[str, str]:
        """Ours, but for the secrets in it that are none of a plugin's business."""
        spec: dict[str, Any] = {"interactive": interactive} | ({"cluster": self.told} if self.told is not None else {})
        info = {"kind": "ExecCredential", "apiVersion": self.plugin.api_version, "spec": spec}
        added = {variable.name: variable.value for variable in self.plugin.env}
        ours = {name: value for name, value in os.environ.items() if name.lower() not in SECRET_FIELDS}
        return ours | added | {EXEC_INFO: json.dumps(info)}

    def _read(self, stdout: bytes) -> PluginStatus:
        try:
            answer = msgspec.convert(without_nulls(json.loads(stdout)), _Answer)
        except (ValueError, RecursionError):  # msgspec's error is a ValueError
            raise self._failed("it printed no ExecCredential with a status") from None
        status = answer.status
        if answer.api_version != self.plugin.api_version:
            raise self._failed(
                f"it does not answer in {self.plugin.api_version}, the apiVersion that the kubeconfig names"
            )
        if bool(status.client_certificate_data) != bool(status.client_key_data):
            raise self._failed("it gave a certificate or a key, not both")
        if not status.token and not status.client_key_data:
            raise self._failed("it gave no token and no certificate")
        if not is_sendable(status.token):
            raise self._failed("its token is none that a header can hold")
        return status

    @property
    def _name(self) -> str:
        """How messages call it; a whole line of a shell in place of a program may hold anything."""
        return self.plugin.command if _PROGRAM.fullmatch(self.plugin.command) else "(its command is no program)"

    def _failed(self, problem: str) -> TransientError:
        return TransientError(f"the exec plugin {self._name} of user {self.user.name!r}: {problem}")

    def _wrong(self, problem: str) -> ConfigError:
        return self.user.wrong(f"exec plugin {self._name}: {problem}")


async def _kill(process: asyncio.subprocess.Process, *, with_children: bool) -> None:
    """A plugin is a script as a rule: what it runs holds its stdout, and would go on."""
    with suppress(ProcessLookupError):
        if with_children:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    # What is left in the pipe is read: until its end has come asyncio keeps it open. A child may hold it longer.
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while process.stdout and await process.stdout.read(MAX_PRINTED_BYTES):
                pass
    await process.wait()


def is_sendable(token: str) -> bool:
    """Whether a header can hold it, but for the white space around it; what cannot be sent would end the program."""
    return token.isascii() and token.strip().isprintable()


def check_plugin(plugin: Exec, user: Entry) -> None:
    """Raises ConfigError for what client-go refuses before it runs anything."""
    if not plugin.command:
        raise user.wrong("`exec` has no command")
    if plugin.api_version not in API_VERSIONS:
        raise user.wrong(
            f"`exec` has another apiVersion than {' and '.join(API_VERSIONS)}: update plugin and kubeconfig"
        )
    if plugin.interactive_mode not in INTERACTIVE_MODES:
        raise user.wrong("`exec` has another interactiveMode than Never, IfAvailable and Always")
    if not all(variable.name for variable in plugin.env):
        raise user.wrong("`exec` has an environment variable without a name")


def told_of_cluster(cluster: Cluster, url: str, authority: bytes) -> dict[str, Any]:
    """`spec.cluster` of an ExecCredential. Source: client-go, rest/exec.go, ConfigToExecCluster."""
    config = next((one.extension for one in cluster.extensions if one.name == EXEC_EXTENSION), None)
    told = {
        "server": url,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(authority).decode(),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": config,
    }
    return {member: value for member, value in told.items() if value}
