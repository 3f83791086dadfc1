"""The rules applied to an object: its top-level members and metadata in, the same without what is secret out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache, partial

from clusterinfo.kubernetes.discovery import matches
from clusterinfo.kubernetes.pages import Slice, split_object
from clusterinfo.kubernetes.redaction.fingerprints import Place, fingerprint
from clusterinfo.kubernetes.redaction.patch import Edit, edits_of, find, rewrite, rewritten
from clusterinfo.kubernetes.redaction.paths import NONE, Path, Wanted
from clusterinfo.kubernetes.redaction.places import (
    CLOSED_KINDS,
    COPY_MARKS,
    REQUESTS,
    SECRET_MAPS,
    holds_request,
    is_copy,
    is_judged,
    secret_maps,
)
from clusterinfo.kubernetes.redaction.replicas import Replicas
from clusterinfo.kubernetes.redaction.search import LARGE_BYTES
from clusterinfo.kubernetes.redaction.walk import Rules, fingerprint_map, label
from clusterinfo.model import GroupVersionResource

_COPY_MARKS = tuple(mark.encode() for mark in COPY_MARKS)

_SLOTS = 1 << 17
"""Objects of which is remembered that no rule changes them, by 8 bytes each: as long as one stays as it is, it is not
searched again."""

_SHORT_BYTES = 1024
"""Pieces of an object that are rewritten are remembered up to this length, 2,048 of them: 4 MB at most."""

Members = dict[str, bytes]
"""Name -> JSON of the value."""


class Redaction:
    """What is replaced in the objects of one cluster, and by what: see `rules.py`.

    `key`: of the fingerprints, None without one. `cluster`: what they are bound to. `redact` and `keep`: REDACT and
    REDACT_NOT.
    """

    def __init__(
        self,
        key: bytes | None = None,
        *,
        cluster: str = "",
        configmap_values: bool = False,
        redact: Iterable[Path] = (),
        keep: Iterable[Path] = (),
    ) -> None:
        self._key = key or None
        self._cluster = cluster
        self._configmap_values = configmap_values
        self._redact, self._keep = tuple(redact), tuple(keep)
        self._clean = memoryview(bytearray(_SLOTS * 8)).cast("q")
        self._replicas = Replicas()
        self._rewrite_short = lru_cache(maxsize=2048)(self._rewrite)
        self._wanted_of = lru_cache(maxsize=1024)(self._find_wanted)
        self._is_always_cleaned = lru_cache(maxsize=1024)(self._find_always_cleaned)

    def fingerprint(self, value: bytes, kind: str, namespace: str, field: str) -> str:
        """The text that stands for `value` in the `field` of an object."""
        return fingerprint(self._key, Place(self._cluster, namespace, kind, field), value)

    def edits(
        self,
        body: bytes,
        members: Collection[str],
        gvr: GroupVersionResource,
        namespace: str,
        content: tuple[str, ...] | None = None,
    ) -> list[Edit] | None:
        """What all rules replace in the JSON of an object, in order; None if it has to be taken apart. `members`: the
        topmost names.

        That it is nothing is remembered of `content`, which names what stands in `body`.
        """
        if len(body) > LARGE_BYTES or self._is_always_cleaned(gvr.resource, gvr.group):
            return None
        if gvr.kind == "Secret" and not SECRET_MAPS.keys().isdisjoint(members):
            return None
        key = hash(content)
        if content is not None and self._clean[key % _SLOTS] == key:
            return []
        search = partial(self._search, gvr=gvr, namespace=namespace)
        edits = self._replicas.edits(body, (gvr.group, gvr.resource, namespace), search)
        if edits is None:
            edits = search(body)
        if content is not None and edits == []:
            self._clean[key % _SLOTS] = key
        return edits

    def _search(self, data: bytes, gvr: GroupVersionResource, namespace: str) -> list[Edit] | None:
        spans = find(data)
        return edits_of(data, spans, partial(self._rewritten, gvr=gvr, namespace=namespace)) if spans else []

    def _rewritten(self, piece: bytes, gvr: GroupVersionResource, namespace: str) -> tuple[int, bytes] | None:
        """A piece after all rules. Environments are the same from replica to replica and from change to change."""
        is_short = len(piece) <= _SHORT_BYTES
        return (self._rewrite_short if is_short else self._rewrite)(piece, gvr, namespace)

    def _rewrite(self, piece: bytes, gvr: GroupVersionResource, namespace: str) -> tuple[int, bytes] | None:
        return rewritten(piece, self._rules(gvr, namespace, "", NONE))

    def clean(self, metadata: Members, members: Members, gvr: GroupVersionResource, namespace: str) -> None:
        """Apply every rule, in place, to an object's metadata and its other members."""
        wanted = self._wanted_of(gvr.resource, gvr.group)
        maps = secret_maps(gvr, configmap_values=self._configmap_values)
        for name, value in members.items():
            rules = self._rules(gvr, namespace, name, wanted)
            if name in maps:
                members[name] = fingerprint_map(value, name, rules.conceal, encoded=maps[name])
            else:
                members[name] = rewrite(value, name, rules)
        before = _joined(metadata)
        after = rewrite(before, "metadata", self._rules(gvr, namespace, "metadata", wanted))
        if after is not before:
            metadata.clear()
            metadata.update({name: bytes(value) for name, value in split_object(after).items()})

    def _find_always_cleaned(self, resource: str, group: str) -> bool:
        if self._wanted_of(resource, group) != NONE:
            return True
        is_core = not group and (resource == "secrets" or (resource == "configmaps" and self._configmap_values))
        return is_core or resource in REQUESTS or resource in CLOSED_KINDS

    def _find_wanted(self, resource: str, group: str) -> Wanted:
        redact, keep = (
            tuple(path.segments for path in paths if matches(path.kinds, group, resource))
            for paths in (self._redact, self._keep)
        )
        return Wanted(redact, keep)

    def _rules(self, gvr: GroupVersionResource, namespace: str, name: str, wanted: Wanted) -> Rules:
        is_open = is_judged(gvr, name)
        return Rules(
            conceal=lambda value, field: self.fingerprint(value, gvr.dotted, namespace, field),
            judges=is_open,
            reads=is_open,
            hides_request=holds_request(gvr),
            wanted=wanted.below(name),
        )


def without_copies(annotations: bytes) -> bytes:
    """Without those that repeat the object: of most objects nothing has to go but these."""
    for mark in _COPY_MARKS:  # any() costs as much again as the search
        if mark in annotations:
            break
    else:
        return annotations
    kept = {key: value for key, value in split_object(annotations).items() if not (is_copy(key) and _is_text(value))}
    return _joined(kept)


def _is_text(value: Slice) -> bool:
    return bytes(value)[:1] == b'"'


def _joined(members: Mapping[str, Slice]) -> bytes:
    return b"{" + b",".join([label(name) + value for name, value in members.items()]) + b"}"
