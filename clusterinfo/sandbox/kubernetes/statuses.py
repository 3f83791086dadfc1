"""The Status documents that a Kubernetes API server answers failures with, in a real server's words. Pure."""

from typing import Any

import orjson

from clusterinfo.sandbox.kubernetes.catalog import ApiResource


class ApiFailure(Exception):  # noqa: N818 - an answer, not a defect
    """A request is answered with this instead: `status` (HTTP), `body`, `content_type`, extra `headers`."""

    def __init__(
        self, status: int, body: bytes, content_type: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}


def status_document(
    code: int, reason: str, message: str, details: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A `Status` of a failure, its members in the server's order."""
    document: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": metadata or {}, "status": "Failure"}
    document |= {"message": message, "reason": reason}
    if details is not None:
        document["details"] = details
    return document | {"code": code}


def failure(
    code: int, reason: str, message: str, details: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
) -> ApiFailure:
    return ApiFailure(code, orjson.dumps(status_document(code, reason, message, details, metadata)) + b"\n")


def unauthorized() -> ApiFailure:
    return failure(401, "Unauthorized", "Unauthorized")


def forbidden(resource: ApiResource, namespace: str | None, user: str, verb: str, name: str = "") -> ApiFailure:
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    message = (
        f'{subject} is forbidden: User "{user}" cannot {verb} resource "{resource.resource}" '
        f'in API group "{resource.group}" {scope}'
    )
    return failure(403, "Forbidden", message, ({"name": name} if name else {}) | _details(resource))


def not_found(resource: ApiResource, name: str) -> ApiFailure:
    message = f'{resource.qualified} "{name}" not found'
    return failure(404, "NotFound", message, {"name": name, **_details(resource)})


def already_exists(resource: ApiResource, name: str) -> ApiFailure:
    message = f'{resource.qualified} "{name}" already exists'
    return failure(409, "AlreadyExists", message, {"name": name, **_details(resource)})


def conflict(resource: ApiResource, name: str) -> ApiFailure:
    """An update of a version that is not the present one."""
    message = (
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": the object has been modified; please apply '
        "your changes to the latest version and try again"
    )
    return failure(409, "Conflict", message, {"name": name, **_details(resource)})


def page_not_found() -> ApiFailure:
    """An address that nobody serves: plain text, not a Status."""
    return ApiFailure(404, b"404 page not found\n", "text/plain; charset=utf-8")


def method_not_allowed() -> ApiFailure:
    return failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def not_acceptable() -> ApiFailure:
    message = "only the following media types are accepted: application/json"
    return failure(406, "NotAcceptable", message)


def invalid_continue(why: str) -> ApiFailure:
    return failure(400, "BadRequest", f"invalid continue token: {why}")


def bad_request(message: str) -> ApiFailure:
    return failure(400, "BadRequest", message)


def expired_continue(inconsistent: str) -> ApiFailure:
    """410 for a token whose revision was compacted away; `inconsistent` is the token that continues all the same."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list."
    )
    return failure(410, "Expired", message, metadata={"continue": inconsistent})


def expired_version(requested: int, oldest: int) -> dict[str, Any]:
    """The Status of a watch (or exact list) that asks for a revision no longer kept."""
    return status_document(410, "Expired", f"too old resource version: {requested} ({oldest})")


def too_large_version(requested: int, current: int) -> ApiFailure:
    message = f"Too large resource version: {requested}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return failure(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})


def too_many_requests(retry_after_s: int) -> ApiFailure:
    """What priority and fairness answers: plain text and Retry-After, not a Status."""
    return ApiFailure(
        429,
        b"Too many requests, please try again later.\n",
        "text/plain; charset=utf-8",
        {"Retry-After": str(retry_after_s)},
    )


def service_unavailable() -> ApiFailure:
    """What the aggregator answers for a group whose own server is down."""
    return ApiFailure(503, b"service unavailable\n", "text/plain; charset=utf-8")


REASONS = {
    400: "BadRequest", 403: "Forbidden", 404: "NotFound", 408: "Timeout", 409: "Conflict", 410: "Expired",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


def injected(status: int) -> ApiFailure:
    """A Status for any other HTTP status that a test injects."""
    message = f"an error on the server ({status}) was injected by the sandbox"
    return failure(status, REASONS.get(status, "Unknown"), message, {})


def _details(resource: ApiResource) -> dict[str, Any]:
    return ({"group": resource.group} if resource.group else {}) | {"kind": resource.resource}
