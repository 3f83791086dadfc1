"""What goes wrong with a Kubernetes API, as our errors: HTTP answers and transport failures, each from a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

import aiohttp

from clusterinfo.errors import ClusterinfoError, FatalError, TransientError, one_line
from clusterinfo.kubernetes.pages import parse_status


class ApiStatusError(ClusterinfoError):
    """The API refused a request, and will refuse it again: `status` (HTTP), its `reason` and `message`."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if message else f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiTransientError(TransientError):
    """The API could not answer now: `status` is that of HTTP."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status


class PageTooLargeError(ClusterinfoError):
    """An answer was dropped because it passed `limit_bytes`: ask for fewer objects. `beginning` is what came of it."""

    def __init__(self, limit_bytes: int, beginning: bytes = b"") -> None:
        super().__init__(f"the answer is longer than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes
        self.beginning = beginning


class RefusedError(Exception):
    """Credentials or certificates are not, or no longer, accepted: read them again, once."""


class UnauthorizedError(RefusedError):
    """A 401. `answer`: what it is if the credentials are not to blame."""

    def __init__(self, answer: ApiStatusError) -> None:
        super().__init__(f"the API does not accept our credentials ({answer})")
        self.answer = answer


class Next(Enum):
    """What to do after an answer other than 2xx."""

    RETRY = "ask the same again, after the pause that the server asks for"
    LIST_AGAIN = "the continue token is too old: begin the list again"
    LOG_IN_AGAIN = "read the credentials again, once; refused again and everywhere, stop; else this kind fails"
    FAIL_KIND = "it will be refused again: this kind fails, the others go on"


STATUSES: Final = {
    400: Next.FAIL_KIND,
    401: Next.LOG_IN_AGAIN,
    403: Next.FAIL_KIND,
    404: Next.FAIL_KIND,
    405: Next.FAIL_KIND,
    406: Next.FAIL_KIND,
    408: Next.RETRY,
    410: Next.LIST_AGAIN,
    429: Next.RETRY,  # may carry Retry-After
    500: Next.RETRY,
    502: Next.RETRY,
    503: Next.RETRY,  # may carry Retry-After
    504: Next.RETRY,
}
"""HTTP status -> what to do. Source: Kubernetes API concepts, "HTTP status codes"."""


def next_after(status: int) -> Next:
    """What to do after an answer with this status. Without an entry: a 5xx is tried again, all else fails its kind."""
    return STATUSES.get(status, Next.RETRY if status >= 500 else Next.FAIL_KIND)


def parse_retry_after(value: str | None, now: dt.datetime) -> float | None:
    """`Retry-After` -> seconds from `now`, None if absent or unreadable.

    "The Retry-After field value can be either an HTTP-date or a number of seconds": RFC 9110, 10.2.3.
    """
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def status_error(status: int, body: bytes, retry_after: str | None, now: dt.datetime) -> Exception:
    """An answer other than 2xx -> the error it means: ApiTransientError, ApiStatusError, or UnauthorizedError."""
    step = next_after(status)
    report = parse_status(body)
    plain = body[:4096].decode(errors="replace") if not report.reason and not report.message else ""
    message = one_line(report.message or plain)  # a webhook that fails is quoted with its URL
    if step is Next.RETRY:
        wait_s = parse_retry_after(retry_after, now)
        return ApiTransientError(f"the API answered {status} {message}".rstrip(), status=status, retry_after_s=wait_s)
    refused = ApiStatusError(status, report.reason or _REASONS.get(status, "Unknown"), message)
    return UnauthorizedError(refused) if step is Next.LOG_IN_AGAIN else refused


# What the server calls them, for answers without a Status document. Source: k8s.io/apimachinery, metav1.StatusReason.
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Expired",
}


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Transport errors as ours; which certificate errors mean that credentials are to be read again."""
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise RefusedError(f"TLS with the API failed: {one_line(error)}") from error
    except aiohttp.ClientHttpProxyError as error:
        if error.status in (401, 403, 407):
            remedy = "check user and password in HTTPS_PROXY, or in the kubeconfig's proxy-url"
            raise RefusedError(f"the proxy refuses us ({error.status}); {remedy}") from error
        raise TransientError(f"the proxy did not let us through: {one_line(error)}") from error
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise TransientError(f"the API did not answer in time: {one_line(error)}") from error
    except aiohttp.ClientConnectorError as error:
        raise TransientError(f"the API cannot be reached: {one_line(error)}") from error
    except aiohttp.ClientPayloadError as error:
        raise TransientError(f"the answer broke off: {one_line(error)}") from error
    except (aiohttp.InvalidURL, ValueError) as error:
        raise FatalError(f"no request can be made with these settings: {one_line(error)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransientError(f"the connection to the API failed: {one_line(error)}") from error
