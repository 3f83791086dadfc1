"""`clusterinfo rbac`: which rights the collector needs in a cluster. A composition root, beside `pipelines.py`."""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import Any

from clusterinfo.commands.output import Column, Output, Result, Table, show
from clusterinfo.errors import ConfigError
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.kubernetes import rbac
from clusterinfo.kubernetes.discovery import Discovery, Selection, choose
from clusterinfo.kubernetes.election import DEFAULT_LEASE, LeaseName, named_lease
from clusterinfo.observations import Observe, Warned
from clusterinfo.settings import Settings

COLUMNS = tuple(Column(name.upper(), itemgetter(name)) for name in ("kind", "namespace", "name", "resources"))
"""Of a table of manifests; a role's are the kinds it may read."""


async def print_role(
    settings: Settings, observe: Observe, account: str, *, discover: bool, elects: bool, output: Output
) -> int:
    """Print to stdout the manifests that let `account` (`namespace/name`) list what the settings name. Returns 0.

    `discover` asks the cluster which kinds it serves; else it is those built into Kubernetes, and nothing is connected
    to. `elects`, or LEADER_ELECTION: with the role for the Lease.

    Raises ConfigError for another account, and what `KubernetesClient` raises.
    """
    try:
        bound = rbac.Account.parse(account)
    except ValueError as error:
        raise ConfigError(f"--service-account is {account!r}: {error}") from None
    discovery = await _discovered(settings) if discover else _built_in(settings)
    _warn(discovery, observe, discover=discover)
    kinds = rbac.granted(discovery.resources, settings.include)
    manifests = rbac.manifests(kinds, settings.namespaces, bound, identify=settings.cluster_id is None)
    elected = rbac.lease_manifests(_lease(settings, bound), bound) if elects or settings.leader_election else []
    if output is Output.YAML:
        sys.stdout.write(rbac.document(manifests, elected))
    else:
        show(_listed(manifests + elected), output)
    return EXIT_DONE


def _lease(settings: Settings, account: rbac.Account) -> LeaseName:
    """The one that a Pod of this account uses."""
    return named_lease(settings) or LeaseName(account.namespace, DEFAULT_LEASE)


def _listed(manifests: list[rbac.JSON]) -> Result:
    """One line a manifest; as JSON a List, which kubectl applies like the YAML."""
    rows = [_attributes(manifest) for manifest in manifests]
    data = {"apiVersion": "v1", "kind": "List", "items": manifests}
    return Result([Table(COLUMNS, rows, "no rights")], data, rows, [rbac.name_of(manifest) for manifest in manifests])


def _attributes(manifest: rbac.JSON) -> dict[str, Any]:
    return {
        "kind": manifest["kind"],
        "namespace": manifest["metadata"].get("namespace"),
        "name": manifest["metadata"]["name"],
        "resources": sum(len(rule["resources"]) for rule in manifest["rules"]) if "rules" in manifest else None,
    }


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
