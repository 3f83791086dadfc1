"""Continue tokens in the server's own shape: URL-safe base64 without padding of a small JSON object. Pure.

Shape: `{"v":"meta.k8s.io/v1","rv":48987,"start":"/ns-000/app-0\\u0000"}`. `start` is the first key not yet returned
(the last key and a NUL), relative to the list's own prefix. An `rv` of -1 continues from there in the present state,
inconsistent with what came before.
"""

import base64
import binascii
from dataclasses import dataclass

import orjson

from clusterinfo.sandbox.kubernetes.statuses import invalid_continue

VERSION = "meta.k8s.io/v1"
INCONSISTENT = -1


@dataclass(frozen=True, slots=True)
class ContinueToken:
    """`revision` of the list (-1: none); `start`: key relative to the list's prefix, without a leading slash."""

    revision: int
    start: str

    def encode(self, slash: bool) -> str:
        """As the server writes it. A first page's token has a slash before its key, a later page's has none."""
        start = ("/" if slash else "") + self.start
        document = orjson.dumps({"v": VERSION, "rv": self.revision, "start": start})
        return base64.urlsafe_b64encode(document).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> "ContinueToken":
        """Raises ApiFailure (400) in the server's words for what is not a token."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid_continue("continue key is not valid: illegal base64 data at input byte 0") from error
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise invalid_continue(f"continue key is not valid: {_go_json_error(raw)}") from error
        if not isinstance(document, dict) or document.get("v") != VERSION:
            found = document.get("v", "") if isinstance(document, dict) else ""
            why = f'continue key is not valid: server does not recognize this encoded version "{found}"'
            raise invalid_continue(why)
        revision, start = document.get("rv"), document.get("start")
        if not isinstance(revision, int) or revision == 0:
            raise invalid_continue(
                f"continue key is not valid: incorrect encoded start resourceVersion (version {VERSION})"
            )
        if not isinstance(start, str) or not start.lstrip("/"):
            raise invalid_continue(f"continue key is not valid: encoded start key empty (version {VERSION})")
        return cls(revision, start.removeprefix("/"))


def _go_json_error(raw: bytes) -> str:
    """The error of Go's encoding/json for a text that begins with no JSON value."""
    text = raw.decode(errors="replace")
    for literal in ("null", "true", "false"):
        if text[:1] == literal[0]:
            for wanted, found in zip(literal[1:], text[1:], strict=False):
                if wanted != found:
                    return f"invalid character '{found}' in literal {literal} (expecting '{wanted}')"
    return f"invalid character '{text[:1]}' looking for beginning of value" if text else "unexpected end of JSON input"
