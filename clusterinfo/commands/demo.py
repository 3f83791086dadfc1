"""`clusterinfo demo`: the demonstration as a process, which a signal ends with all its servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial

from clusterinfo import lifecycle
from clusterinfo.errors import ConfigError
from clusterinfo.exit_codes import EXIT_DONE, EXIT_STOPPED
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.sandbox.demo import DEFAULT_OBJECTS, Demonstration, Options
from clusterinfo.sandbox.demo_servers import child_environment
from clusterinfo.settings import load
from clusterinfo.waiting import unless

DEMO_GRACE_S = 25.0
"""What the demo's servers and processes have to end in; then they are killed."""


def run_demo(objects: int | None, context: str | None, *, keep: bool) -> int:
    """Show it, with so many objects or the cluster of a kubeconfig's context; `keep` it running. Returns 0 or 1.

    Raises ConfigError or FatalError, before anything is started, for a context that does not lead to a cluster.
    """
    environment = dict(os.environ)
    demo = Demonstration(Options(objects or DEFAULT_OBJECTS, context, keep), environment, partial(_reach, environment))

    async def main(stopping: asyncio.Event) -> int:
        showing = asyncio.ensure_future(demo.run())
        try:
            await unless(stopping, showing)
        except asyncio.CancelledError:  # the second signal: end at once, but still end everything
            showing.cancel()
            await asyncio.wait({showing})
            raise
        return EXIT_DONE if not showing.cancelled() or demo.shown else EXIT_STOPPED

    return lifecycle.run(main, DEMO_GRACE_S, DEMO_GRACE_S)


async def _reach(environment: Mapping[str, str], context: str) -> None:
    """Ask the cluster who it is, as the collector will."""
    settings = load(child_environment(environment, {"KUBE_CONTEXT": context}, simulated=False))
    try:
        async with KubernetesClient.connect(settings):
            pass
    except ConfigError as error:
        raise ConfigError(str(error).replace("KUBE_CONTEXT", "--context")) from error  # what was typed
