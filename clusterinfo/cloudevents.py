"""A record as a CloudEvent: its attributes as message headers spell them, and its key.

Pure: no Kafka client, no database, no clock. `wire.py` sends them; the dead letters keep them, so that what was
set aside can be read by any CloudEvents reader and be rebuilt. The attributes are a contract: see ARCHITECTURE.md.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from urllib.parse import quote

import msgspec

from clusterinfo.errors import RecordError
from clusterinfo.model import Record

CONTENT_TYPE = ("content-type", b"application/json")
SPECVERSION = ("ce_specversion", b"1.0")
_CACHED = 4096  # distinct clusters remembered: more than one topic carries

_ENCODER = msgspec.json.Encoder()


def key_of(record: Record) -> bytes:
    """`[cluster, group, resource, namespace, name]` as JSON. Raises UnicodeEncodeError for half a surrogate pair."""
    return _ENCODER.encode((record.cluster, record.group, record.resource, record.namespace, record.name))


def attributes_of(record: Record) -> list[tuple[str, bytes]]:
    """The headers that say all of `record` but its key and body; what is empty is left out.

    Raises UnicodeEncodeError for half a surrogate pair, RecordError for a time without zone.
    """
    texts = (
        ("ce_id", record_id(record)),
        ("ce_time", _time(record.observed_at)),
        ("ce_subject", subject(record.group, record.resource, record.namespace, record.name)),
        ("ce_clustername", record.cluster_name),
        ("ce_snapshot", record.snapshot),
        ("ce_list", record.list),
        ("ce_reach", record.reach),
        ("ce_apiversion", record.api_version),
        ("ce_kind", record.kind),
        ("ce_uid", record.uid),
        ("ce_resourceversion", record.resource_version),
        ("ce_listversion", record.list_version),
        ("ce_contenthash", record.content_hash),
        ("ce_state", record.state),
    )
    headers = [
        SPECVERSION,
        ("ce_type", record.type.value.encode()),
        ("ce_source", source(record.cluster)),
        CONTENT_TYPE,
        ("ce_epoch", b"%d" % record.epoch),
        ("ce_normalization", b"%d" % record.normalization),
    ]
    headers += [(name, text.encode()) for name, text in texts if text]
    return headers


def record_id(record: Record) -> str:
    """CloudEvents `id`, the same whenever the same statement is sent again.

    "Producers MUST ensure that source + id is unique for each distinct event." A list attempt (a UUID of its own)
    sees a version of an object once; a watched version is told by its key and resourceVersion alone. A resourceVersion
    may be reused by the deletion of what it names, hence the verb.
    """
    verb = record.type.value.rpartition(".v")[0].rpartition(".")[2]
    if not record.is_object:
        return f"{record.list or record.snapshot}/{verb}"
    scope = record.list or f"{record.group or 'core'}/{record.resource}"
    return f"{scope}/{record.namespace}/{record.name}/{record.resource_version}/{verb}"


@lru_cache(_CACHED)
def source(cluster: str) -> bytes:
    """CloudEvents `source` of a cluster: a URI-reference, hence the percent-encoding."""
    return f"/clusters/{quote(cluster, safe='')}".encode()


def subject(group: str, resource: str, namespace: str, name: str) -> str:
    """CloudEvents `subject`, `-` for what does not apply; "" (absent) for a statement about a whole snapshot."""
    return f"{group or 'core'}/{resource}/{namespace or '-'}/{name or '-'}" if resource else ""


def _time(moment: dt.datetime) -> str:
    """RFC 3339, UTC, always with microseconds. A naive time would be read as local: refuse it."""
    if moment.tzinfo is None:
        raise RecordError("observed_at has no time zone, expected UTC")
    if moment.tzinfo is not dt.UTC:
        moment = moment.astimezone(dt.UTC)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
