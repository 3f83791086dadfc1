from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import xxhash

from clusterinfo.errors import RecordError
from clusterinfo.json_repair import MAX_DEPTH
from clusterinfo.kubernetes import pages
from clusterinfo.kubernetes.normalize import NormalizedObject, _decoded, _searched, normalize
from clusterinfo.kubernetes.pages import parse_page, scan_object
from clusterinfo.kubernetes.redaction import objects, replicas
from clusterinfo.kubernetes.redaction.names import Verdict, looks_secret
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.patch import find
from clusterinfo.kubernetes.redaction.replicas import Replicas, Unchanged
from clusterinfo.kubernetes.redaction.search import holds_hint
from clusterinfo.kubernetes.redaction.values import is_harmless
from clusterinfo.model import GroupVersionResource

RECORDED = Path(__file__).parents[2] / "recorded"
KINDS = {
    "list-clusterroles": GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    "list-configmaps": GroupVersionResource("", "v1", "configmaps", "ConfigMap", True),
    "list-crds": GroupVersionResource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
    ),
    "list-deployments": GroupVersionResource("apps", "v1", "deployments", "Deployment", True),
    "list-namespaces": GroupVersionResource("", "v1", "namespaces", "Namespace", False),
    "list-nodes": GroupVersionResource("", "v1", "nodes", "Node", False),
    "list-pods-page-1": GroupVersionResource("", "v1", "pods", "Pod", True),
    "list-secrets": GroupVersionResource("", "v1", "secrets", "Secret", True),
    "list-services": GroupVersionResource("", "v1", "services", "Service", True),
    "list-widgets": GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", True),
}
PODS, SECRETS, WIDGETS = KINDS["list-pods-page-1"], KINDS["list-secrets"], KINDS["list-widgets"]
DEPLOYMENTS, CONFIGMAPS = KINDS["list-deployments"], KINDS["list-configmaps"]
KEYLESS = Redaction()


def recorded(name: str) -> bytes:
    body: str = json.loads((RECORDED / f"{name}.json").read_text())["body"]
    return body.encode()


def compact(tree: Any) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def normalized(tree: Any, gvr: GroupVersionResource, redaction: Redaction = KEYLESS) -> Any:
    return json.loads(normalize(compact(tree), gvr, redaction).body)


def hidden(value: bytes, gvr: GroupVersionResource, field: str, namespace: str = "ns") -> str:
    """What stands for a value with the key that tests use."""
    return Redaction(b"k").fingerprint(value, gvr.dotted, namespace, field)


def named(**members: Any) -> dict[str, Any]:
    return {"metadata": {"name": "one", "namespace": "ns"}, **members}


# --- against a reference that works on trees -------------------------------------------------------------------------


def reference(item: dict[str, Any], gvr: GroupVersionResource) -> dict[str, Any]:
    """The rules of normalisation over a JSON tree, as far as the recorded objects need them."""
    tree = _without(item)
    if gvr.resource == "secrets":
        tree["data"] = {key: _length_class(base64.b64decode(value)) for key, value in tree["data"].items()}
    if gvr.resource == "widgets" and "credentials" in tree["spec"]:
        password = tree["spec"]["credentials"]["password"]
        tree["spec"]["credentials"]["password"] = _length_class(password.encode())
    return {"apiVersion": gvr.api_version, "kind": gvr.kind, **tree}


def _without(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without(element) for element in tree]
    if not isinstance(tree, dict):
        return tree
    kept = {k: _without(v) for k, v in tree.items() if k != "managedFields" and "last-applied" not in k}
    if tree.get("annotations") and not kept["annotations"]:
        del kept["annotations"]
    return kept


def _length_class(value: bytes) -> str:
    limit = 16
    while limit < len(value):
        limit *= 2
    return f"redacted:len<={limit}"


@pytest.mark.parametrize(("name", "gvr"), KINDS.items())
def test_splicing_gives_what_a_tree_gives(name: str, gvr: GroupVersionResource) -> None:
    body = recorded(name)

    found = [normalize(item, gvr, KEYLESS) for item in parse_page(body).items]

    assert [json.loads(one.body) for one in found] == [reference(item, gvr) for item in json.loads(body)["items"]]
    for one, item in zip(found, json.loads(body)["items"], strict=True):
        metadata = item["metadata"]
        assert one.name == metadata["name"]
        assert one.namespace == metadata.get("namespace", "")
        assert (one.uid, one.resource_version) == (metadata["uid"], metadata["resourceVersion"])
        assert (one.api_version, one.kind) == (gvr.api_version, gvr.kind)
        assert one.body.startswith(b'{"apiVersion":"%s","kind":"%s"' % (gvr.api_version.encode(), gvr.kind.encode()))


@pytest.mark.parametrize("version", [{}, {"resourceVersion": ""}, {"resourceVersion": None}], ids=["none", "", "null"])
def test_without_a_version_the_content_is_the_version(version: dict[str, Any]) -> None:
    def normalized(replicas: int, **labels: str) -> NormalizedObject:
        metadata = {"name": "a", "namespace": "x", "labels": labels, **version}
        raw = json.dumps({"metadata": metadata, "spec": {"replicas": replicas}}).encode()
        return normalize(raw, DEPLOYMENTS, KEYLESS)

    one = normalized(1)
    assert one.resource_version == one.content_hash
    assert len(one.resource_version) == 32
    assert normalized(1).resource_version == one.resource_version
    assert len({found.resource_version for found in (one, normalized(2), normalized(1, app="web"))}) == 3
    assert one.resource_version.encode() not in one.body, "the object is stored as it came"


@pytest.mark.parametrize(("name", "gvr"), KINDS.items())
@pytest.mark.parametrize("redaction", [KEYLESS, Redaction(b"key")], ids=["without key", "with key"])
def test_no_recorded_secret_leaves(name: str, gvr: GroupVersionResource, redaction: Redaction) -> None:
    tree = json.loads(recorded(name))
    canaries = {"hunter2", base64.b64encode(b"hunter2").decode().rstrip("=")[:-1]}
    if gvr is SECRETS:
        canaries |= {value for item in tree["items"] for value in item["data"].values()}

    bodies = b"\n".join(normalize(item, gvr, redaction).body for item in parse_page(recorded(name)).items).decode()

    assert [canary for canary in canaries if canary in bodies] == []
    assert "managedFields" not in bodies
    assert "last-applied" not in bodies


# --- identity and hash -----------------------------------------------------------------------------------------------


def test_the_items_own_version_and_kind_are_kept_and_come_first() -> None:
    one = normalize(compact(named(kind="Other", apiVersion="shop.example.com/v2")), WIDGETS, KEYLESS)

    assert (one.api_version, one.kind) == ("shop.example.com/v2", "Other")
    assert one.body.startswith(b'{"apiVersion":"shop.example.com/v2","kind":"Other","metadata":')


@pytest.mark.parametrize("size", [1, 70_000])
@pytest.mark.parametrize("version", [b"", b'"resourceVersion":"5",'])
def test_the_hash_of_a_large_object_is_made_as_that_of_a_small_one(size: int, version: bytes) -> None:
    text = b"x" * size
    one = normalize(b'{"spec":"%s","a":1,"metadata":{%s"name":"x","labels":{}}}' % (text, version), PODS, KEYLESS)

    assert one.content_hash == xxhash.xxh3_128_hexdigest(b'"labels":{}\n"name":"x"\n\n"a":1\n"spec":"%s"' % text)
    assert one.body == (
        b'{"apiVersion":"v1","kind":"Pod","metadata":{%s"name":"x","labels":{}},"spec":"%s","a":1}' % (version, text)
    )


def test_the_hash_is_that_of_the_sorted_content() -> None:
    one = normalize(b'{"spec":{"b":1,"a":2},"metadata":{"resourceVersion":"5","name":"x"}}', PODS, KEYLESS)

    assert one.content_hash == xxhash.xxh3_128_hexdigest(b'"name":"x"\n\n"spec":{"b":1,"a":2}')


@pytest.mark.parametrize(
    "other",
    [
        {"metadata": {"name": "one", "namespace": "ns", "resourceVersion": "6"}, "spec": {"a": 1}},
        {"spec": {"a": 1}, "metadata": {"namespace": "ns", "name": "one"}},
        {"metadata": {"name": "one", "namespace": "ns", "managedFields": [{"manager": "x"}]}, "spec": {"a": 1}},
        {"kind": "Pod", "apiVersion": "v2", "metadata": {"name": "one", "namespace": "ns"}, "spec": {"a": 1}},
    ],
    ids=["resourceVersion", "order", "managedFields", "apiVersion"],
)
def test_what_is_no_change_keeps_the_hash(other: dict[str, Any]) -> None:
    before = normalize(compact(named(spec={"a": 1})), PODS, KEYLESS)

    assert normalize(compact(other), PODS, KEYLESS).content_hash == before.content_hash


@pytest.mark.parametrize(
    "other",
    [
        named(spec={"a": 2}),
        named(spec={"a": 1}, status={}),
        {"metadata": {"name": "one", "namespace": "ns", "labels": {}}, "spec": {"a": 1}},
    ],
)
def test_a_change_changes_the_hash(other: dict[str, Any]) -> None:
    before = normalize(compact(named(spec={"a": 1})), PODS, KEYLESS)

    assert normalize(compact(other), PODS, KEYLESS).content_hash != before.content_hash


@pytest.mark.parametrize(
    "raw",
    [
        b"5",
        b"null",
        b"{}",
        b'{"metadata":null}',
        b'{"metadata":{"uid":"x"}}',
        b'{"metadata":{"name":5}}',
        b'{"metadata":{"name":"x"',
        b'{"metadata":{"name":"x",,"namespace":"y"}}',
        b'{"metadata":{"name":"x","uid":5}}',
        b'{"metadata":{"name":1e9999}}',
        b'{"metadata":{"name":NaN}}',
    ],
)
def test_what_is_no_object_is_a_record_error(raw: bytes) -> None:
    with pytest.raises(RecordError):
        normalize(raw, PODS, KEYLESS)


@pytest.mark.parametrize(
    ("raw", "spec"),
    [
        (b'{"metadata":{"name":"x"},"spec":"\xff"}', "\ufffd"),
        (b'{"metadata":{"name":"x","labels":{"a\xff":"b"}},"spec":1}', 1),
        (b'{"metadata":{"name":"x"},"\xfe":1,"spec":2}', 2),
        (b'\xef\xbb\xbf{"metadata":{"name":"x","namespace":null},"spec":[1e9999]}', [float("inf")]),
    ],
)
def test_what_is_no_json_leaves_repaired(raw: bytes, spec: object) -> None:
    one = normalize(raw, PODS, KEYLESS)

    assert (json.loads(one.body)["spec"], one.name, one.is_repaired) == (spec, "x", True)


@pytest.mark.parametrize("place", ["name", "namespace", "uid", "resourceVersion"])
@pytest.mark.parametrize("text", [b"a\xffb", rb"a\u0000b", rb"a\ud800b", b"a\0b"])
def test_an_identity_that_is_no_text_is_not_guessed(place: str, text: bytes) -> None:
    metadata = {b"name": b"x", b"namespace": b"y", b"uid": b"z", b"resourceVersion": b"1", place.encode(): text}
    members = b",".join(b'"%s":"%s"' % pair for pair in metadata.items())

    with pytest.raises(RecordError, match="no Unicode text"):
        normalize(b'{"metadata":{%s}}' % members, PODS, KEYLESS)


@pytest.mark.parametrize("annotations", [b"{}", b"{ }", b"{\n}", rb'{"l\u0061st-applied-configuration":"{}"}'])
def test_annotations_that_hold_nothing_are_not_there(annotations: bytes) -> None:
    one = normalize(b'{"metadata":{"name":"x","annotations":%s}}' % annotations, PODS, KEYLESS)

    assert json.loads(one.body)["metadata"] == {"name": "x"}


def test_a_name_may_hold_a_replacement_character_of_its_own() -> None:
    assert normalize('{"metadata":{"name":"\ufffd"}}'.encode(), PODS, KEYLESS).name == "\ufffd"


@pytest.mark.parametrize("value", [b'"aHVudGVy\xffMg=="', b'"aHVudGVyMg==\n"', rb'"aHVudGVyMg==\ud800"'])
def test_a_secret_that_had_to_be_repaired_tells_nothing(value: bytes) -> None:
    one = normalize(b'{"metadata":{"name":"x"},"data":{"password":%s}}' % value, SECRETS, KEYLESS)

    assert list(json.loads(one.body)["data"]) == ["password"]
    assert b"aHVudGVy" not in one.body


def test_an_error_quotes_nothing_of_a_secret() -> None:
    with pytest.raises(RecordError) as caught:
        normalize(b'{"metadata":{},"data":{"password":"hunter2"}}', SECRETS, KEYLESS)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "member",
    [b'"spec":' + b"[" * 3000 + b"]" * 3000, rb'"spec":{"x":"\ud800"}', rb'"x\ud800":1', b'"spec":1e999999'],
    ids=["depth", "lone surrogate", "lone surrogate in a name", "number"],
)
def test_what_the_database_may_refuse_still_leaves_as_it_is(member: bytes) -> None:
    one = normalize(b'{"metadata":{"name":"x"},' + member + b"}", PODS, KEYLESS)

    assert one.body == b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},' + member + b"}"


# --- what is removed -------------------------------------------------------------------------------------------------

COPIES = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "kopf.zalando.org/last-handled-configuration",
    "objectset.rio.cattle.io/applied",
    "kapp.k14s.io/original",
    "banzaicloud.com/last-applied",
]


@pytest.mark.parametrize("annotation", COPIES)
def test_copies_are_removed_wherever_they_occur(annotation: str) -> None:
    annotations = {annotation: '{"password":"hunter2"}', "kept": "yes"}
    template = {"metadata": {"annotations": annotations, "managedFields": [{}]}, "spec": {"x": 1.50}}
    tree = named(spec={"template": template, "list": [template]})
    tree["metadata"]["annotations"] = annotations

    found = normalized(tree, DEPLOYMENTS)

    clean = {"metadata": {"annotations": {"kept": "yes"}}, "spec": {"x": 1.5}}
    assert found["spec"] == {"template": clean, "list": [clean]}
    assert found["metadata"]["annotations"] == {"kept": "yes"}


@pytest.mark.parametrize("depth", [100, 300, 999, 1500, 20_000])
@pytest.mark.parametrize("inner", [b'{"managedFields":[5]}', b'{"x":"last-applied"}'])
def test_what_must_go_goes_however_deep_it_lies(depth: int, inner: bytes) -> None:
    item = b'{"metadata":{"name":"x"},"spec":' + b'{"a":' * depth + inner + b"}" * depth + b',"status":1}'

    one = normalize(item, PODS, KEYLESS)

    assert b"managedFields" not in one.body
    assert one.body.endswith(b',"status":1}')
    assert not one.is_repaired or depth > MAX_DEPTH


def test_no_level_costs_a_search_of_all_below_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nested deep is large too: an object of 1.5 MB must not be read 1,500 times."""
    item = b'{"metadata":{"name":"x"},"spec":' + b'{"a":' * 1500 + b'{"managedFields":[]}' + b"}" * 1501
    read: list[int] = []

    def scan(data: bytes) -> Iterator[tuple[str, bytes]]:
        read.append(len(data))
        return scan_object(data)

    monkeypatch.setattr(pages, "scan_object", scan)

    assert b"managedFields" not in normalize(item, PODS, KEYLESS).body
    assert sum(read) < 5 * len(item)


def test_what_only_mentions_managed_fields_stays_as_it_is() -> None:
    data = {"rego": 'input.object["managedFields"] kubectl.kubernetes.io/last-applied-configuration'}
    schema = {"managedFields": {"type": "array"}}

    assert normalized(named(data=data), CONFIGMAPS)["data"] == data
    assert normalized(named(spec=schema), WIDGETS)["spec"] == schema


def test_numbers_around_what_is_removed_are_not_written_anew() -> None:
    raw = b'{"metadata":{"name":"x"},"spec":{"managedFields":[],"big":123456789012345678901234567890,"f":1.50}}'

    assert normalize(raw, PODS, KEYLESS).body.endswith(b'"spec":{"big":123456789012345678901234567890,"f":1.50}}')


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_keeps_its_keys_and_shows_a_rotation_with_a_key() -> None:
    value = base64.b64encode(b"hunter2").decode()

    found = normalized(named(data={"a": value, "b": value}, stringData={"c": "hunter2"}), SECRETS, Redaction(b"k"))

    assert found["data"] == {"a": hidden(b"hunter2", SECRETS, "a"), "b": hidden(b"hunter2", SECRETS, "b")}
    assert found["stringData"] == {"c": hidden(b"hunter2", SECRETS, "c")}
    assert hidden(b"hunter3", SECRETS, "a") != hidden(b"hunter2", SECRETS, "a")


@pytest.mark.parametrize(("length", "limit"), [(0, 16), (1, 16), (16, 16), (17, 32), (32, 32), (33, 64), (5000, 8192)])
def test_without_a_key_only_the_length_class_is_shown(length: int, limit: int) -> None:
    assert KEYLESS.fingerprint(b"x" * length, "secrets", "ns", "a") == f"redacted:len<={limit}"


@pytest.mark.parametrize("data", ["hunter2", ["hunter2"], 5, {"a": {"b": "hunter2"}}, {"a": ["hunter2"]}, {"a": "?"}])
def test_a_secret_of_any_shape_tells_nothing(data: Any) -> None:
    found = compact(normalized(named(data=data), SECRETS))

    assert b"hunter2" not in found
    assert b'"?"' not in found


def test_an_empty_secret_stays_empty() -> None:
    assert normalized(named(data=None, stringData={}), SECRETS)["data"] is None


def test_secrets_wrapped_in_other_objects_are_redacted() -> None:
    wrapped = {"kind": "Secret", "apiVersion": "v1", "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter2"}}
    tree = named(spec={"manifests": [wrapped], "inner": {"kind": "List", "items": [wrapped]}})

    found = compact(normalized(tree, WIDGETS))

    assert b"aHVudGVyMg==" not in found
    assert b"hunter2" not in found
    assert found.count(b'"kind":"Secret"') == 2


def test_configmap_values_are_redacted_on_demand_only() -> None:
    tree = named(data={"a": "plain"}, binaryData={"b": "cGxhaW4="})

    assert normalized(tree, CONFIGMAPS) == {"apiVersion": "v1", "kind": "ConfigMap", **tree}
    found = normalized(tree, CONFIGMAPS, Redaction(b"k", configmap_values=True))
    assert found["data"]["a"] == hidden(b"plain", CONFIGMAPS, "a")
    assert found["binaryData"]["b"] == hidden(b"plain", CONFIGMAPS, "b")


def _workload(*env: dict[str, Any]) -> dict[str, Any]:
    return named(spec={"template": {"spec": {"containers": [{"name": "main", "env": list(env)}]}}})


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_environment_values_with_secret_names_are_redacted(separators: tuple[str, str]) -> None:
    raw = json.dumps(
        _workload(
            {"name": "DB_PASSWORD", "value": 'hunter2 "quoted" \\ é'},
            {"name": "DB_HOST", "value": "db"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
            {"name": "SECRET_NAME", "value": "kept"},
        ),
        separators=separators,
    ).encode()

    found = json.loads(normalize(raw, DEPLOYMENTS, Redaction(b"k")).body)

    env = found["spec"]["template"]["spec"]["containers"][0]["env"]
    expected = hidden('hunter2 "quoted" \\ é'.encode(), DEPLOYMENTS, "DB_PASSWORD")
    assert [entry.get("value") for entry in env] == [expected, "db", None, "kept"]
    assert env[2]["valueFrom"]["secretKeyRef"]["key"] == "token"


def test_fields_of_custom_resources_with_secret_names_are_redacted() -> None:
    spec = {
        "password": "hunter2",
        "pin": {"apiToken": 12345, "number": 12, "tokens": ["hunter2", {"name": "kept"}]},
        "env": [{"name": "API_KEY", "value": "hunter2"}, {"name": "COLOUR", "value": "red"}],
        "passwordSecretRef": {"name": "kept", "key": "password"},
        "secretName": "kept",
        "tokenExpirationSeconds": 3600,
        "automountServiceAccountToken": True,
    }

    found = normalized(named(spec=spec, token="hunter2"), WIDGETS)

    assert "hunter2" not in json.dumps(found)
    assert found["spec"] == {
        "password": "redacted:len<=16",
        "pin": {"apiToken": 12345, "number": 12, "tokens": ["redacted:len<=16", {"name": "kept"}]},
        "env": [{"name": "API_KEY", "value": "redacted:len<=16"}, {"name": "COLOUR", "value": "red"}],
        **{k: spec[k] for k in list(spec)[3:]},
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("password", True),
        ("DB_PASSWORD", True),
        ("adminPasswd", True),
        ("apiKey", True),
        ("API-KEY", True),
        ("secretKey", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("privateKey", True),
        ("SECRET_KEY_BASE", True),
        ("authToken", True),
        ("clientSecret", True),
        ("credentials", True),
        ("secretName", False),
        ("passwordSecretRef", False),
        ("tokenPath", False),
        ("TOKEN_FILE", False),
        ("publicKey", False),
        ("key", False),
        ("keys", False),
        ("compass", False),
        ("author", False),
        ("", False),
        ("123", False),
    ],
)
def test_names_that_look_secret(name: str, expected: bool) -> None:
    assert looks_secret(name) is expected


HIDDEN = "redacted:len<=16"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://app:hunter2@db:5432/x", f"postgres://app:{HIDDEN}@db:5432/x"),
        ("jdbc:postgresql://u:p@h/db", f"jdbc:postgresql://u:{HIDDEN}@h/db"),
        ("redis://:secret@h", f"redis://:{HIDDEN}@h"),
        ("amqp://u:@h", f"amqp://u:{HIDDEN}@h"),
        ("https://user:pa%40ss@h", f"https://user:{HIDDEN}@h"),
        ("http://u:p@[::1]:80/", f"http://u:{HIDDEN}@[::1]:80/"),
        ("mongodb://u:p@h1:1,h2:2/db", f"mongodb://u:{HIDDEN}@h1:1,h2:2/db"),
        ("postgres://me@corp:pw@db/x", f"postgres://me@corp:{HIDDEN}@db/x"),
        ("docker://u:p@r/app@sha256:abc", f"docker://u:{HIDDEN}@r/app@sha256:abc"),
        # passwords as they are, not as RFC 3986 wants them
        ("postgres://app:p/ss#word@db:5432/x", f"postgres://app:{HIDDEN}@db:5432/x"),
        ("postgres://app:p@ssw0rd@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:p?ss@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:p&w<x>\\y@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:pa\\ness@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:a://b@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:123@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:123456/x@db/x", f"postgres://app:{HIDDEN}@db/x"),
        ("postgres://app:${PW:-hunter2}@db/x", f"postgres://app:{HIDDEN}@db/x"),
        (r"smb://CORP\tom:pw@h", rf"smb://CORP\tom:{HIDDEN}@h"),
        ("postgres://ünï:pä/ß@h", f"postgres://ünï:{HIDDEN}@h"),
        # tokens, and users who are none
        ("https://ghp_hunter2@github.com/a", f"https://{HIDDEN}@github.com/a"),
        ("https://a&b@h", f"https://{HIDDEN}@h"),
        ("https://me@corp:pw@h", f"https://{HIDDEN}@h"),
        ("https://ghp_2:@github.com/a", f"https://{HIDDEN}@github.com/a"),
        ("https://a:x-oauth-basic@github.com/a", f"https://{HIDDEN}@github.com/a"),
        ("nats://hunter2@h:4222/a@b", f"nats://{HIDDEN}@h:4222/a@b"),
        # several
        ("a=b://u:p@h c=d://u:p@h", f"a=b://u:{HIDDEN}@h c=d://u:{HIDDEN}@h"),
        ("amqp://u:p/q@h1;amqp://u:p#q@h2", f"amqp://u:{HIDDEN}@h1;amqp://u:{HIDDEN}@h2"),
        ("http://a:80,http://u:p@b", f"http://a:80,http://u:{HIDDEN}@b"),
        ("http://a:x,http://u:p@b", f"http://a:x,http://u:{HIDDEN}@b"),
        ('["http://u:p@h","me@x"]', f'["http://u:{HIDDEN}@h","me@x"]'),
        ("a://u:p/x@h\nme@y\tb://u:p@c", f"a://u:{HIDDEN}@h\nme@y\tb://u:{HIDDEN}@c"),
        ("a://u:p@h\u00a0me@y", f"a://u:{HIDDEN}@h\u00a0me@y"),
        # JSON within the text
        (r'{"url":"db:\/\/u:p\/w@h\/x","m":"a@b"}', rf'{{"url":"db:\/\/u:{HIDDEN}@h\/x","m":"a@b"}}'),
        (r'{"url":"db://u:p@h\nme@x"}', rf'{{"url":"db://u:{HIDDEN}@h\nme@x"}}'),
    ],
)
def test_userinfo_in_urls_is_redacted_everywhere(text: str, expected: str) -> None:
    assert shown_everywhere(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "homepage: https://docs.example.com\nmaintainer@example.com\n",
        "see http://a.example.com,admin@example.com",
        "'http://a.example.com','me@example.com'",
        "<http://a.example.com>,<me@example.com>",
        r'{"url":"https:\/\/docs.example.com\nme@example.com"}',
        r'{"url":"http://docs.example.com:8080\nme@example.com"}',
        "mail me@example.com or see https://example.com",
        "http://u:no password ends here@h",
        "host:8080/path@x",
        "https://a.example.com/x@y",
        "https://a.example.com/path?to=x@y.z",
        "https://a.example.com/path:to/x@y.z",
        "https://example.com:8443/a@b",
        "https://example.com:8443?a@b",
        r'{"url":"https:\/\/example.com:8443\/a@b"}',
        "http://[::1]:80/a@b",
        "http://[fe80::1%25eth0]:80/a:c@b",
        "file:///etc/a:b@c",
        "ssh://git@github.com/a",
        "git+ssh://git@github.com:org/repo.git@v1",
        "git+https://git@github.com/org/repo@v1",
        "ssh://me@host:22/x@y",
        "postgresql+asyncpg://app@db/x",
        "docker-pullable://nginx@sha256:abc",
        "docker-pullable://registry:5000/nginx@sha256:abc",
        "postgres://u:$(PW)@h",
        "postgres://${USER}:${PW}@h",
        "postgres://u:{{.Values.pw}}@h",
        "https://${TOKEN}@github.com/a",
    ],
)
def test_what_holds_no_password_stays_as_it_is(text: str) -> None:
    assert shown_everywhere(text) == text


def shown_everywhere(text: str) -> str:
    """What becomes of a text, in an annotation as in the data, written as Go's encoder writes it."""
    tree = named(data={"url": text})
    tree["metadata"]["annotations"] = {"url": text}
    raw = compact(tree)
    for character in "&<>\u00a0":
        raw = raw.replace(character.encode(), rf"\u{ord(character):04x}".encode())
    found = json.loads(normalize(raw, CONFIGMAPS, KEYLESS).body)
    assert found["data"]["url"] == found["metadata"]["annotations"]["url"]
    return str(found["data"]["url"])


def test_escaped_slashes_are_slashes() -> None:
    raw = rb'{"metadata":{"name":"a"},"data":{"url":"db:\/\/u:p\/w@h\/x","other":"http:\/\/h:80\/a@b"}}'

    body = normalize(raw, CONFIGMAPS, Redaction(b"k")).body

    shown = hidden(b"p/w", CONFIGMAPS, "url", "").encode()
    assert rb'{"url":"db:\/\/u:' + shown + rb'@h\/x","other":"http:\/\/h:80\/a@b"}' in body


def test_a_password_has_one_fingerprint_however_json_spells_it() -> None:
    shown = hidden(b"a&b/c", CONFIGMAPS, "url", "").encode()

    for spelling in (rb"a&b/c", rb"a\u0026b\/c"):
        raw = rb'{"metadata":{"name":"a"},"data":{"url":"db://u:' + spelling + rb'@h"}}'
        assert b"db://u:" + shown + b"@h" in normalize(raw, CONFIGMAPS, Redaction(b"k")).body


def test_a_configmap_keeps_all_that_is_not_a_password() -> None:
    data = {
        "mangled": "homepage: https://docs.example.com\nmaintainer@example.com\n",
        "mangled2": "see http://a.example.com,admin@example.com",
        "leaks-all": "postgres://app:p/ss#word@db:5432/x",
        "leaks-half": "postgres://app:p@ssw0rd@db/x",
    }

    found = normalized(named(data=data), CONFIGMAPS)

    assert found["data"] == data | {
        "leaks-all": f"postgres://app:{HIDDEN}@db:5432/x",
        "leaks-half": f"postgres://app:{HIDDEN}@db/x",
    }


def test_certificate_requests_are_redacted() -> None:
    csr = GroupVersionResource("certificates.k8s.io", "v1", "certificatesigningrequests", "X", namespaced=False)

    found = normalized(named(spec={"request": "aHVudGVyMg==", "usages": ["client auth"]}), csr, Redaction(b"k"))

    assert found["spec"] == {"request": hidden(b"hunter2", csr, "request"), "usages": ["client auth"]}


def test_a_normalised_body_is_json_without_white_space_of_its_own() -> None:
    body = normalize(compact(named(spec={"a": 1})), PODS, KEYLESS).body

    assert re.search(rb"\s", body) is None


POD = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"1"},"spec":{"nodeName":"a"}}'


@pytest.mark.parametrize(
    ("change", "times"),
    [
        ((b"", b""), 1),
        ((b'"resourceVersion":"1"', b'"resourceVersion":"2"'), 1),
        ((b'"resourceVersion":"1"', b'"resourceVersion":"p://u:hunter2@h"'), 2),
        ((b'"name":"a"', b'"name":"b"'), 2),
        ((b'"Pod"', b'"Secret"'), 1),
        ((b'"v1"', b'"v2"'), 1),
        ((b'"nodeName":"a"', b'"nodeName":"b"'), 2),
    ],
)
def test_what_stays_as_it_was_is_searched_once(
    change: tuple[bytes, bytes], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, redaction = POD.replace(*change), Redaction()
    expected = normalize(changed, PODS, Redaction())
    search = Mock(side_effect=find)
    monkeypatch.setattr("clusterinfo.kubernetes.redaction.objects.find", search)

    normalize(POD, PODS, redaction)
    item = normalize(changed, PODS, redaction)

    assert search.call_count == times
    assert item == expected
    assert b"hunter2" not in item.body


FIELDS = b'[{"manager":"m","operation":"Update","time":"2026-11-22T09:24:18Z","fieldsV1":{"f:a":{}}}]'


@pytest.mark.parametrize(
    "form",
    [
        b'{"name":"a","managedFields":%s}',
        b'{"managedFields":%s,"name":"a"}',
        b'{"name":"a","managedFields":%s,"uid":"u"}',
        b'{"name":"a","managedFields":%s,"z":[1]}',
        b'{"managedFields":[],"name":"a","managedFields":%s}',
        b'{"name":"a","x":{"y":1,"managedFields":[]},"managedFields":%s}',
        b'{"name":"a" , "managedFields" : %s }',
    ],
)
@pytest.mark.parametrize("fields", [FIELDS, FIELDS.replace(b'"f:a"', rb'"v:[\"]\"]"')], ids=["plain", "brackets"])
def test_managed_fields_are_taken_out_wherever_they_stand(form: bytes, fields: bytes) -> None:
    item = normalize(b'{"metadata":%s}' % (form % fields), PODS, KEYLESS)

    assert b"managedFields" not in item.body
    assert {"name": "a"}.items() <= json.loads(item.body)["metadata"].items()
    assert item.written.manager == "m"


def test_what_is_no_json_before_managed_fields_is_none_without_them() -> None:
    with pytest.raises(RecordError):
        normalize(b'{"metadata":{"name":"a",,"managedFields":%s}}' % FIELDS, PODS, KEYLESS)


@pytest.mark.parametrize("name", KINDS)
def test_who_wrote_last_is_found_by_a_search_as_by_reading_it_all(name: str) -> None:
    found = 0
    for raw in parse_page(recorded(name), KINDS[name].kind).items:
        fields = json.loads(bytes(raw))["metadata"].get("managedFields", [])
        for entries in (fields, fields[::-1], [*fields, *fields[:1]], fields[:1]):
            data = compact(entries)
            searched = _searched(data)
            assert searched == _decoded(data) or (searched is None and not entries)
            found += searched is not None
    assert found


def entry(time: str, manager: str, **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "time": time, "fieldsV1": {"f:time": {}}, **more}


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        (None, ("", "", "", None)),
        ([], ("", "", "", None)),
        (
            [entry("2026-11-22T10:00:02Z", "kubectl"), entry("2026-11-22T10:00:01Z", "kubelet", subresource="status")],
            ("kubectl", "Update", "", "2026-11-22T10:00:02+00:00"),
        ),
        (
            [entry("2026-11-22T10:00:02Z", "kubectl"), entry("2026-11-22T10:00:02Z", "kubelet", subresource="status")],
            ("kubelet", "Update", "status", "2026-11-22T10:00:02+00:00"),
        ),
        ([{"manager": "x", "operation": "Apply"}], ("x", "Apply", "", None)),
        ([entry("yesterday", "x")], ("x", "Update", "", None)),
        ("nobody", ("", "", "", None)),
        ([entry("2026-11-22T10:00:02Z", "a\0b")], ("", "", "", None)),
    ],
)
def test_who_wrote_last(fields: Any, who: tuple[str, str, str, str | None]) -> None:
    metadata = {"name": "x"} | ({} if fields is None else {"managedFields": fields})
    one = normalize(compact({"metadata": metadata}), PODS, KEYLESS)
    at = one.written.at()
    written = one.written
    assert (written.manager, written.operation, written.subresource, at.isoformat() if at else None) == who
    assert one.content_hash == normalize(compact({"metadata": {"name": "x"}}), PODS, KEYLESS).content_hash


def take_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object from now on, with nothing remembered of replicas."""
    monkeypatch.setattr(Redaction, "clean_spec", lambda *_: False)
    monkeypatch.setattr(Replicas, "rewritten", lambda _, spec, key, rewrite: rewrite(spec))


def test_what_is_patched_is_what_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = [
        {"name": "DB_PASSWORD", "value": "hunter2"},
        {"name": "URL", "value": "postgres://u:hunter2@h/x"},
        {"name": "TOKEN", "value": 'hunter2"\n'},
        {"name": "PIN_PATH", "value": "--token hunter2"},
        {"name": "PASSWORD", "value": "$(X)"},
    ]
    raw = compact(named(spec={"containers": [{"name": "main", "env": environment}]}))
    patched = normalize(raw, PODS, Redaction(b"k"))
    take_apart(monkeypatch)

    assert patched == normalize(raw, PODS, Redaction(b"k"))
    assert b"hunter2" not in patched.body


def _replica(volume: str = "kube-api-access-bcdfg", **others: Any) -> dict[str, Any]:
    """What stands in the `spec` of a Pod, `others` around its containers."""
    mount = {"name": volume, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    variable = {"name": "DB_PASSWORD", "value": "hunter2"}
    container = {"name": "main", "env": [variable], "volumeMounts": [mount], "resizePolicy": []}
    return {"containers": [container], "restartPolicy": "Always"} | others


OTHERS: dict[str, dict[str, Any]] = {
    "another token": _replica("kube-api-access-zzzzz"),
    "a password that is called as a token's volume is": {
        "containers": [{"env": [{"name": "kube-api-access-z-pwd", "value": "hunter3"}]}],
        "restartPolicy": "Always",
    },
    "no token": _replica("data"),
    "a secret behind": _replica(hostname="https://u:hunter3@h"),
    "a schema": {"openAPIV3Schema": _replica()},
    "a member of something secret": {"credentials": _replica()},
    "elements of something secret": {"tokens": [_replica()]},
    "a policy within a container": {
        "initContainers": [
            {"args": ["-x"], "restartPolicy": "Always", "env": [{"name": "PASSWORD", "value": "hunter2"}]}
        ],
        **_replica(),
    },
    "a value behind a name": {"name": "DB_PASSWORD", "value": [_replica(), "hunter3"]},
    "in a text": {"note": json.dumps(_replica(), separators=(",", ":"))},
    "twice": {"a": _replica(), "b": _replica("kube-api-access-22222")},
}


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_what_is_remembered_of_a_replica_changes_no_other(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    redaction = Redaction(b"k")
    first, raw = compact(named(spec=_replica())), compact(named(spec=spec))
    assert b"hunter2" not in normalize(first, PODS, redaction).body
    found = normalize(raw, PODS, redaction)
    assert found == normalize(raw, PODS, redaction)
    take_apart(monkeypatch)

    assert found == normalize(raw, PODS, Redaction(b"k"))


NAMES = ("node-1", "node-type", "true", "42", "aws", "my-token", "name", "DB_PASSWORD", 'a"b', "--x", "")


@pytest.mark.parametrize("first", NAMES)
def test_the_node_of_a_replica_is_a_text_like_any_other(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its name stands: as a password, an argument, the name of a variable, or of a member."""
    redaction, found_of = Redaction(b"k"), []
    for node in (first, *NAMES):
        variables = [
            {"name": "TOKEN", "value": node},
            {"name": node, "value": "hunter2"},
            {"value": node, "name": "PW"},
        ]
        references = {"tlsSecret": {"name": node, node: "hunter2"}, "existingSecret": node, "note": f'say "{node}'}
        containers = [{"args": ["--password", node], "env": variables}]
        for spec in ({"values": [node], **references}, {"containers": containers}, {"credentials": {"a": [node]}}):
            raw = compact(named(spec={"x": 1, "password": "hunter2!", "nodeName": node, **spec}))
            found_of.append((raw, normalize(raw, PODS, redaction)))
    take_apart(monkeypatch)

    for raw, found in found_of:
        assert found == normalize(raw, PODS, Redaction(b"k"))


def test_a_placeholder_is_harmless_under_no_name() -> None:
    known = Replicas(Unchanged(), 0)
    for placeholder, bits in itertools.product((known._node, known._volume), itertools.product((0, 1), repeat=5)):
        text, verdict = placeholder.decode()[1:-1], Verdict(True, *map(bool, bits))
        assert not any(is_harmless(text, verdict, name) for name in ("", "token", "secretKey", text[1:]))
        assert not holds_hint(placeholder)


def test_a_replica_is_searched_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    redaction = Redaction(b"k")
    normalize(compact(named(spec=_replica())), PODS, redaction)
    monkeypatch.setattr(objects, "rewrite", lambda *_, **__: pytest.fail("all of it"))

    one = normalize(compact(named(spec=_replica("kube-api-access-22222"))), PODS, redaction)

    assert b"kube-api-access-22222" in one.body


@pytest.mark.parametrize("bound", ["_MAX_KNOWN", "_MAX_KNOWN_BYTES"])
def test_what_is_remembered_of_replicas_is_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, bound, {"_MAX_KNOWN": 3, "_MAX_KNOWN_BYTES": 100}[bound])
    known = Replicas(Unchanged(), 0)

    for number in range(20):
        assert known.rewritten(b'{"a":%d}' % number, "key", lambda spec: spec + b" " * 30) is not None
        assert len(known._known) <= 3


def test_a_member_without_a_name_is_none_that_says_where_a_secret_is() -> None:
    body = normalize(compact(named(spec={"password": {"": "hunter2", "name": "x"}})), WIDGETS, KEYLESS).body

    assert b"hunter2" not in body


def test_what_is_remembered_of_one_namespace_or_kind_is_not_taken_for_another() -> None:
    variable = {"name": "DB_PASSWORD", "value": "hunter2!"}
    redaction, found = Redaction(b"k" * 16), set()
    for spec, gvr, namespace in itertools.product(({"env": [variable]}, _replica()), (PODS, DEPLOYMENTS, PODS), "ab"):
        raw = compact({"metadata": {"name": "x", "namespace": namespace}, "spec": spec})
        body = normalize(raw, gvr, redaction).body
        assert body == normalize(raw, gvr, Redaction(b"k" * 16)).body
        found.add(body.split(b'"DB_PASSWORD","value":')[1][:60])
    assert len(found) == 8
