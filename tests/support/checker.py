"""Does the database hold what the API serves? An independent judge: nothing of the package is imported here.

The truth comes from ordinary list calls (legacy discovery, first version of each group that a kind is listed under) and
from the simulation's own count; the copy from SQL. `python -m tests.support.checker --api URL --token T --dsn DSN`
prints what differs.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import asyncpg

JSON = dict[str, Any]

# Left out on purpose: the documented default of EXCLUDE, as resource.group patterns.
EXCLUDED = ("leases.coordination.k8s.io", "componentstatuses", "*.metrics.k8s.io", "events.events.k8s.io")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
FINGERPRINT = re.compile(r"hmac-sha256:[0-9a-f]{32}|redacted:len<=\d+")
PAGE = 1000
SHOWN = 5
PREFIX = 7  # of a secret text: few enough to search for on the server, long enough to find little else


class Identity(NamedTuple):
    """What tells one state of one object from all others."""

    cluster: str
    group: str
    resource: str
    namespace: str
    name: str
    uid: str
    resource_version: str


@dataclass(slots=True)
class Difference:
    """API against database. Empty is what one hopes for."""

    missing: list[Identity] = field(default_factory=list)
    extra: list[Identity] = field(default_factory=list)
    differing: list[tuple[Identity, Identity]] = field(default_factory=list)
    compared: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.differing)

    def __str__(self) -> str:
        parts = []
        for what, found in (("missing", self.missing), ("extra", self.extra), ("differing", self.differing)):
            if found:
                parts.append(f"{len(found)} {what}: {', '.join(map(str, found[:SHOWN]))}")
        return "; ".join(parts) or f"none of {self.compared} differ"


# --- the truth -------------------------------------------------------------------------------------------------------


class Truth:
    """The API, asked as any client asks it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(total=60)
        )

    async def __aenter__(self) -> Truth:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> JSON:
        async with self._session.get(self._url + path, params=query) as response:
            response.raise_for_status()
            answer: JSON = await response.json()
            return answer

    async def cluster(self) -> str:
        return str((await self.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"])

    async def kinds(self) -> dict[tuple[str, str], str]:
        """(group, resource) -> path of its list, of everything that can be listed and is not left out on purpose."""
        found: dict[tuple[str, str], str] = {}
        for group in (await self.get("/apis"))["groups"]:
            preferred = group["preferredVersion"]["version"]
            versions = sorted((v["version"] for v in group["versions"]), key=lambda v: v != preferred)
            for version in versions:
                await self._add(found, group["name"], f"/apis/{group['name']}/{version}")
        await self._add(found, "", "/api/v1")
        return found

    async def _add(self, found: dict[tuple[str, str], str], group: str, root: str) -> None:
        for entry in (await self.get(root))["resources"]:
            name = entry["name"]
            qualified = f"{name}.{group}" if group else name
            excluded = any(fnmatch.fnmatchcase(qualified, pattern) for pattern in EXCLUDED)
            if "/" not in name and "list" in entry["verbs"] and not excluded:
                found.setdefault((group, name), f"{root}/{name}")

    async def objects(self, path: str) -> list[JSON]:
        """Every object of one list."""
        items: list[JSON] = []
        token = ""
        while True:
            page = await self.get(path, limit=str(PAGE), **({"continue": token} if token else {}))
            items += page["items"] or []
            token = page["metadata"].get("continue", "")
            if not token:
                return items

    async def everything(self) -> dict[Identity, JSON]:
        """Every object of every kind, by identity."""
        cluster = await self.cluster()
        found: dict[Identity, JSON] = {}
        for (group, resource), path in (await self.kinds()).items():
            for item in await self.objects(path):
                meta = item["metadata"]
                found[
                    Identity(
                        cluster, group, resource, meta.get("namespace", ""), meta["name"], meta["uid"],
                        meta["resourceVersion"],
                    )
                ] = item  # fmt: skip
        return found

    async def configmap_texts(self) -> str:
        """What stands in ConfigMaps: it is stored as it is unless the user says otherwise."""
        return json.dumps([item.get("data") for item in await self.objects("/api/v1/configmaps")])


# --- the copy --------------------------------------------------------------------------------------------------------

LIVE = """
    select c.uid as cluster, u.api_group, u.resource, r.namespace, r.name, r.uid, r.resource_version
    from resource r join unit u on u.id = r.unit_id join cluster c on c.id = u.cluster_id
    where not r.deleted
"""

BODIES = """
    select c.uid as cluster, u.api_group, u.resource, r.namespace, r.name, r.uid, r.resource_version,
        r.body::text as body, convert_from(r.original, 'UTF8') as original
    from resource r join unit u on u.id = r.unit_id join cluster c on c.id = u.cluster_id
    where not r.deleted
"""

ROWS = """
    select c.uid, c.name as cluster, u.api_group, u.resource, u.kind, u.api_version, u.namespaced,
        coalesce(u.state, f.state) as state, f.objects,
        r.namespace, r.name, r.uid, r.resource_version, r.epoch, r.live_at, r.deleted, r.fidelity, r.normalization,
        r.content_hash, r.created, md5(r.body::text) as body
    from resource r join unit u on u.id = r.unit_id join cluster c on c.id = u.cluster_id
    left join unit_floor f on f.unit_id = u.id and f.reach = ''
    order by u.api_group, u.resource, r.namespace, r.name
"""

OVERLAPS = """
    with spans as (
        select unit_id, namespace, name, valid_from, valid_to from resource_history
        union all
        select unit_id, namespace, name, valid_from, 'infinity' from resource where not deleted
    ), ordered as (
        select *, lead(valid_from) over (partition by unit_id, namespace, name order by valid_from, valid_to) as next
        from spans
    )
    select unit_id, namespace, name, valid_from, valid_to, next from ordered where next < valid_to limit 5
"""


async def connect(dsn: str, schema: str = "clusterinfo") -> asyncpg.Connection:
    """A connection that finds the tables; the caller closes it."""
    return await asyncpg.connect(dsn, server_settings={"search_path": schema}, timeout=60, command_timeout=120)


def compare(truth: Iterable[Identity], copy: Iterable[Identity]) -> Difference:
    """Key by key: there and here, with the same uid and version."""
    wanted = {identity[:5]: identity for identity in truth}
    found = {identity[:5]: identity for identity in copy}
    difference = Difference(compared=len(wanted))
    difference.missing = [identity for key, identity in wanted.items() if key not in found]
    difference.extra = [identity for key, identity in found.items() if key not in wanted]
    difference.differing = [
        (identity, found[key]) for key, identity in wanted.items() if key in found and found[key] != identity
    ]
    return difference


async def live(connection: asyncpg.Connection) -> list[Identity]:
    """What the database says exists."""
    return [Identity(*row) for row in await connection.fetch(LIVE)]


async def rows(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Every row with all that must not depend on how it came, bodies as a hash of their text."""
    return [tuple(row) for row in await connection.fetch(ROWS)]


async def wrong_bodies(connection: asyncpg.Connection, truth: dict[Identity, JSON]) -> list[str]:
    """Where a stored object says anything else than the API: only removals and fingerprints are allowed."""
    wrong: list[str] = []
    async with connection.transaction():
        async for row in connection.cursor(BODIES, prefetch=500):
            identity = Identity(*tuple(row)[:7])
            if item := truth.get(identity):
                wrong += [f"{identity}: {place}" for place in _wrong(_listed(item), row["body"], row["original"])]
    return wrong


def _wrong(item: JSON, body: str, original: str | None) -> list[str]:
    """The body against the API's object, and the original beside it where jsonb could not hold that."""
    if original is None:
        return _unlike(item, _whole(json.loads(body)), "")
    repaired = json.loads(json.dumps(item).replace(r"\u0000", r"\ufffd"))
    return _unlike(item, _whole(json.loads(original)), "") + _unlike(repaired, _whole(json.loads(body)), "")


def _listed(item: JSON) -> JSON:
    """An object of a list as it may be stored: without what is always removed."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations", {})
    metadata["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
    return _plain({**item, "metadata": metadata})


def _whole(stored: JSON) -> JSON:
    """A stored object; it must have what the items of a list of a built-in kind lack."""
    assert stored["apiVersion"]
    assert stored["kind"]
    return _plain(stored)


def _plain(item: JSON) -> JSON:
    """Without apiVersion and kind; no annotations are the same as none at all."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "annotations" or value}
    return {key: value for key, value in item.items() if key not in ("apiVersion", "kind")} | {"metadata": metadata}


def _unlike(api: Any, stored: Any, place: str) -> list[str]:
    """Where two values differ, fingerprints apart."""
    if isinstance(api, dict) and isinstance(stored, dict):
        lone = [f"{place}.{key} is not in both" for key in api.keys() ^ stored.keys()]
        pairs = [(f"{place}.{key}", api[key], stored[key]) for key in api.keys() & stored.keys()]
        return lone + [line for where, ours, theirs in pairs for line in _unlike(ours, theirs, where)]
    if isinstance(api, list) and isinstance(stored, list) and len(api) == len(stored):
        pairs = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(api, stored, strict=True))]
        return [line for where, ours, theirs in pairs for line in _unlike(ours, theirs, where)]
    if api == stored or (isinstance(stored, str) and FINGERPRINT.search(stored)):
        return []
    return [f"{place} differs"]


async def wrong_history(connection: asyncpg.Connection) -> list[str]:
    """Versions that end before they begin, and versions of one object that overlap."""
    backwards = await connection.fetch("select * from resource_history where valid_to < valid_from limit 5")
    overlapping = await connection.fetch(OVERLAPS)
    return [f"backwards: {dict(row)}" for row in backwards] + [f"overlapping: {dict(row)}" for row in overlapping]


async def lag(connection: asyncpg.Connection, bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """Partition -> messages in Kafka that the database's offsets do not cover; 0 is stored up to its end."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
    finally:
        await consumer.stop()
    stored = dict(await connection.fetch("select partition, next_offset from kafka_offset where topic = $1", topic))
    return {partition.partition: end - (stored.get(partition.partition) or 0) for partition, end in ends.items()}


# --- secrets ---------------------------------------------------------------------------------------------------------


async def secrets(url: str, token: str, planted: Iterable[str]) -> list[str]:
    """The planted texts that may be nowhere: all but those that stand in ConfigMaps."""
    async with Truth(url, token) as api:
        open_texts = await api.configmap_texts()
    return [text for text in planted if text not in open_texts]


TEXT_COLUMNS = """
    select c.relname, a.attname, format_type(a.atttypid, null) as type
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    where c.relnamespace = $1::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
        and format_type(a.atttypid, null) in ('text', 'text[]', 'character varying', 'json', 'jsonb', 'bytea')
"""


async def leaks(connection: asyncpg.Connection, canaries: Iterable[str], schema: str = "clusterinfo") -> list[str]:
    """Every column of every table that holds one of the secret texts."""
    secrets = Secrets(canaries)
    found: list[str] = []
    for table, column, kind in await connection.fetch(TEXT_COLUMNS, schema):
        # bytea is shown byte for byte, so that ASCII reads as itself.
        text = f"encode({column}, 'escape')" if kind == "bytea" else f"{column}::text"
        like = " or ".join(f"strpos(t.text, ${i + 1}) > 0" for i in range(len(secrets.prefixes)))
        query = f'select t.text from (select {text} as text from {schema}."{table}") as t where {like}'
        for row in await connection.fetch(query, *secrets.prefixes):
            found += [f"{table}.{column}: {secret}" for secret in secrets.within(row["text"])]
    return found


class Secrets:
    """Many secret texts, looked for at once: by their few beginnings, then one by one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(texts)
        assert self._texts, "no secret text to look for: the test would prove nothing"
        assert min(map(len, self._texts)) > PREFIX
        self._lengths = sorted({len(text) for text in self._texts})
        self.prefixes = sorted({text[:PREFIX] for text in self._texts})
        assert len(self.prefixes) <= 20, "too many beginnings to look for"
        self._pattern = re.compile("|".join(map(re.escape, self.prefixes)))

    def within(self, text: str | bytes) -> list[str]:
        """Those that occur in `text`."""
        if isinstance(text, bytes):
            text = text.decode("latin-1")  # every byte is a character: ASCII stays itself
        found = []
        for match in self._pattern.finditer(text):
            at = match.start()
            found += [text[at : at + n] for n in self._lengths if text[at : at + n] in self._texts]
        return found


# --- all of it -------------------------------------------------------------------------------------------------------


async def truth(url: str, token: str) -> dict[Identity, JSON]:
    """Everything the API serves now."""
    async with Truth(url, token) as api:
        return await api.everything()


async def problems(wanted: dict[Identity, JSON], dsn: str) -> list[str]:
    """Everything that is wrong with a copy of one cluster; empty if nothing is."""
    connection = await connect(dsn)
    try:
        difference = compare(wanted, await live(connection))
        found = [str(difference)] if difference else []
        found += (await wrong_bodies(connection, wanted))[:SHOWN]
        found += await wrong_history(connection)
        if letters := await connection.fetchval("select count(*) from dead_letter"):
            found.append(f"{letters} dead letters")
        return found
    finally:
        await connection.close()


async def differs(wanted: dict[Identity, JSON], dsn: str) -> bool:
    """True as long as an object is missing, extra or of another version: what to wait for, before `problems`."""
    connection = await connect(dsn)
    try:
        return bool(compare(wanted, await live(connection)))
    finally:
        await connection.close()


async def check(url: str, token: str, dsn: str) -> list[str]:
    """`problems` of the API as it is now."""
    return await problems(await truth(url, token), dsn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("api", "token", "dsn"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    found = asyncio.run(check(options.api, options.token, options.dsn))
    print("\n".join(found) or "the database equals the API")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
