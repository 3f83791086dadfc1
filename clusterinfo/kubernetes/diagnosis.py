"""What `clusterinfo doctor` asks of a Kubernetes API: credentials, who answers, its clock, and what may be listed.

Every kind that a run would list is asked for one object, which is dropped: what aggregated APIs and webhooks allow, no
review of rights knows.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from clusterinfo.errors import TransientError, one_line
from clusterinfo.findings import Findings, State
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import planned
from clusterinfo.kubernetes.credentials import load_credentials
from clusterinfo.kubernetes.discovery import Discovery
from clusterinfo.kubernetes.errors import ApiStatusError, PageTooLargeError
from clusterinfo.kubernetes.leadership import GRANT as LEASE_GRANT
from clusterinfo.kubernetes.leadership import LEASES, lease_name
from clusterinfo.model import GroupVersionResource
from clusterinfo.settings import Settings

AT_ONCE = 8
MOST_LISTS = 300
"""Lists of one object: a few milliseconds each."""
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NAMED = 5
"""Kinds in a line."""
GRANT = "`clusterinfo rbac --discover | kubectl apply -f -` grants them; those that are not wanted belong into EXCLUDE"


class _ReviewStatus(msgspec.Struct):
    allowed: bool


class _Review(msgspec.Struct):
    status: _ReviewStatus


Refusals = dict[str, list[str]]
"""Why kinds cannot be listed -> which; "": they may not be."""


async def examine(settings: Settings, findings: Findings, within_s: float) -> None:
    """Check all of it, in order. Raises a ClusterinfoError for what ends the examination; `within_s`: to connect."""
    findings.begin("kubeconfig", "set KUBECONFIG to a kubeconfig file")
    credentials = await load_credentials(settings)
    findings.ok(f"{credentials.cluster_name or 'in-cluster'}, {credentials.host}")
    findings.begin("Kubernetes API", "check that the address of the kubeconfig is reachable from here")
    async with KubernetesClient.connect(settings, credentials=credentials, within_s=within_s) as client:
        cluster = client.cluster
        findings.ok(f"{cluster.server_version}, cluster {cluster.name} (id {cluster.id})")
        await _compare_clock(client, findings)
        findings.begin("kinds", "the API does not say in time what it serves: see whether `kubectl api-resources` does")
        discovery = await client.discover()
        _report_kinds(discovery, findings)
        findings.begin("rights", "the API takes long to list one object of each kind: see what slows it down")
        _report_rights(await _refusals(client, discovery, settings), discovery, settings, findings)
        if settings.leader_election:
            findings.begin("leader election", "the API does not say in time what it allows: see what slows it down")
            await _examine_lease(client, settings, findings)


async def _examine_lease(client: KubernetesClient, settings: Settings, findings: Findings) -> None:
    """Raises ConfigError where nobody knows which Lease is meant."""
    lease = lease_name(settings)
    # "create" cannot be restricted to a name: Kubernetes, RBAC, "Referring to resources".
    asked = {"get": lease.name, "create": "", "update": lease.name}
    try:
        missing = [verb for verb, name in asked.items() if not await _may(client, verb, lease.namespace, name)]
    except (ApiStatusError, TransientError) as error:
        findings.note(State.UNKNOWN, f"whether {lease} may be used is not known: {one_line(error)}")
        return
    if missing:
        what = f"not allowed to {', '.join(missing)} leases.coordination.k8s.io in {lease.namespace} (Lease {lease})"
        findings.note(State.FAILED, what, LEASE_GRANT)
    else:
        findings.ok(f"Lease {lease} may be read, created and updated")


async def _may(client: KubernetesClient, verb: str, namespace: str, name: str) -> bool:
    """What the API answers to who may ask of themselves, as everybody may.

    Raises ApiStatusError, TransientError, also for what is no answer.
    """
    what = {"group": LEASES.group, "resource": LEASES.resource, "verb": verb, "namespace": namespace, "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": what},
    }
    answer = await client.write("POST", REVIEWS, review)
    try:
        return msgspec.json.decode(answer, type=_Review).status.allowed
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TransientError(f"the answer to a SelfSubjectAccessReview cannot be read: {one_line(error)}") from error


async def _compare_clock(client: KubernetesClient, findings: Findings) -> None:
    findings.begin("API's clock")
    before = dt.datetime.now(dt.UTC)
    await client.ping()
    after = dt.datetime.now(dt.UTC)
    try:
        theirs = parsedate_to_datetime(client.answered_at)
    except ValueError:
        findings.note(State.UNKNOWN, "its answers have no date")
        return
    findings.compare_clock(theirs, before, after, step_s=1.0)


def _report_kinds(discovery: Discovery, findings: Findings) -> None:
    for unmatched in discovery.unmatched:
        findings.note(State.WARNING, unmatched.message("kind this cluster serves"), unmatched.question)
    for group in discovery.failing:
        remedy = f"repair its server, or add *.{group} to EXCLUDE"
        findings.note(State.FAILED, f"of {group or 'core'} they are not known: {discovery.reasons[group]}", remedy)
    if discovery.resources:
        findings.ok(f"{len(discovery.resources)} to list, {len(discovery.excluded)} left out")
    else:
        findings.note(State.FAILED, "none is left to list", "correct INCLUDE and EXCLUDE")


async def _refusals(client: KubernetesClient, discovery: Discovery, settings: Settings) -> Refusals:
    """One object of each list of a run."""
    permits, found = asyncio.Semaphore(AT_ONCE), Refusals()

    async def ask(gvr: GroupVersionResource, namespace: str) -> None:
        async with permits:
            why = await _refusal(client, gvr, namespace, settings.page_bytes)
        if why is not None:
            found.setdefault(why, []).append(f"{gvr.dotted} in {namespace}" if namespace else gvr.dotted)

    async with asyncio.TaskGroup() as asking:
        for lane, gvr in planned("", discovery, settings.namespaces)[:MOST_LISTS]:
            asking.create_task(ask(gvr, lane.reach))
    return found


async def _refusal(client: KubernetesClient, gvr: GroupVersionResource, namespace: str, max_bytes: int) -> str | None:
    """Why a kind cannot be listed, "" if it may not be; None if it can."""
    try:
        await client.get_page(gvr, namespace=namespace, limit=1, max_bytes=max_bytes)
    except PageTooLargeError:
        return None  # it is allowed, and the collector has its ways
    except ApiStatusError as error:
        return "" if error.status == HTTPStatus.FORBIDDEN else one_line(error)
    except TransientError as error:
        return one_line(error)
    return None


def _report_rights(refusals: Refusals, discovery: Discovery, settings: Settings, findings: Findings) -> None:
    """Kinds that may not be listed are an error where INCLUDE names kinds, as for `collect`, or if nothing is left."""
    forbidden = refusals.pop("", [])
    for why, kinds in refusals.items():
        findings.note(State.FAILED, f"{_some(kinds)} cannot be listed: {why}", "repair its server, or leave it out")
    if forbidden:
        is_error = bool(settings.include) or len(forbidden) >= len(discovery.resources)
        findings.note(State.FAILED if is_error else State.WARNING, f"{_some(forbidden)} may not be listed", GRANT)
    elif not refusals:
        findings.ok(f"all of {min(len(discovery.resources), MOST_LISTS)} kinds may be listed")


def _some(kinds: list[str]) -> str:
    more = f" and {len(kinds) - NAMED} more" if len(kinds) > NAMED else ""
    return f"{', '.join(sorted(kinds)[:NAMED])}{more}"
