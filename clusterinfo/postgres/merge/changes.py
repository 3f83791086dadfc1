"""Changes: telling whoever listens that rows have changed, and how long it took.

One NOTIFY `clusterinfo` a batch, run after its COMMIT and sent with it: a transaction that notifies holds a lock of the
whole server until it is on the disk, so that of many batches each would wait for the disk by itself; a transaction that
does nothing else waits for no disk. It is lost with its backend, if that ends between the two; what was stored is not,
and who lists (`freshness`) sees it. Its payload is the JSON array of the batch's kinds, `[[cluster's identity, group,
resource], ...]`; an empty one says that they are too many to be named.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import orjson

from clusterinfo.model import Unit
from clusterinfo.observations import ChangesStored
from clusterinfo.postgres.merge.numbers import Said

MAX_PAYLOAD_BYTES = 7999
"""Manual, NOTIFY: "it must be shorter than 8000 bytes"."""


def notification_of(units: Iterable[Unit]) -> str:
    """The statement that tells, once its transaction is committed, that rows of these units have changed. Pure."""
    quoted = payload_of(units).replace("'", "''")  # in JSON a backslash never stands before a quote
    return f"notify clusterinfo, '{quoted}'"


def payload_of(units: Iterable[Unit]) -> str:
    """What listeners get. Pure."""
    payload = orjson.dumps([[unit.cluster, unit.group, unit.resource] for unit in units])
    return payload.decode() if len(payload) <= MAX_PAYLOAD_BYTES else "[]"


def delays_of(said: Iterable[Said], now: dt.datetime) -> list[ChangesStored]:
    """By kind, how long ago what was watched was seen. Pure."""
    delays: dict[str, list[float]] = {}
    for record, _ in said:
        if record.number and record.resource:
            delay_s = max(0.0, (now - record.observed_at).total_seconds())
            delays.setdefault(record.unit.dotted, []).append(delay_s)
    return [ChangesStored(resource=resource, delays_s=tuple(of_kind)) for resource, of_kind in delays.items()]
