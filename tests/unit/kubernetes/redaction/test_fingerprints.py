"""What fingerprints tell, and what they do not."""

from __future__ import annotations

import hashlib
import hmac
import json

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction.fingerprints import Place, fingerprint
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.model import GroupVersionResource

KEY = b"0123456789abcdef"
PLACE = Place("cluster", "ns", "secrets", "password")
PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)


def test_it_is_an_hmac_over_the_place_and_the_value() -> None:
    message = b"7:cluster2:ns7:secrets8:passwordhunter2"
    expected = hmac.new(KEY, message, hashlib.sha256).hexdigest()[:32]

    assert fingerprint(KEY, PLACE, b"hunter2") == f"hmac-sha256:{expected}"


def test_each_part_of_the_place_changes_it() -> None:
    places = [PLACE, *(PLACE._replace(**{part: "other"}) for part in Place._fields)]
    keys = [KEY, KEY[::-1]]

    assert len({fingerprint(key, place, b"hunter2") for place in places for key in keys}) == 10


def test_no_part_runs_into_the_next() -> None:
    one, other = Place("a", "bc", "d", "e"), Place("ab", "c", "d", "e")

    assert fingerprint(KEY, one, b"x") != fingerprint(KEY, other, b"x")


def test_without_a_key_nothing_but_the_length_is_told() -> None:
    assert {fingerprint(None, PLACE._replace(field=field), b"x" * 20) for field in "ab"} == {"redacted:len<=32"}


def env_of(name: str, namespace: str, cluster: str) -> str:
    env = [{"name": "DB_PASSWORD", "value": "hunter2"}]
    tree = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "a", "env": []}, {"name": "b", "env": env}]},
    }
    body = normalize(json.dumps(tree).encode(), PODS, Redaction(KEY, cluster=cluster)).body
    return str(json.loads(body)["spec"]["containers"][1]["env"][0]["value"])


def test_the_pods_of_a_deployment_share_it_and_others_do_not() -> None:
    expected = fingerprint(KEY, Place("c", "ns", "pods", "DB_PASSWORD"), b"hunter2")

    assert env_of("one", "ns", "c") == env_of("two", "ns", "c") == expected
    assert len({env_of("one", "ns", "c"), env_of("one", "other", "c"), env_of("one", "ns", "d")}) == 3
