"""What stands for a secret value. Pure.

With a key: `hmac-sha256:` and the first 32 hex digits of HMAC-SHA256 over cluster, namespace, kind, field (each after
its length) and value. Equal fingerprints mean: the same value, under the same name, in objects of one kind in one
namespace of one cluster. So a rotation is visible, and so is that the pods of a Deployment share a value; nobody can
make a Secret elsewhere to compare guesses with. Who may make objects of that kind in that very namespace still can:
mind who may both do so and read the database.

Without a key: `redacted:len<=N`, N the power of two, at least 16, that the value's length in bytes does not exceed:
a hash without a key gives way to a dictionary.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple


class Place(NamedTuple):
    """Where a value stands: `kind` as resource.group, `field` the name it stands under (a Secret's key, a variable)."""

    cluster: str
    namespace: str
    kind: str
    field: str


def fingerprint(key: bytes | None, place: Place, value: bytes) -> str:
    """The text that stands for `value`."""
    if key is None:
        return f"redacted:len<={max(16, 1 << max(0, len(value) - 1).bit_length())}"
    parts = [part.encode("utf-8", "surrogatepass") for part in place]
    named = b"".join([b"%d:%b" % (len(part), part) for part in parts])
    return f"hmac-sha256:{hmac.digest(key, named + value, hashlib.sha256).hex()[:32]}"
