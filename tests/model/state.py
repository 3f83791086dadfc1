"""The truth: clusters whose objects change, and collectors that say what they saw. Knows nothing of databases.

What a collector says is made the moment it looks (a list is one consistent view), and may be delivered at any later
time.
"""

from __future__ import annotations

import copy
import datetime as dt
from dataclasses import dataclass, field

import orjson
import xxhash
from msgspec.structs import replace

from clusterinfo.model import CLOCK, Record, RecordType, list_start
from tests.support.records import NOON, Listing

MS = dt.timedelta(milliseconds=1)
SECOND = dt.timedelta(seconds=1)

REFUSED, NUL, WILD = "refused", "nul", "wild"
"""Contents that jsonb refuses whatever is done, and two that it holds only when repaired."""

FIDELITIES: dict[object, int] = {REFUSED: 0, NUL: 2, WILD: 2}
"""How much of an object can be stored; else 3, all of it."""

Key = tuple[str, str]
"""(namespace, name)."""

NUMBERS, OPAQUE, STANDING = "numbers", "opaque", "standing"
"""What the list versions of a kind are: numbers that grow, no numbers, or one number for ever."""


@dataclass(frozen=True)
class Kind:
    """A kind as every cluster of a history serves it."""

    group: str
    resource: str
    versions: str = NUMBERS

    @property
    def id(self) -> tuple[str, str]:
        return self.group, self.resource

    @property
    def by_clock(self) -> bool:
        """Its collector knows that its list versions order nothing: its records say so, and it is listed only."""
        return self.versions != NUMBERS


@dataclass(frozen=True)
class Object:
    """An object as it is at one moment."""

    uid: str
    version: str
    content: int | str


CONTENTS: dict[str, int | str] = {}
"""Content hash -> content, of all that was ever sent: what a consumer may take a hash for."""


def content_hash(key: Key, thing: Object, normalization: int) -> str:
    """Follows content, not version; content 1 is of the sort that a better redaction changes."""
    shown = normalization if thing.content == 1 else 0
    return xxhash.xxh3_128_hexdigest(orjson.dumps([key, thing.uid, thing.content, shown]))


def body_of(key: Key, thing: Object, normalization: int) -> bytes:
    """An object as it leaves the cluster."""
    if thing.content == REFUSED:
        return b'{"n":'
    if thing.content == WILD:
        return b'{"n":1e999999}'
    metadata = {"namespace": key[0], "name": key[1], "uid": thing.uid, "resourceVersion": thing.version}
    data = "\0" if thing.content == NUL else thing.content
    return orjson.dumps({"metadata": metadata, "data": data, "rules": normalization})


def stub_of(key: Key, thing: Object) -> bytes:
    """What is sent of an object too large for the broker."""
    return orjson.dumps({"size_bytes": 9000000, "sha256": f"{key} {thing.version}"})


@dataclass
class Served(Listing):
    """A list of a kind that is served in that version of its group."""

    served: str = "v1"

    def record(self, type_: RecordType, body: bytes, **attributes: object) -> Record:
        named = {"api_version": f"{self.group}/{self.served}" if self.group else self.served}
        return super().record(type_, body, **(named | attributes))


@dataclass
class Seen:
    """One list as its collector saw it: what is needed to judge later what it proves."""

    cluster: int
    kind: Kind
    listing: Listing
    objects: dict[Key, Object]
    records: list[Record]
    route: str = "kafka"
    done_at: dt.datetime = NOON
    page: int = 0


@dataclass
class Cluster:
    """One cluster: identity, its revision counter, and what exists in it now."""

    number: int
    uid: str
    name: str
    kinds: tuple[Kind, ...]
    revision: int = 100
    epoch: int = 0
    objects: dict[tuple[str, str], dict[Key, Object]] = field(default_factory=dict)
    backups: list[tuple[int, dict[tuple[str, str], dict[Key, Object]]]] = field(default_factory=list)
    tainted: bool = False
    """Its revisions ran backwards and nobody raised the epoch."""
    was_tainted: bool = False
    api_versions: dict[tuple[str, str], str] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)
    excluded: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for kind in self.kinds:
            self.objects.setdefault(kind.id, {})


class World:
    """All clusters of a history and the one clock they share."""

    def __init__(self, tag: str, clusters: list[Cluster]) -> None:
        self.tag, self.clusters = tag, clusters
        self.now = NOON
        self.uids = 0
        self.lists: dict[str, Seen] = {}

    def tick(self, delta: dt.timedelta = SECOND) -> dt.datetime:
        """Let time pass."""
        self.now += delta
        return self.now

    def create_or_change(self, cluster: Cluster, kind: Kind, key: Key, content: int | str) -> Object:
        """The object of that key gets that content; a new one a new uid."""
        self.tick()
        cluster.revision += 1
        before = cluster.objects[kind.id].get(key)
        if before is None:
            self.uids += 1
        uid = before.uid if before else f"uid{self.uids}"
        cluster.objects[kind.id][key] = Object(uid, str(cluster.revision), content)
        return cluster.objects[kind.id][key]

    def delete(self, cluster: Cluster, kind: Kind, key: Key) -> Object | None:
        """The object is gone; returns what it was."""
        self.tick()
        thing = cluster.objects[kind.id].pop(key, None)
        if thing:
            cluster.revision += 1
        return thing

    def back_up(self, cluster: Cluster) -> None:
        """Keep a copy of everything to restore later."""
        cluster.backups.append((cluster.revision, copy.deepcopy(cluster.objects)))

    def restore(self, cluster: Cluster, *, forwards: bool, raised: bool) -> None:
        """The newest backup is the truth again; forwards: the revision counter was bumped beyond what it was."""
        self.tick(10 * SECOND)
        revision, objects = cluster.backups.pop()
        if forwards:
            cluster.revision += 1000
        else:
            cluster.tainted = cluster.tainted or (not raised and cluster.revision != revision)
            cluster.was_tainted = cluster.was_tainted or cluster.tainted
            cluster.revision = revision
        cluster.objects = objects
        for kind_id in cluster.gone:
            cluster.objects[kind_id] = {}
        if raised:
            cluster.epoch += 1
            cluster.tainted = False

    def list_version(self, cluster: Cluster, kind: Kind) -> str:
        """What a list of that kind would bear as its resourceVersion."""
        return {NUMBERS: str(cluster.revision), OPAQUE: f"x{cluster.revision:06d}", STANDING: "7"}[kind.versions]

    def listing(self, cluster: Cluster, kind: Kind, reach: str = "", normalization: int = 1) -> Listing:
        """A list that begins now."""
        self.tick(10 * MS)
        return Served(
            self.list_version(cluster, kind), self.now, resource=kind.resource, group=kind.group, reach=reach,
            epoch=cluster.epoch, cluster=cluster.uid, cluster_name=cluster.name, kind=kind.resource.title(),
            normalization=normalization, ordering=CLOCK if kind.by_clock else "",
            served=cluster.api_versions.get(kind.id, "v1"),
        )  # fmt: skip

    def watched(self, cluster: Cluster, kind: Kind, key: Key, thing: Object, normalization: int = 1) -> Record:
        """A watch record: the object as it is now."""
        listing = self.listing(cluster, kind, normalization=normalization)
        return replace(self.item(listing, key, thing, stub=False), list="", list_version=thing.version)

    def watched_deletion(self, cluster: Cluster, kind: Kind, key: Key, thing: Object) -> Record:
        """A watch record: the object was deleted just now."""
        listing = self.listing(cluster, kind)
        return listing.deleted(key[1], str(cluster.revision), key[0], thing.uid)

    def item(self, listing: Listing, key: Key, thing: Object, *, stub: bool) -> Record:
        """An object as a list shows it."""
        stub = stub and thing.content not in FIDELITIES
        rules = listing.normalization
        CONTENTS[content_hash(key, thing, rules)] = thing.content
        return listing.item(
            key[1], thing.version, namespace=key[0], uid=thing.uid,
            body=stub_of(key, thing) if stub else body_of(key, thing, rules),
            state="oversize" if stub else "", content_hash=content_hash(key, thing, rules),
        )  # fmt: skip

    def look(
        self,
        cluster: Cluster,
        kind: Kind,
        *,
        reach: str = "",
        normalization: int = 1,
        stubs: int = 0,
        slow: bool = False,
    ) -> Seen:
        """One whole list: its items and its completion, `slow` one that takes a minute to come to its end."""
        listing = self.listing(cluster, kind, reach, normalization)
        objects = {key: thing for key, thing in sorted(cluster.objects[kind.id].items()) if reach in ("", key[0])}
        pause = 10 * SECOND if slow else MS
        records, at = [], self.now
        for number, (key, thing) in enumerate(objects.items()):
            at += pause
            records.append(replace(self.item(listing, key, thing, stub=bool(stubs >> number & 1)), observed_at=at))
        at += pause
        records.append(replace(listing.completed(), observed_at=at))
        if not slow:
            self.now = at
        seen = Seen(cluster.number, kind, listing, objects, records, done_at=at)
        self.lists[listing.id] = seen
        return seen


def began(list_id: str) -> dt.datetime:
    """When a list began."""
    return list_start(list_id)
