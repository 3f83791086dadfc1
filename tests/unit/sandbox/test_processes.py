"""Children are awaited with a deadline, stopped by their id, and do not outlive us."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from clusterinfo.sandbox.processes import (
    PORTS,
    PrivateDirectory,
    Process,
    SandboxError,
    free_port,
    is_reachable,
    unprivileged_account,
)


def start(tmp_path: Path, code: str) -> Process:
    return Process.start("child", [sys.executable, "-c", code], log=tmp_path / "log", cwd=Path("/"))


async def wait_for_text(process: Process, text: str) -> None:
    async def printed() -> bool:
        return text in process.log_tail()

    await process.wait_ready(printed, 60)


async def test_stop_asks_first(tmp_path: Path) -> None:
    process = start(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    await wait_for_text(process, "up")
    assert await process.stop(signal.SIGTERM, grace_s=60) == -signal.SIGTERM
    assert not Path(f"/proc/{process.pid}").exists()


async def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = start(tmp_path, code)
    await wait_for_text(process, "up")
    assert await process.stop(signal.SIGTERM, grace_s=0.2) == -signal.SIGKILL


async def test_cancelled_stop_leaves_nothing(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = start(tmp_path, code)
    await wait_for_text(process, "up")
    stopping = asyncio.create_task(process.stop(signal.SIGTERM, grace_s=30))
    await asyncio.sleep(0.1)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert process.returncode == -signal.SIGKILL


async def test_a_child_that_fails_is_reported_with_its_log(tmp_path: Path) -> None:
    process = start(tmp_path, "import sys; sys.exit('no such thing')")

    async def never() -> bool:
        return False

    with pytest.raises(SandboxError, match=r"(?s)child exited with 1.*no such thing"):
        await process.wait_ready(never, 60)


async def test_a_child_that_is_never_ready_is_reported(tmp_path: Path) -> None:
    process = start(tmp_path, "import time; print('thinking', flush=True); time.sleep(60)")

    async def never() -> bool:
        return False

    try:
        with pytest.raises(SandboxError, match="not ready after"):
            await process.wait_ready(never, 0.3)
    finally:
        await process.stop(signal.SIGKILL)


async def test_what_cannot_be_executed_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="cannot execute /no/such/program"):
        Process.start("child", ["/no/such/program"], log=tmp_path / "log", cwd=Path("/"))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    parent = textwrap.dedent(f"""
        import pathlib, sys, time
        from clusterinfo.sandbox.processes import Process
        log = pathlib.Path({str(tmp_path)!r}) / "log"
        child = Process.start("child", [sys.executable, "-c", "import time; time.sleep(60)"], log=log, cwd=log.parent)
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        status = Path(f"/proc/{int(running.stdout.readline())}/status")
        assert status.exists()
        running.kill()
    deadline = time.monotonic() + 60
    while not has_ended(status) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert has_ended(status)


def has_ended(status: Path) -> bool:
    """Gone, or a zombie that a container without an init does not bury."""
    try:
        return "State:\tZ" in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_children_have_no_rights_of_roots(tmp_path: Path) -> None:
    account = unprivileged_account()
    assert (account is None) == (os.geteuid() != 0)
    argv = ["/bin/sh", "-c", "id -u; id -g; id -G"]
    process = Process.start("id", argv, log=tmp_path / "log", cwd=Path("/"), account=account)
    await process.finish(60)
    user, group, *groups = (int(number) for number in process.log_tail().split())
    if account is None:
        assert (user, group, set(groups)) == (os.geteuid(), os.getegid(), {os.getegid(), *os.getgroups()})
    else:
        assert account.uid > 0
        assert (user, group, groups) == (account.uid, account.gid, [account.gid])


def test_directories_are_private_and_reachable() -> None:
    account = unprivileged_account()
    directory = PrivateDirectory("test", account)
    try:
        assert directory.path.stat().st_mode & 0o777 == 0o700
        assert account is None or is_reachable(directory.path, account)
        assert account is None or directory.path.stat().st_uid == account.uid
    finally:
        directory.remove()
    assert not directory.path.exists()


def test_directories_of_the_killed_are_removed_and_of_the_living_kept() -> None:
    code = "from clusterinfo.sandbox.processes import *; d = PrivateDirectory('test', unprivileged_account())"
    code += "; (d.path / 'file').touch(); print(d.path, flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        path = Path(maker.stdout.readline().strip())
        PrivateDirectory("test", unprivileged_account()).remove()
        assert path.exists()
        maker.kill()
    PrivateDirectory("test", unprivileged_account()).remove()
    assert not path.exists()


def test_ports_are_not_ephemeral() -> None:
    ports = {free_port() for _ in range(60)}
    assert all(port in PORTS for port in ports)
