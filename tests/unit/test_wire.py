"""The wire format: what goes in comes out, other readers understand it, and nothing else passes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from clusterinfo import wire
from clusterinfo.errors import RecordError
from clusterinfo.model import CLOCK, MAX_NUMBER, Record, RecordType
from clusterinfo.wire import record_id

NOON = dt.datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=dt.UTC)
LIST = "01932d3a-2222-7abc-8def-0123456789ab"
SNAPSHOT = "01932d3a-1111-7abc-8def-0123456789ab"
SESSION = "01932d3a-3333-7abc-8def-0123456789ab"


def observed(**attributes: object) -> Record:
    given_: dict[str, object] = {
        "type": RecordType.OBSERVED, "cluster": "5f0c/9f", "cluster_name": "prod eu", "observed_at": NOON,
        "body": b'{"metadata":{"name":"web"}}', "epoch": 2, "group": "apps", "resource": "deployments",
        "namespace": "shop", "name": "web", "snapshot": SNAPSHOT, "list": LIST, "reach": "shop",
        "api_version": "apps/v1", "kind": "Deployment", "uid": "u-1", "resource_version": "41", "list_version": "99",
        "ordering": CLOCK, "content_hash": "0123456789abcdef" * 2, "normalization": 3, "manager": "kubectl-edit",
        "operation": "Update", "subresource": "scale", "managed_at": NOON.replace(microsecond=0),
    }  # fmt: skip
    return Record(**(given_ | attributes))  # type: ignore[arg-type]


def watched(**attributes: object) -> Record:
    return observed(**({"list": "", "snapshot": "", "session": SESSION, "number": 7, "ordering": ""} | attributes))


def statement(kind: RecordType, **attributes: object) -> Record:
    return Record(
        type=kind,
        cluster="c1",
        cluster_name="prod",
        observed_at=NOON,
        body=b'{"count":1}',
        **attributes,  # type: ignore[arg-type]
    )


EVERY_KIND = {
    "observed": observed(),
    "oversize": observed(state="oversize", body=b'{"size_bytes":9,"sha256":"00"}'),
    "ordered by version": observed(ordering=""),
    "cluster-scoped": observed(group="", resource="nodes", namespace="", reach="", kind="Node", api_version="v1"),
    "deleted": observed(type=RecordType.DELETED, list="", snapshot="", content_hash=""),
    "watched": watched(name="watched"),
    "watched deletion": watched(type=RecordType.DELETED, name="watched", content_hash="", number=MAX_NUMBER),
    "watch.progress": statement(RecordType.WATCH_PROGRESS, session=SESSION, number=8, partition=0),
    "watch.progress elsewhere": statement(RecordType.WATCH_PROGRESS, session=SESSION, number=8, partition=11),
    "watch.ended": statement(RecordType.WATCH_ENDED, session=SESSION, number=9, partition=11),
    "list.completed": statement(RecordType.LIST_COMPLETED, resource="pods", list=LIST, snapshot=SNAPSHOT),
    "list.completed by the clock": statement(RecordType.LIST_COMPLETED, resource="pods", list=LIST, ordering=CLOCK),
    "list.failed": statement(RecordType.LIST_FAILED, resource="pods", group="x.io", list=LIST, reach="shop"),
    "snapshot.started": statement(RecordType.SNAPSHOT_STARTED, snapshot=SNAPSHOT),
    "snapshot.completed": statement(RecordType.SNAPSHOT_COMPLETED, snapshot=SNAPSHOT),
}


def decoded(message: wire.Message, offset: int = -1) -> Record:
    return wire.decode(message.key, message.value, tuple(message.headers), offset)


@pytest.mark.parametrize("record", EVERY_KIND.values(), ids=EVERY_KIND.keys())
def test_every_kind_comes_back_as_it_went(record: Record) -> None:
    assert decoded(wire.encode(record)) == record


@pytest.mark.parametrize("record", EVERY_KIND.values(), ids=EVERY_KIND.keys())
def test_an_independent_reader_understands_every_kind(record: Record) -> None:
    message = wire.encode(record)
    event = from_binary(KafkaMessage(dict(message.headers), message.key, message.value), JSONFormat())

    assert event.get_specversion() == "1.0"
    assert event.get_type() == record.type.value
    assert event.get_source() == f"/clusters/{record.cluster.replace('/', '%2F')}"
    assert event.get_time() == record.observed_at
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == json.loads(record.body)
    wanted = {
        "clustername": record.cluster_name, "snapshot": record.snapshot, "list": record.list, "reach": record.reach,
        "epoch": str(record.epoch), "apiversion": record.api_version, "kind": record.kind, "uid": record.uid,
        "resourceversion": record.resource_version, "listversion": record.list_version,
        "contenthash": record.content_hash, "normalization": str(record.normalization), "state": record.state,
        "ordering": record.ordering, "session": record.session, "number": str(record.number or ""),
        "partition": str(record.partition) if record.partition >= 0 else "", "manager": record.manager,
        "operation": record.operation, "subresource": record.subresource,
        "managedat": "2026-11-22T12:00:00.000000Z" if record.managed_at else "",
    }  # fmt: skip
    assert {name: event.get_extension(name) or "" for name in wanted} == wanted


def test_the_names_on_the_wire_are_the_contract() -> None:
    message = wire.encode(observed(state="oversize"))
    assert json.loads(message.key) == ["5f0c/9f", "apps", "deployments", "shop", "web"]
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"io.clusterinfo.resource.observed.v1",
        "ce_source": b"/clusters/5f0c%2F9f",
        "ce_id": f"{LIST}/shop/web/41/observed".encode(),
        "ce_time": b"2026-11-22T12:00:00.000005Z",
        "ce_subject": b"apps/deployments/shop/web",
        "content-type": b"application/json",
        "ce_clustername": b"prod eu",
        "ce_snapshot": SNAPSHOT.encode(),
        "ce_list": LIST.encode(),
        "ce_reach": b"shop",
        "ce_epoch": b"2",
        "ce_apiversion": b"apps/v1",
        "ce_kind": b"Deployment",
        "ce_uid": b"u-1",
        "ce_resourceversion": b"41",
        "ce_listversion": b"99",
        "ce_ordering": b"clock",
        "ce_contenthash": b"0123456789abcdef0123456789abcdef",
        "ce_normalization": b"3",
        "ce_state": b"oversize",
        "ce_manager": b"kubectl-edit",
        "ce_operation": b"Update",
        "ce_subresource": b"scale",
        "ce_managedat": b"2026-11-22T12:00:00.000000Z",
    }
    headers = dict(wire.encode(EVERY_KIND["watch.progress"]).headers)
    assert (headers["ce_session"], headers["ce_number"], headers["ce_partition"]) == (SESSION.encode(), b"8", b"0")
    assert headers["ce_id"] == f"{SESSION}/0/8/progress".encode()


def test_what_does_not_apply_is_absent_not_empty() -> None:
    headers = dict(wire.encode(EVERY_KIND["snapshot.started"]).headers)
    assert all(headers.values())
    assert "ce_subject" not in headers
    assert "ce_ordering" not in dict(wire.encode(observed(ordering="")).headers)
    assert dict(wire.encode(EVERY_KIND["cluster-scoped"]).headers)["ce_subject"] == b"core/nodes/-/web"


def test_ids_differ_for_what_differs_and_agree_for_what_is_sent_again() -> None:
    different = [
        *EVERY_KIND.values(),
        observed(name="web2"),
        observed(namespace="shop2"),
        observed(resource_version="42"),
        observed(list=LIST.replace("2222", "3333")),
        observed(list=""),
    ]
    # The same object or completion of the same list, sent in another form.
    for name in ("oversize", "ordered by version", "list.completed by the clock"):
        different.remove(EVERY_KIND[name])
    ids = [(record.cluster, record_id(record)) for record in different]
    assert len(set(ids)) == len(ids)
    assert record_id(observed()) == record_id(observed(state="oversize")) == record_id(observed(ordering=""))


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
names = texts.filter(bool)
numbers = st.integers(0, wire.INTEGER_MAX)
moments = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC))


@given(
    cluster=names, cluster_name=texts, group=texts, resource=names, namespace=texts, name=names, reach=texts, uid=texts,
    api_version=names, kind=names, manager=texts, operation=texts, subresource=texts,
    resource_version=texts, list_version=texts, epoch=numbers,
    normalization=st.integers(0, wire.NORMALIZATION_MAX),
    body=st.binary(min_size=1), content_hash=st.binary(min_size=16, max_size=16).map(bytes.hex),
    observed_at=moments, managed_at=st.none() | moments,
)  # fmt: skip
def test_any_text_comes_back_as_it_went(**attributes: object) -> None:
    record = observed(**attributes)
    assert decoded(wire.encode(record)) == record


@given(number=st.integers(1, MAX_NUMBER), type=st.sampled_from([RecordType.OBSERVED, RecordType.DELETED]))
def test_any_number_comes_back_as_it_went(**attributes: object) -> None:
    assert decoded(wire.encode(watched(**attributes))) == watched(**attributes)


def without(name: str, record: Record | None = None) -> wire.Message:
    key, value, headers = wire.encode(record or observed())
    return wire.Message(key, value, [header for header in headers if header[0] != name])


def replaced(name: str, value: bytes, record: Record | None = None) -> wire.Message:
    key, body, headers = without(name, record)
    return wire.Message(key, body, [*headers, (name, value)])


def without_session(record: Record) -> Record:
    return msgspec.structs.replace(record, session="")


def refused() -> Iterator[tuple[str, wire.Message, str]]:
    key, value, headers = wire.encode(observed())
    yield "no value", wire.Message(key, None, headers), "value"  # type: ignore[arg-type]
    yield "empty value", wire.Message(key, b"", headers), "value"
    yield "no key", wire.Message(None, value, headers), "key"  # type: ignore[arg-type]
    yield "key that is no array", wire.Message(b'"x"', value, headers), "key"
    yield "key of four", wire.Message(b'["a","b","c","d"]', value, headers), "key"
    yield "key that is not UTF-8", wire.Message(b'["\xff","","","",""]', value, headers), "key"
    yield "key with NUL", wire.Message(b'["a\\u0000","","","",""]', value, headers), "NUL"
    yield "key with half a pair", wire.Message(b'["a\\ud800","","","",""]', value, headers), "key"
    yield "key of no cluster", wire.Message(b'["","","","",""]', value, headers), "cluster"
    yield "another cluster", replaced("ce_source", b"/clusters/other"), "ce_source"
    yield "another object", replaced("ce_subject", b"apps/deployments/shop/other"), "ce_subject"
    yield "no CloudEvent", without("ce_specversion"), "ce_specversion"
    yield "CloudEvents 0.3", replaced("ce_specversion", b"0.3"), "ce_specversion"
    yield "unknown type", replaced("ce_type", b"io.clusterinfo.resource.observed.v2"), "ce_type"
    yield "no id", without("ce_id"), "ce_id"
    yield "no time", without("ce_time"), "ce_time"
    yield "time without zone", replaced("ce_time", b"2026-11-22T12:00:00"), "ce_time"
    yield "time out of range", replaced("ce_time", b"0001-01-01T00:00:00+10:00"), "ce_time"
    yield "the last moment, which is infinity", replaced("ce_time", b"9999-12-31T23:59:59.999999Z"), "ce_time"
    yield "the first moment, which is -infinity", replaced("ce_time", b"0001-01-01T00:00:00Z"), "ce_time"
    yield "time that is none", replaced("ce_time", b"noon"), "ce_time"
    yield "negative epoch", replaced("ce_epoch", b"-1"), "ce_epoch"
    yield "large epoch", replaced("ce_epoch", b"2147483648"), "ce_epoch"
    yield "epoch in other digits", replaced("ce_epoch", "\u0661".encode()), "ce_epoch"
    yield "normalization beyond its column", replaced("ce_normalization", b"32768"), "ce_normalization"
    yield "empty normalization", replaced("ce_normalization", b""), "ce_normalization"
    yield "short hash", replaced("ce_contenthash", b"abc"), "ce_contenthash"
    yield "hash in capitals", replaced("ce_contenthash", b"A" * 32), "ce_contenthash"
    yield "no hash", without("ce_contenthash"), "content_hash"
    yield "no kind", without("ce_kind"), "kind"
    yield "no apiVersion", without("ce_apiversion"), "api_version"
    yield "list that is no UUIDv7", replaced("ce_list", b"5180eaa4-7a47-4e30-81ab-2135c8f2a0e5"), "UUIDv7"
    yield "list of a year beyond 9999", replaced("ce_list", b"ffffffff-ffff-7cc3-98c4-dc0c0c07398f"), "UUIDv7"
    yield "unknown ordering", replaced("ce_ordering", b"version"), "ce_ordering is 'version', expected clock or none"
    yield "an ordering in capitals", replaced("ce_ordering", b"Clock"), "ce_ordering"
    yield "unknown state", replaced("ce_state", b"small"), "ce_state"
    yield "a number without a session", without("ce_session", watched()), "belong together"
    yield "a session without a number", without("ce_number", watched()), "belong together"
    yield "the number 0", replaced("ce_number", b"0", watched()), "belong together"
    yield "no number", replaced("ce_number", b"1.0", watched()), "ce_number"
    yield "a number beyond a bigint", replaced("ce_number", b"9223372036854775808", watched()), "ce_number"
    yield "a number of 4,301 digits", replaced("ce_number", b"9" * 4301, watched()), "ce_number"
    yield "a session that is no UUIDv7", replaced("ce_session", b"5180eaa4-7a47-4e30-81ab-2135c8f2a0e5"), "ce_session"
    yield "a number of what was listed", replaced("ce_list", LIST.encode(), watched()), "only what is watched"
    yield "who wrote in no time", replaced("ce_managedat", b"noon"), "ce_managedat"
    yield "who wrote in infinity", replaced("ce_managedat", b"9999-12-31T23:59:59.999999Z"), "ce_managedat"
    progress = EVERY_KIND["watch.progress"]
    yield "no partition", without("ce_partition", progress), "needs ce_partition"
    yield "a partition below 0", replaced("ce_partition", b"-1", progress), "ce_partition"
    yield "progress of no session", without("ce_number", without_session(progress)), "session is missing"
    failed = statement(RecordType.LIST_FAILED, resource="pods", list=LIST, session=SESSION, number=1)
    yield "a number of a list", wire.encode(failed), "only what is watched"
    of_pods = statement(RecordType.WATCH_ENDED, session=SESSION, number=1, partition=0, resource="pods")
    yield "a kind of its own", wire.encode(of_pods), "a key that names the cluster alone"
    yield "NUL", replaced("ce_uid", b"a\0b"), "NUL"
    yield "not UTF-8", replaced("ce_uid", b"\xff"), "UTF-8"
    yield "a key of more than 64 KiB", wire.Message(key + b" " * 65_536, value, headers), "the key has"
    yield "65 headers", wire.Message(key, value, [*headers, *((f"h{n}", b"") for n in range(65))][:65]), "65 headers"
    yield "more than 64 KiB", wire.Message(key, value, [*headers, ("h", b"x" * 65_536)]), "larger than 65536 bytes"
    yield "a name that is no UTF-8", wire.Message(key, value, [*headers, ("a\udcff", b"")]), "name of a header"
    for version in (b"4611686018427387905", b"9" * 4301):
        ours = wire.encode(observed(ordering=""))
        kept = [header for header in ours.headers if header[0] != "ce_listversion"]
        yield f"a version of {len(version)} digits", ours._replace(headers=[*kept, ("ce_listversion", version)]), "2^62"
    yield "an attribute twice", wire.Message(key, value, [*headers, ("ce_uid", b"u-2")]), "more than once"
    for kind, missing in ((RecordType.LIST_COMPLETED, "ce_list"), (RecordType.SNAPSHOT_STARTED, "ce_snapshot")):
        headers_ = [("ce_type", kind.value.encode()) if name == "ce_type" else (name, text) for name, text in headers]
        yield kind.value, wire.Message(key, value, [header for header in headers_ if header[0] != missing]), missing[3:]


@pytest.mark.parametrize(("message", "expected"), [case[1:] for case in refused()], ids=[case[0] for case in refused()])
def test_what_is_wrong_is_refused_in_one_line(message: wire.Message, expected: str) -> None:
    with pytest.raises(RecordError) as refusal:
        decoded(message)
    reason = str(refusal.value)
    assert expected in reason
    assert "\n" not in reason
    assert len(reason) < 250


def test_a_reason_quotes_little_and_no_body() -> None:
    with pytest.raises(RecordError) as refusal:
        decoded(replaced("ce_type", b"x" * 10_000 + b"\n"))
    assert len(str(refusal.value)) < 150
    with pytest.raises(RecordError) as refusal:
        decoded(replaced("ce_type", b"?")._replace(value=b"s3cret"))
    assert "s3cret" not in str(refusal.value)


def test_a_version_that_orders_nothing_may_be_of_any_size_where_the_clock_does() -> None:
    assert decoded(wire.encode(observed(list_version="9" * 4301))).list_version == "9" * 4301
    assert decoded(wire.encode(observed(list_version=str(2**62), ordering=""))).list_version == str(2**62)


def test_what_records_have_alike_is_their_own() -> None:
    """Each attribute of a page's records, which is read once a page, in another one beside it; and what is refused."""
    others = [
        observed(ordering=""), observed(state="oversize"), observed(epoch=3), observed(list=""), observed(reach=""),
        observed(snapshot=""), observed(kind="K"), observed(api_version="v1"), observed(list_version="98"),
        observed(normalization=4), observed(cluster_name="x"), observed(observed_at=NOON + dt.timedelta(1)),
        observed(type=RecordType.DELETED),
    ]  # fmt: skip
    for _ in range(2):
        for record in (observed(), *others):
            assert decoded(wire.encode(record)) == record
        with pytest.raises(RecordError):
            decoded(replaced("ce_state", b"small"))


def test_headers_of_others_do_no_harm() -> None:
    key, value, headers = wire.encode(observed())
    others: list[tuple[str, bytes | None]] = [*headers, ("traceparent", b"1"), ("traceparent", b"2"), ("empty", None)]
    assert wire.decode(key, value, others, 7) == msgspec.structs.replace(observed(), offset=7)


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    assert decoded(replaced("ce_time", b"2026-11-22T14:00:00.000005+02:00")).observed_at == NOON
    zone = dt.timezone(dt.timedelta(hours=2))
    assert wire.encode(observed(observed_at=NOON.astimezone(zone))) == wire.encode(observed())


@pytest.mark.parametrize(
    "record",
    [observed(body=b""), observed(name="\ud800"), observed(observed_at=NOON.replace(tzinfo=None))],
    ids=["no body", "half a surrogate pair", "no time zone"],
)
def test_what_cannot_be_encoded_is_not_sent(record: Record) -> None:
    with pytest.raises(RecordError):
        wire.encode(record)
