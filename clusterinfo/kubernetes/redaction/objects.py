"""The rules applied to an object: its top-level members and metadata in, the same without what is secret out. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache

import xxhash

from clusterinfo.kubernetes.discovery import matches
from clusterinfo.kubernetes.pages import Slice, split_object
from clusterinfo.kubernetes.redaction.fingerprints import Place, fingerprint
from clusterinfo.kubernetes.redaction.patch import find, rewrite, rewritten
from clusterinfo.kubernetes.redaction.paths import NONE, Path, Wanted
from clusterinfo.kubernetes.redaction.places import (
    CLOSED_KINDS,
    COPY_MARKS,
    REQUESTS,
    holds_request,
    is_copy,
    is_judged,
    secret_maps,
)
from clusterinfo.kubernetes.redaction.replicas import Replicas, Unchanged
from clusterinfo.kubernetes.redaction.search import LARGE_BYTES
from clusterinfo.kubernetes.redaction.walk import Rules, fingerprint_map, label
from clusterinfo.model import GroupVersionResource

_COPY_MARKS = tuple(mark.encode() for mark in COPY_MARKS)

_SHORT_BYTES = 1024
"""Pieces of an object that are rewritten are remembered up to this length, 2,048 of them: 4 MB at most."""
_SPEC = label("spec")
_MAX_KINDS = 1024
"""Pairs of a kind and a namespace whose rules are remembered."""
_VERSION = re.compile(rb'"resourceVersion":"[0-9]+"')

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
        self._seed = secrets.randbits(64)
        """So that nobody can make up JSON that passes for other JSON; by chance, one of 2^47 does (`Unchanged`). A
        content hash has no seed: whoever forges one hides nothing but what they wrote themselves."""
        self._unchanged = Unchanged()
        self._replicas = Replicas(self._unchanged, self._seed)
        self._rewrite_short = lru_cache(maxsize=2048)(rewritten)
        self._rules_of_kinds: dict[tuple[str, ...], Rules | None] = {}
        self._wanted_of = lru_cache(maxsize=1024)(self._find_wanted)

    def fingerprint(self, value: bytes, kind: str, namespace: str, field: str) -> str:
        """The text that stands for `value` in the `field` of an object."""
        return fingerprint(self._key, Place(self._cluster, namespace, kind, field), value)

    def clean_spec(
        self, metadata: Members, members: Members, gvr: GroupVersionResource, namespace: str, content_hash: str
    ) -> bool:
        """Apply every rule, in place, to an object of which rules concern its spec alone, if anything; else False.

        Takes `"name":value` for each name, where `clean` takes values. That no rule concerns anything is remembered of
        the `content_hash`.
        """
        rules = self._rules_of_kind(gvr, namespace)
        if rules is None:
            return False
        version = metadata.get("resourceVersion", b"")
        # The hash leaves the version out, so it must be none of a rule's texts.
        is_hashed = not version or _VERSION.fullmatch(version) is not None
        if is_hashed and content_hash in self._unchanged:
            return True
        rest = _without_spec(metadata, members, version if is_hashed else None)
        digest = xxhash.xxh3_128_digest(rest, self._seed)
        if digest not in self._unchanged and (len(rest) > LARGE_BYTES or find(rest)):
            return False
        before = members.get("spec")
        if before is not None and (spec := self._rewritten_spec(before[len(_SPEC) :], rules)) is not None:
            members["spec"] = _SPEC + spec
            self._unchanged.add(digest)
        elif is_hashed:
            self._unchanged.add(content_hash)
        return True

    def clean(self, metadata: Members, members: Members, gvr: GroupVersionResource, namespace: str) -> None:
        """Apply every rule, in place, to an object's metadata and its other members."""
        maps = secret_maps(gvr, configmap_values=self._configmap_values)
        for name, value in members.items():
            if name in maps:
                conceal = self._rules(gvr, namespace, name).conceal
                members[name] = fingerprint_map(value, name, conceal, encoded=maps[name])
            else:
                members[name] = self._rewritten(value, name, gvr, namespace)
        before = _joined(metadata)
        after = self._rewritten(before, "metadata", gvr, namespace)
        if after is not before:
            metadata.clear()
            metadata.update({name: bytes(value) for name, value in split_object(after).items()})

    def _rewritten(self, value: bytes, name: str, gvr: GroupVersionResource, namespace: str) -> bytes:
        """A member's value after all rules."""
        rules = self._rules_of_kind(gvr, namespace)
        if rules is None:
            return rewrite(value, name, self._rules(gvr, namespace, name), self._rewrite_piece)
        if name == "spec":
            spec = self._rewritten_spec(value, rules)
            return value if spec is None else spec
        return rewrite(value, name, rules, self._rewrite_piece)

    def _rewritten_spec(self, spec: bytes, rules: Rules) -> bytes | None:
        return self._replicas.rewritten(spec, rules, lambda one: rewrite(one, "spec", rules, self._rewrite_piece))

    def _rewrite_piece(self, piece: bytes, rules: Rules) -> tuple[int, bytes] | None:
        """Environments are the same in many containers, and from change to change."""
        return (self._rewrite_short if len(piece) <= _SHORT_BYTES else rewritten)(piece, rules)

    def _rules_of_kind(self, gvr: GroupVersionResource, namespace: str) -> Rules | None:
        """What applies to all members of a kind alike; None if members have rules of their own."""
        key = gvr.group, gvr.resource, gvr.kind, namespace
        if key not in self._rules_of_kinds:
            if len(self._rules_of_kinds) >= _MAX_KINDS:
                self._rules_of_kinds.clear()
            self._rules_of_kinds[key] = None if self._is_always_cleaned(gvr) else self._rules(gvr, namespace, "")
        return self._rules_of_kinds[key]

    def _is_always_cleaned(self, gvr: GroupVersionResource) -> bool:
        if self._wanted_of(gvr.resource, gvr.group) != NONE:
            return True
        maps = secret_maps(gvr, configmap_values=self._configmap_values)
        return bool(maps) or gvr.resource in REQUESTS or gvr.resource in CLOSED_KINDS

    def _find_wanted(self, resource: str, group: str) -> Wanted:
        redact, keep = (
            tuple(path.segments for path in paths if matches(path.kinds, group, resource))
            for paths in (self._redact, self._keep)
        )
        return Wanted(redact, keep)

    def _rules(self, gvr: GroupVersionResource, namespace: str, name: str) -> Rules:
        is_open = is_judged(gvr, name)
        return Rules(
            conceal=lambda value, field: self.fingerprint(value, gvr.dotted, namespace, field),
            judges=is_open,
            reads=is_open,
            hides_request=holds_request(gvr),
            wanted=self._wanted_of(gvr.resource, gvr.group).below(name),
        )


def _without_spec(metadata: Members, members: Members, version: bytes | None) -> bytes:
    """An object's JSON without its spec and `version`, of `"name":value`s."""
    inner = [one for one in metadata.values() if one is not version]
    outer = [one for name, one in members.items() if name != "spec"]
    return b'{"metadata":{%b},%b}' % (b",".join(inner), b",".join(outer))


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
