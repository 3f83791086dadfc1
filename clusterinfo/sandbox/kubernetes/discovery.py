"""Discovery documents, aggregated and legacy, from the catalog. Pure."""

import base64
import hashlib
from collections.abc import Collection
from typing import Any

import orjson

from clusterinfo.sandbox.kubernetes.catalog import ALIASES, JSON, ApiGroup, Catalog

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def negotiate(accept: str, aggregated: Collection[str]) -> str | None:
    """The apidiscovery version (`v2`, `v2beta1`) to answer with, "" for a legacy document, None for neither.

    `accept`: the header, first match wins as in the real server. `aggregated`: the versions this server knows.
    """
    for media in accept.split(",") if accept else ["*/*"]:
        kind, *parameters = [part.strip() for part in media.split(";")]
        given = dict(part.split("=", 1) for part in parameters if "=" in part)
        if given.get("as"):
            wanted = given.get("v", "")
            if given["as"] == "APIGroupDiscoveryList" and wanted in aggregated:
                return wanted
        elif kind in ("application/json", "application/*", "*/*"):
            return ""
    return None


def aggregated_document(catalog: Catalog, core: bool, version: str, stale: Collection[str]) -> bytes:
    """`/api` (core) or `/apis` as an APIGroupDiscoveryList. Of a `stale` group only the versions are left."""
    items = [_aggregated_group(group, group.name in stale) for group in catalog.groups if (group.name == "") == core]
    document = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{version}", "metadata": {}}
    return _encoded(document | {"items": items})


def etag(document: bytes) -> str:
    """In the shape of the aggregator's: a SHA-512 in upper-case hex, quoted; the same for the same document."""
    return f'"{hashlib.sha512(document).hexdigest().upper()}"'


def legacy_versions(address: str) -> bytes:
    """`/api`; `address`: the server's own host and port."""
    clients = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return _encoded({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": clients})


def legacy_groups(catalog: Catalog) -> bytes:
    """`/apis`."""
    groups = [_legacy_group(group) for group in catalog.groups if group.name]
    return _encoded({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})


def legacy_group(catalog: Catalog, name: str) -> bytes | None:
    """`/apis/<name>`, None if there is no such group."""
    group = catalog.group(name)
    return _encoded({"kind": "APIGroup", "apiVersion": "v1", **_legacy_group(group)}) if group else None


def legacy_resources(catalog: Catalog, name: str, version: str) -> bytes | None:
    """`/api/v1` or `/apis/<name>/<version>`, None if there is no such version."""
    group = catalog.group(name)
    served = next((one for one in group.versions if one["version"] == version), None) if group else None
    if served is None:
        return None
    entries = [entry for resource in served["resources"] for entry in _legacy_entries(name, version, resource)]
    head: JSON = {"kind": "APIResourceList"}
    if name:  # the core group's list, older than the rule, has no apiVersion
        head["apiVersion"] = "v1"
    return _encoded(head | {"groupVersion": f"{name}/{version}" if name else version, "resources": entries})


def _aggregated_group(group: ApiGroup, stale: bool) -> JSON:
    versions = group.versions
    if stale:
        versions = [{"version": version["version"], "freshness": "Stale"} for version in versions]
    return {"metadata": {"name": group.name} if group.name else {}, "versions": versions}


def _legacy_group(group: ApiGroup) -> JSON:
    names = [version["version"] for version in group.versions]
    versions = [{"groupVersion": f"{group.name}/{name}", "version": name} for name in names]
    return {"name": group.name, "versions": versions, "preferredVersion": versions[0]}


def _legacy_entries(group: str, version: str, resource: JSON) -> list[JSON]:
    kind = resource["responseKind"]["kind"]
    namespaced = resource["scope"] == "Namespaced"
    entry: JSON = {"name": resource["resource"], "singularName": resource["singularResource"], "namespaced": namespaced}
    entry |= {"kind": kind, "verbs": resource["verbs"]}
    entry |= {key: resource[key] for key in ("shortNames", "categories") if key in resource}
    if "watch" in resource["verbs"]:
        entry["storageVersionHash"] = _storage_hash(group, version, resource["resource"], kind)
    entries = [entry]
    for sub in resource.get("subresources", []):
        entries.append(_legacy_subresource(resource["resource"], namespaced, sub))
    return entries


def _legacy_subresource(parent: str, namespaced: bool, sub: JSON) -> JSON:
    entry: JSON = {"name": f"{parent}/{sub['subresource']}", "singularName": "", "namespaced": namespaced}
    kind = sub["responseKind"]
    if kind["group"]:
        entry |= {"group": kind["group"], "version": kind["version"]}
    return entry | {"kind": kind["kind"], "verbs": sub["verbs"]}


def _storage_hash(group: str, version: str, resource: str, kind: str) -> str:
    """What the server publishes of the version that an object is stored in (StorageVersionHash)."""
    stored = ALIASES.get((group, resource), (group, resource))[0]
    digest = hashlib.sha256(f"{stored}/{version}/{kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _encoded(document: Any) -> bytes:
    return orjson.dumps(document) + b"\n"
