"""A request: the resource that its path addresses, and its entry in the log. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class LoggedRequest:
    """One request as it came in; `status` is 0 until it is answered. `user` is "" if nobody was recognised."""

    method: str
    path: str
    query: dict[str, str]
    user: str
    status: int = 0
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path under /api or /apis means. `resource` "" is the version's own document."""

    group: str
    version: str
    namespace: str | None
    resource: str
    name: str


def parse_path(path: str) -> Target | None:
    """`/api/v1/...` and `/apis/<group>/<version>/...`; None for any other."""
    root, *parts = path.strip("/").split("/")
    if root == "apis" and parts:
        group, *parts = parts
    elif root == "api":
        group = ""
    else:
        return None
    if not parts:
        return None
    version, *parts = parts
    namespace = None
    if len(parts) >= 3 and parts[0] == "namespaces":
        _, namespace, *parts = parts
    if len(parts) > 2:
        return None
    return Target(group, version, namespace, parts[0] if parts else "", parts[1] if len(parts) > 1 else "")
