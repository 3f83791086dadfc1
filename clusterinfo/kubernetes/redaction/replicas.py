"""Containers, which are the same in all replicas of a Pod: what the rules replace in them is found out once.

They are half of a Pod, and hold most of what is secret in it. A list comes in the order of namespaces and names, so
that replicas stand side by side. What is remembered holds only if no rule concerns the rest of the object: what stands
around the containers could change what they mean.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import xxhash

from clusterinfo.kubernetes.redaction.patch import Edit, find, is_judged_behind
from clusterinfo.kubernetes.redaction.search import may_concern_words

_BEGINS = b'ontainers":[{'
"""Of `initContainers` or `containers`, whichever comes first."""
_ENDS = b'],"restartPolicy":"'
"""What follows the containers of a Pod, as API servers write it."""
_VOLUME = b'"kube-api-access-'
_VOLUME_BYTES = len(_VOLUME + b'bcdfg"')
_ANY_VOLUME = _VOLUME + b'00000"'
"""The volume of the service account's token, whose name no other Pod has."""
_MAX_BYTES = 32 * 1024
_MAX_KNOWN = 256
_WHOLE = msgspec.json.Decoder(msgspec.Raw)


class Place(NamedTuple):
    """Where the containers stand in an object's JSON, and which they are."""

    begin: int
    end: int
    digest: bytes
    containers: bytes
    """Without what is of one replica alone."""


class Replicas:
    """What is replaced in containers, by the digest of what they are and by `key`, which says for whom."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, object], list[Edit] | None] = {}
        self._seed = secrets.randbits(64)
        """So that nobody can make up containers that pass for others."""

    def edits(self, body: bytes, key: object, edits: Callable[[bytes], list[Edit] | None]) -> list[Edit] | None:
        """What is replaced in the object, in order; None if that has to be found out in all of it.

        `edits`: what is replaced in a JSON; None if that cannot be said without what stands around it.
        """
        place = self._place(body)
        if place is None:
            return None
        known = self._known
        if (place.digest, key) not in known:
            if len(known) >= _MAX_KNOWN:
                known.clear()
            known[place.digest, key] = self._found(place.containers, edits)
        found = known[place.digest, key]
        if found is None or find(body[: place.begin] + body[place.end :]):
            return None
        if found and not is_judged_behind(body[: place.begin]):
            return None
        return [(place.begin + begin, place.begin + end, shown) for begin, end, shown in found]

    def _place(self, body: bytes) -> Place | None:
        begin = body.find(_BEGINS) + len(_BEGINS) - 1
        end = body.find(_ENDS, begin)
        if begin < len(_BEGINS) or not 0 < end - begin <= _MAX_BYTES:
            return None
        containers = body[begin:end]
        if (at := containers.find(_VOLUME)) >= 0:
            volume = containers[at : at + _VOLUME_BYTES]
            if may_concern_words(volume):
                return None
            containers = containers.replace(volume, _ANY_VOLUME)
        return Place(begin, end, xxhash.xxh3_128_digest(containers, self._seed), containers)

    def _found(self, containers: bytes, edits: Callable[[bytes], list[Edit] | None]) -> list[Edit] | None:
        whole = b"[%s]" % containers
        try:
            _WHOLE.decode(b'{"":%s}' % whole)
        except (msgspec.DecodeError, RecursionError):
            return None  # they end somewhere else
        found = edits(whole)
        if found is None or any(_VOLUME in shown for _, _, shown in found):
            return None
        return [(begin - 1, end - 1, shown) for begin, end, shown in found]
