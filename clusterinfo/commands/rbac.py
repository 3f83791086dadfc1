"""`clusterinfo rbac`: which rights the collector needs in a cluster. A composition root, beside `pipelines.py`."""

from __future__ import annotations

import sys

from clusterinfo.errors import ConfigError
from clusterinfo.kubernetes import rbac
from clusterinfo.kubernetes.discovery import Discovery, Selection, choose
from clusterinfo.observations import Observe, Warned
from clusterinfo.settings import Settings


async def print_role(settings: Settings, observe: Observe, account: str, *, discover: bool) -> int:
    """Print to stdout the manifests that let `account` (`namespace/name`) list what the settings name. Returns 0.

    `discover` asks the cluster which kinds it serves; else it is those built into Kubernetes, and nothing is connected
    to. Raises ConfigError for another account, and what `KubernetesClient` raises.
    """
    try:
        bound = rbac.Account.parse(account)
    except ValueError as error:
        raise ConfigError(f"--service-account is {account!r}: {error}") from None
    discovery = await _discovered(settings) if discover else _built_in(settings)
    _warn(discovery, observe, discover=discover)
    kinds = rbac.granted(discovery.resources, settings.include)
    manifests = rbac.manifests(kinds, settings.namespaces, bound, identify=settings.cluster_id is None)
    sys.stdout.write(rbac.document(manifests))
    return 0


def _built_in(settings: Settings) -> Discovery:
    return choose(rbac.built_in_groups(), Selection(tuple(settings.include), tuple(settings.exclude)))


async def _discovered(settings: Settings) -> Discovery:
    from clusterinfo.kubernetes.client import KubernetesClient

    async with KubernetesClient.connect(settings, identify=False) as client:
        return await client.discover()


def _warn(discovery: Discovery, observe: Observe, *, discover: bool) -> None:
    """Of what the role lacks, though somebody may have meant it."""
    for unmatched in discovery.unmatched:
        what = "kind this cluster serves" if discover else "built-in kind"
        ask = "" if discover else "add --discover to ask the cluster which kinds it serves"
        observe(Warned(message=unmatched.message(what), remedy=unmatched.question or ask))
    for group in discovery.failing:
        observe(Warned(message=f"kinds of the group {group or 'core'} may be missing here: {discovery.reasons[group]}"))
