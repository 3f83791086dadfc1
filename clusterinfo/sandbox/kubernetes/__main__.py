"""`python -m clusterinfo.sandbox.kubernetes`: the simulated API as a process of its own, until SIGINT or SIGTERM.

Prints one line of JSON to stdout when it serves: `{"url", "token", "kubeconfig", "authority", "objects", "uid"}`;
`authority` is the CA certificate to trust (PEM), "" without --tls.
"""

import argparse
import asyncio
import gc
import signal
import sys
from pathlib import Path

import orjson

from clusterinfo.sandbox.kubernetes.certificates import make_tls
from clusterinfo.sandbox.kubernetes.populate import churn, populate, serve_few
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clusterinfo.sandbox.kubernetes", description="A simulated Kubernetes API."
    )
    parser.add_argument("--objects", type=int, default=5000, help="objects to generate, 0 for none (default 5000)")
    parser.add_argument("--kinds", type=int, default=None, help="of how many kinds (default: all 24 known ones)")
    parser.add_argument(
        "--empty",
        default=None,
        metavar="KIND,...",
        help="serve no other kinds without objects (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides names, uids and contents (default 0)")
    parser.add_argument(
        "--noise", type=int, default=0, metavar="DIGITS", help="random digits in each object (default 0)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="TCP port, 0 for any free one (default 0)")
    parser.add_argument("--token", default=None, help="bearer token of the user admin (default: a random one)")
    parser.add_argument("--kubeconfig", type=Path, default=None, help="file to write a kubeconfig to")
    parser.add_argument(
        "--context", default="sandbox", help="the kubeconfig's context and cluster name (default sandbox)"
    )
    parser.add_argument("--advertise", default=None, help="host name that the kubeconfig gives (default: --host)")
    parser.add_argument("--tls", action="store_true", help="serve HTTPS, which kubectl needs (default: HTTP)")
    parser.add_argument("--gzip", action="store_true", help="compress large answers, as a real server does")
    parser.add_argument("--churn", type=int, default=0, metavar="N", help="change N objects a second (default 0)")
    return parser.parse_args(argv)


async def serve(options: argparse.Namespace) -> None:
    """Returns after SIGINT or SIGTERM."""
    cluster = SimulatedCluster(seed=options.seed)
    if options.objects:
        populate(cluster, options.objects, options.kinds, options.seed, noise=options.noise)
        if options.empty is not None:
            serve_few(cluster, options.empty.split(","))
        gc.freeze()  # these stay: no collection need visit them again
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tls = make_tls(options.host, *([options.advertise] if options.advertise else [])) if options.tls else None
    api = SimulatedKubernetes(
        cluster, host=options.host, port=options.port, token=options.token, gzip=options.gzip, tls=tls
    )
    async with api:
        if options.kubeconfig:
            api.write_kubeconfig(options.kubeconfig, options.context, options.advertise)
        ready = {"url": api.base_url, "token": api.token, "kubeconfig": str(options.kubeconfig or "")}
        ready["authority"] = tls.authority if tls else ""
        sys.stdout.buffer.write(orjson.dumps({**ready, "objects": cluster.count(), "uid": cluster.uid()}) + b"\n")
        sys.stdout.flush()
        await churn_until(stop, cluster, options.churn)


async def churn_until(stop: asyncio.Event, cluster: SimulatedCluster, changes: int) -> None:
    """Change `changes` objects each second until `stop` is set."""
    if not changes:
        await stop.wait()
    seed = 0
    while not stop.is_set():
        churn(cluster, changes, seed)
        seed += 1
        try:
            async with asyncio.timeout(1):
                await stop.wait()
        except TimeoutError:
            continue


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
