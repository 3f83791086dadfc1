"""Objects in another version than they are stored in, for the few built-in kinds served in two. Pure.

Only these are decoded and encoded while they are served.
"""

from collections.abc import Callable

import orjson

from clusterinfo.sandbox.kubernetes.catalog import JSON, ApiResource
from clusterinfo.sandbox.kubernetes.tables import Stored

# events.k8s.io/v1 renames these fields of core/v1 Events: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def rest_in(resource: ApiResource) -> Callable[[Stored], bytes]:
    """How to get an object's rest in the version that `resource` names."""
    convert = _CONVERSIONS.get((resource.group, resource.version, resource.resource))
    if convert is None:
        return Stored.rest
    return lambda stored: orjson.dumps(convert(orjson.loads(b"{" + stored.rest())))[1:]


def _event(event: JSON) -> JSON:
    return {EVENT_NAMES.get(key, key): value for key, value in event.items()}


def _autoscaler_v1(autoscaler: JSON) -> JSON:
    """autoscaling/v1 knows one metric, the CPU's utilisation, as plain fields."""
    spec, status = dict(autoscaler["spec"]), dict(autoscaler.get("status", {}))
    targets = [one["resource"]["target"].get("averageUtilization") for one in spec.pop("metrics", [])]
    currents = [one["resource"]["current"].get("averageUtilization") for one in status.pop("currentMetrics", []) or []]
    status.pop("conditions", None)
    if targets:
        spec["targetCPUUtilizationPercentage"] = targets[0]
    if currents:
        status["currentCPUUtilizationPercentage"] = currents[0]
    return autoscaler | {"spec": spec, "status": status}


_CONVERSIONS: dict[tuple[str, str, str], Callable[[JSON], JSON]] = {
    ("events.k8s.io", "v1", "events"): _event,
    ("autoscaling", "v1", "horizontalpodautoscalers"): _autoscaler_v1,
}
