"""Equality label selectors (`app=web,tier!=db,team,!zone`), the only kind the sandbox understands. Pure."""

import orjson

from clusterinfo.sandbox.kubernetes.statuses import bad_request
from clusterinfo.sandbox.kubernetes.tables import Stored


def matches(stored: Stored, selector: str) -> bool:
    """Whether an object's labels satisfy `selector`. Raises ApiFailure (400) for sets (`in`, `notin`)."""
    labels = orjson.loads(b"{" + stored.rest())["metadata"].get("labels", {})
    return all(_holds(labels, requirement.strip()) for requirement in selector.split(","))


def _holds(labels: dict[str, str], requirement: str) -> bool:
    if "(" in requirement or " " in requirement:
        raise bad_request(f"unable to parse requirement: the sandbox knows no set-based selectors: {requirement}")
    if "!=" in requirement:
        key, value = requirement.split("!=", 1)
        return labels.get(key) != value
    if "=" in requirement:
        key, value = requirement.replace("==", "=").split("=", 1)
        return labels.get(key) == value
    if requirement.startswith("!"):
        return requirement[1:] not in labels
    return requirement in labels
