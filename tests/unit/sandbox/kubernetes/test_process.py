"""`python -m clusterinfo.sandbox.kubernetes` announces itself, serves what its kubeconfig names, stops when asked."""

import signal
import sys
from pathlib import Path

import aiohttp
import orjson

from clusterinfo.sandbox.processes import Process


async def test_own_process(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "clusterinfo.sandbox.kubernetes",
        "--objects",
        "100",
        "--kubeconfig",
        kubeconfig,
    ]
    process = Process.start("api", argv, log=tmp_path / "log", cwd=Path.cwd())

    async def announced() -> bool:
        return process.log_tail().endswith("}")

    try:
        await process.wait_ready(announced, 20)
        ready = orjson.loads(process.log_tail())
        config = orjson.loads(kubeconfig.read_bytes())
        assert config["clusters"][0]["cluster"]["server"] == ready["url"]
        headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(ready["url"] + "/_control") as response,
        ):
            answer = await response.json()
        assert answer["objects"] == ready["objects"] == 105
        assert answer["uid"] == ready["uid"]
    finally:
        assert await process.stop(signal.SIGTERM, grace_s=10) == 0
