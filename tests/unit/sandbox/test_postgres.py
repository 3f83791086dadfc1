"""The embedded PostgreSQL starts, crashes, recovers, and leaves neither process nor directory behind."""

import os
import shutil
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.sandbox import postgres as module
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.sandbox.processes import SandboxError, unprivileged_account


async def ask(postgres: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(postgres.dsn(), timeout=60)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_data_outlives_a_restart(mode: str) -> None:
    async with EmbeddedPostgres(settings={"work_mem": "7MB"}) as postgres:
        assert await ask(postgres, "show work_mem") == "7MB"
        await ask(postgres, "create table t as select 42 as answer")
        port = postgres.port
        assert mode in ("fast", "immediate")
        await postgres.stop("fast" if mode == "fast" else "immediate")
        assert postgres.pid is None
        with pytest.raises(OSError):
            await ask(postgres, "select 1")
        await postgres.start()
        assert postgres.port == port
        assert await ask(postgres, "select answer from t") == 42
        pid, directory = postgres.pid, postgres.directory
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


async def test_environment_and_password() -> None:
    async with EmbeddedPostgres() as postgres:
        environment = postgres.env("other")
        assert environment["DB_NAME"] == "other"
        assert set(environment) == {"DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"}
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host=postgres.host, port=postgres.port, user=postgres.user, password="wrong", timeout=60
            )


async def fail_within(server: EmbeddedPostgres) -> tuple[Path, int | None]:
    try:
        async with server:
            seen = server.directory, server.pid
            raise ZeroDivisionError
    except ZeroDivisionError:
        return seen


async def test_nothing_is_left_when_the_block_fails() -> None:
    directory, pid = await fail_within(EmbeddedPostgres())
    assert pid is not None
    assert not directory.exists()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_setting_it_refuses_is_reported_with_its_log() -> None:
    with pytest.raises(SandboxError, match=r"(?s)while starting.*no_such_setting"):
        async with EmbeddedPostgres(settings={"no_such_setting": "1"}):
            pass


async def test_files_go_into_the_data_directory() -> None:
    async with EmbeddedPostgres(files={"extra.conf": b"# nothing"}) as postgres:
        path = postgres.data / "extra.conf"
        assert path.read_bytes() == b"# nothing"
        assert path.stat().st_mode & 0o777 == 0o600


async def test_an_installation_without_a_server_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(module.BIN_VARIABLE, str(tmp_path))
    with pytest.raises(SandboxError, match="no initdb there"):
        async with EmbeddedPostgres():
            pass


async def test_an_installation_out_of_reach_is_copied_and_any_other_is_used_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(module.BIN_VARIABLE, raising=False)
    package = module.find_binaries().parents[1]
    hidden = tmp_path / "site-packages"
    hidden.mkdir(mode=0o700)
    shutil.copytree(package, hidden / package.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), hidden / f"{package.name}.libs", symlinks=True)
    monkeypatch.setattr(module, "find_binaries", lambda: hidden / package.name / "pginstall" / "bin")
    account = unprivileged_account()  # None unless we are root: what we can read is within reach
    async with EmbeddedPostgres() as postgres:
        assert postgres.pid is not None
        running = Path(f"/proc/{postgres.pid}")
        assert running.stat().st_uid == (account.uid if account else os.geteuid())
        assert (running / "exe").readlink().is_relative_to(postgres.directory if account else hidden)
