"""What is remembered of one replica serves another, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction import objects, replicas
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.replicas import Replicas, Unchanged
from clusterinfo.kubernetes.redaction.walk import walk
from clusterinfo.model import GroupVersionResource

PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
KEY = b"k" * 16
SPEC = (
    b'{"containers":[{"env":[{"name":"DB_PASSWORD","value":"hunter2"}],"volumeMounts":[{"name":"kube-api-access-%b"}]}]'
    b',"nodeName":"%b","volumes":[{"name":"kube-api-access-%b"}]}'
)


def spec_of(volume: bytes = b"bcdfg", node: bytes = b"node-1") -> bytes:
    return SPEC % (volume, node, volume)


def raw_of(spec: bytes, namespace: bytes = b"a", more: bytes = b"") -> bytes:
    return b'{"metadata":{"name":"x","namespace":"%b"},"spec":%b%b}' % (namespace, spec, more)


def plain(raw: bytes, redaction: Redaction, gvr: GroupVersionResource = PODS) -> bytes:
    """The body by a walk through all of it, with nothing remembered."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Redaction, "clean_spec", lambda *_: False)
        patched.setattr(Replicas, "rewritten", lambda _, spec, key, rewrite: rewrite(spec))
        patched.setattr(objects, "rewrite", lambda data, name, rules, _: walk(data, name, rules))
        return normalize(raw, gvr, redaction).body


def fresh() -> Redaction:
    return Redaction(KEY, cluster="c")


def test_a_fingerprint_is_of_its_cluster_and_key() -> None:
    redactions = [
        Redaction(KEY, cluster="a"),
        Redaction(KEY, cluster="b"),
        Redaction(b"q" * 16, cluster="a"),
        Redaction(cluster="a"),
    ]
    found = [[normalize(raw_of(spec_of()), PODS, one).body for one in redactions] for _ in range(2)]

    assert found[0] == found[1] == [plain(raw_of(spec_of()), one) for one in redactions]
    assert len(set(found[0])) == 4


KINDS = [
    PODS,
    replace(PODS, resource="runs"),
    replace(PODS, group="shop.example.com"),
    replace(PODS, resource="runs", kind="Secret"),
]


def test_a_fingerprint_is_of_its_kind_and_namespace() -> None:
    redaction = fresh()
    places = list(itertools.product(KINDS, (b"a", b"b")))
    found = set()
    for kind, namespace in (*places, *places[::-1]):
        raw = raw_of(spec_of(), namespace, b',"data":{"a":"aHVudGVyMg=="}')
        body = normalize(raw, kind, redaction).body
        assert body == plain(raw, fresh(), kind)
        assert (b"aHVudGVyMg==" in body) is (kind.kind != "Secret")
        found.add(body.partition(b'"value":')[2][:60])

    assert len(found) == 6  # a kind's name is no part of a fingerprint


OTHER_KINDS = {
    "requests": GroupVersionResource(
        "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
    ),
    "open texts": GroupVersionResource("", "v1", "configmaps", "ConfigMap", namespaced=True),
    "schemas": GroupVersionResource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
    ),
}


@pytest.mark.parametrize("kind", OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_a_kind_with_rules_of_its_own_is_not_taken_for_another(kind: GroupVersionResource) -> None:
    redaction = fresh()
    for spec, more in (
        (b'{"request":"aHVudGVyMg=="}', b""),
        (b'{"password":"hunter2"}', b""),
        (b'{"a":1}', b',"data":{"password":"hunter2"}'),
    ):
        raw = raw_of(spec, more=more)
        normalize(raw, PODS, redaction)
        assert normalize(raw, kind, redaction).body == plain(raw, fresh(), kind)


def test_what_is_not_judged_stays() -> None:
    redaction = fresh()
    raw = raw_of(b'{"password":"hunter2"}', more=b',"data":{"password":"hunter2"}')
    normalize(raw, PODS, redaction)

    assert b'"data":{"password":"hunter2"}' in normalize(raw, OTHER_KINDS["open texts"], redaction).body
    assert b'"spec":{"password":"hunter2"}' in normalize(raw, OTHER_KINDS["schemas"], redaction).body


SPECS = {
    "deep": b'{"a":' * 150 + spec_of() + b"}" * 150,
    "white space": spec_of().replace(b":", b" : ").replace(b",", b" ,\n\t"),
    "white space behind a name only": spec_of().replace(b'"nodeName":', b'"nodeName": '),
    "escapes in names": spec_of().replace(b'"nodeName"', rb'"nodeN\u0061me"').replace(b'"value"', rb'"v\u0061lue"'),
    "escapes in values": spec_of(node=rb"node\u002d1"),
    "an escaped quote": spec_of(node=rb"node\"1"),
    "two nodes": spec_of().replace(b'"volumes"', b'"nodeName":"node-2","volumes"'),
    "a node in another": spec_of().replace(
        b'"volumes"', b'"a":{"nodeName":"node-2","b":["node-1","node-2"]},"volumes"'
    ),
    "two volumes": spec_of(b"22222").replace(b'"volumes":[', b'"volumes":[{"name":"kube-api-access-zzzzz"},'),
    "a volume as a password": spec_of().replace(b"hunter2", b"kube-api-access-bcdfg"),
    "a volume as a member": b'{"a":1,"kube-api-access-bcdfg":{"password":"kube-api-access-bcdfg"}}',
    "a node as a password": spec_of().replace(b"hunter2", b"node-1"),
    "a node as a password behind it": b'{"nodeName":"node-1","password":"node-1","tokens":["node-1"]}',
    "a node as a member": b'{"nodeName":"node-1","x":{"node-1":"y","password":"z"},"y":["node-1"]}',
    "a node as a name": b'{"nodeName":"node-1","env":[{"name":"node-1","value":"x"},{"name":"PIN","value":"node-1"}]}',
    "a node as a member of no JSON": b'{"nodeName":"node-1","password":{"a":"node-1":"hunter2"}}',
    "a node behind a white space": b'{"nodeName":"node-1","x":{"y": "node-1"},"node-1" :1,"password":"z"}',
    "a node in a text": rb'{"nodeName":"node-1","x":"[\"node-1\",{\"token\":\"node-1\"}]"}',
    "a node that is a secret": b'{"nodeName":"%b"}' % (b"ghp_" + b"a" * 36),
    "a node that is named like one": b'{"nodeName":"my-token","args":["--password","my-token"]}',
    "no object": b'["nodeName","kube-api-access-bcdfg",{"password":"hunter2"}]',
    "none": b"null",
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("more", [b"", b',"spec":{"nodeName":"n","pin":"1"}', b',"status":{"token":"hunter2"}'])
def test_what_is_remembered_is_what_a_walk_makes(spec: bytes, more: bytes) -> None:
    """Of it, and of others that differ by the names of nodes and volumes; each again, when it is remembered."""
    redaction, raws = fresh(), []
    for volume, node in ((b"bcdfg", b"node-1"), (b"h2j4k", b"n-2"), (b"z-pwd", b"token"), (b"bcdfg", b"node-1")):
        changed = spec.replace(b"access-bcdfg", b"access-" + volume).replace(b"node-1", node)
        raws += [raw_of(changed, more=more), raw_of(changed, more=more)]

    for raw in raws:
        assert normalize(raw, PODS, redaction).body == plain(raw, fresh())


def test_what_is_deeper_than_a_walk_goes_is_remembered_without_its_secrets() -> None:
    redaction = fresh()
    for node in (b"node-1", b"n-2", b"n-2"):
        body = normalize(raw_of(b'{"a":' * 3000 + spec_of(node=node) + b"}" * 3000), PODS, redaction).body
        assert b"hunter2" not in body
        assert b'"nodeName":"%b"' % node in body


def test_what_looks_like_a_placeholder_stays() -> None:
    """One that is known: nobody can write it beside a name for which it stands, as 64 bits of it are secret."""
    redaction = fresh()
    placeholders = redaction._replicas._node, redaction._replicas._volume
    for one in placeholders:
        for spec in (
            b'{"password":"hunter2","a":%b}' % one,
            b'{"a":%b,"b":{%b:1},"password":%b}' % (one, one, one),
            b'{"a":["~1~","~%d~"],"nodeName":"node-1","token":"x y"}' % 2**63,
        ):
            assert normalize(raw_of(spec), PODS, redaction).body == plain(raw_of(spec), fresh())
            assert normalize(raw_of(spec), PODS, redaction).body == plain(raw_of(spec), fresh())


def test_after_all_is_forgotten_it_is_remembered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_MAX_KNOWN_BYTES", 100)
    known, rewritten = Replicas(Unchanged(), 0), []

    def rewrite(spec: bytes) -> bytes:
        rewritten.append(spec)
        return spec + b" " * 30

    for number in range(10):
        for _ in range(2):
            known.rewritten(b'{"a":%d}' % number, "key", rewrite)

    assert len(rewritten) == 10


def test_what_lies_in_the_same_place_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_SLOTS", 1)
    unchanged = Unchanged()
    unchanged.add(b"one")
    assert b"one" in unchanged
    assert b"another" not in unchanged
    unchanged.add(b"another")
    assert b"one" not in unchanged


def test_a_large_spec_is_not_remembered() -> None:
    redaction = fresh()
    for spec in (spec_of(), spec_of().replace(b"{", b'{"a":"%b",' % (b"x" * 40_000), 1)):
        assert normalize(raw_of(spec), PODS, redaction).body == plain(raw_of(spec), fresh())

    assert len(redaction._replicas._known) == 1


def test_rules_of_kinds_and_namespaces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_MAX_KINDS", 3)
    redaction = fresh()
    for number in range(20):
        raw = raw_of(spec_of(), b"n-%d" % (number % 7))
        assert normalize(raw, PODS, redaction).body == plain(raw, fresh())
        assert len(redaction._rules_of_kinds) <= 3


@pytest.mark.parametrize("spec", [b'{"a":1}', spec_of()])
def test_a_copy_that_is_escaped_leaves_no_empty_annotations(spec: bytes) -> None:
    """As one that is not."""
    copy = rb'"annotations":{"l\u0061st-applied":"x"},'
    with_copy, without = (
        normalize(b'{"metadata":{%b"labels":{"a":"b"},"name":"x"},"spec":%b}' % (one, spec), PODS, fresh())
        for one in (copy, b"")
    )

    assert with_copy == without
