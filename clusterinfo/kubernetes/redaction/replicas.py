"""Specs, which are the same in all replicas of a Pod but for two names: each is rewritten once.

A list comes in the order of namespaces and names, so that replicas stand side by side. The names that are of one
replica alone, of its node and of the volume with its token, give way to placeholders before a spec is looked up, and
stand there again in what the rules leave of it.

They are whole texts, values or elements, and hold no hint: no rule concerns them but those that replace any text in a
place that is secret. Such a rule replaces the placeholder, too, which is no value that is harmless under any name. Then
it is missing in the result, and every replica is rewritten by itself.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import lru_cache

import xxhash

from clusterinfo.kubernetes.redaction.search import holds_hint

_NODE = b'"nodeName":"'
_VOLUME = b'"kube-api-access-'
_VOLUME_BYTES = len(_VOLUME + b'bcdfg"')
_PLAIN = re.compile(rb'"[a-z0-9][a-z0-9.-]*+"')
_MAX_BYTES = 32 * 1024
_MAX_KNOWN, _MAX_KNOWN_BYTES = 256, 1 << 20
_SLOTS = 1 << 17

Names = dict[bytes, bytes]
"""Placeholders, and what they stand for, as JSON."""


class Unchanged:
    """Digests of JSON that no rule changes, 8 bytes each: as long as it stays as it is, it is not searched again."""

    def __init__(self) -> None:
        self._slots = memoryview(bytearray(_SLOTS * 8)).cast("q")

    def __contains__(self, digest: bytes | str) -> bool:
        key = hash(digest)
        return self._slots[key % _SLOTS] == key

    def add(self, digest: bytes | str) -> None:
        """In the place of another one, if need be."""
        key = hash(digest)
        self._slots[key % _SLOTS] = key


class Replicas:
    """What the rules make of specs, by the digest of what replicas have in common and by `key`, which says for whom.

    `seed`: a secret one, so that nobody can make up a spec that passes for another.
    """

    def __init__(self, unchanged: Unchanged, seed: int) -> None:
        self._unchanged = unchanged
        self._seed = seed
        self._known: dict[tuple[bytes, object], list[bytes] | None] = {}
        self._known_bytes = 0
        self._node, self._volume = (b'"~%d~"' % secrets.randbits(64) for _ in range(2))
        self._placeholder = re.compile(b"(%b|%b)" % (self._node, self._volume))
        self._is_member = re.compile(self._placeholder.pattern + rb"\s*:")

    def rewritten(self, spec: bytes, key: object, rewrite: Callable[[bytes], bytes]) -> bytes | None:
        """What `rewrite` makes of a spec, or has made of another replica's; None if it changes nothing."""
        if len(spec) > _MAX_BYTES:
            return _unless(spec, rewrite(spec))
        common, names = self._common(spec)
        digest = xxhash.xxh3_128_digest(common, self._seed)
        if names and digest in self._unchanged:
            return None
        if (digest, key) not in self._known:
            shown = rewrite(common)
            if shown == common:
                if names:
                    self._unchanged.add(digest)
                return None
            self._remember((digest, key), self._parts(common, shown))
        parts = self._known[digest, key]
        if parts is None:
            return _unless(spec, rewrite(spec))
        return b"".join([names.get(part, part) for part in parts])

    def _common(self, spec: bytes) -> tuple[bytes, Names]:
        """What a spec has in common with those of other replicas."""
        names: Names = {}
        if (at := spec.rfind(_NODE)) >= 0:
            start = at + len(_NODE) - 1
            node = spec[start : spec.find(b'"', start + 1) + 1]
            if _is_plain_node(node):
                # Behind a colon or bracket it is no part of another text.
                behind = spec[at:].replace(b":" + node, b":" + self._node).replace(b"[" + node, b"[" + self._node)
                spec = spec[:at] + behind
                names[self._node] = node
        if (at := spec.find(_VOLUME)) >= 0:
            volume = spec[at : at + _VOLUME_BYTES]
            if _is_plain(volume):
                spec = spec.replace(b":" + volume, b":" + self._volume)
                names[self._volume] = volume
        return spec, names

    def _parts(self, common: bytes, shown: bytes) -> list[bytes] | None:
        """What the rules made of it, parted at placeholders; None if one is gone, or names a member in no JSON."""
        parts = self._placeholder.split(shown)
        is_whole = parts[1::2] == self._placeholder.findall(common) and not self._is_member.search(common)
        return parts if is_whole else None

    def _remember(self, key: tuple[bytes, object], parts: list[bytes] | None) -> None:
        if len(self._known) >= _MAX_KNOWN or self._known_bytes > _MAX_KNOWN_BYTES:
            self._known.clear()
            self._known_bytes = 0
        self._known[key] = parts
        self._known_bytes += sum(map(len, parts or ()))


def _unless(before: bytes, after: bytes) -> bytes | None:
    return None if after == before else after


def _is_plain(name: bytes) -> bool:
    """True if no rule can tell a text from any other."""
    return _PLAIN.fullmatch(name) is not None and not holds_hint(name)


_is_plain_node = lru_cache(maxsize=4096)(_is_plain)
