"""REDACT and REDACT_NOT: what a path names, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.paths import parse_path
from clusterinfo.model import GroupVersionResource

CLOUDS = GroupVersionResource("shop.example.com", "v1", "clouds", "Cloud", namespaced=True)
SECRETS = GroupVersionResource("", "v1", "secrets", "Secret", namespaced=True)
HIDDEN = "redacted:len<=16"


def cleaned(tree: dict[str, Any], gvr: GroupVersionResource = CLOUDS, redact: str = "", keep: str = "") -> Any:
    redaction = Redaction(
        redact=map(parse_path, filter(None, redact.split(","))), keep=map(parse_path, filter(None, keep.split(",")))
    )
    whole = {"metadata": {"name": "x", "annotations": {"a/b": "c", "d": "e"}}, **tree}
    return json.loads(normalize(json.dumps(whole).encode(), gvr, redaction).body)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("clouds.shop.example.com:/spec/colour", {"colour": HIDDEN, "list": [{"a": 1}, {"a": "x"}]}),
        ("*.example.com:/spec/colour", {"colour": HIDDEN, "list": [{"a": 1}, {"a": "x"}]}),
        ("clouds.shop.example.com:/spec/list/*/a", {"colour": "red", "list": [{"a": HIDDEN}, {"a": HIDDEN}]}),
        ("clouds.shop.example.com:/spec/list/1", {"colour": "red", "list": [{"a": 1}, {"a": HIDDEN}]}),
        ("*:/spec/*", {"colour": HIDDEN, "list": [{"a": HIDDEN}, {"a": HIDDEN}]}),
        ("*:/spec", {"colour": HIDDEN, "list": [{"a": HIDDEN}, {"a": HIDDEN}]}),
        ("pods:/spec/colour", {"colour": "red", "list": [{"a": 1}, {"a": "x"}]}),
        ("clouds.shop.example.com:/spec/color", {"colour": "red", "list": [{"a": 1}, {"a": "x"}]}),
    ],
)
def test_what_is_named_is_replaced_with_all_below_it(path: str, expected: Any) -> None:
    assert cleaned({"spec": {"colour": "red", "list": [{"a": 1}, {"a": "x"}]}}, redact=path)["spec"] == expected


def test_a_slash_in_a_name_is_written_as_rfc_6901_has_it() -> None:
    found = cleaned({}, redact="*:/metadata/annotations/a~1b")["metadata"]

    assert found == {"name": "x", "annotations": {"a/b": HIDDEN, "d": "e"}}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("*:/spec/token", {"token": "hunter2", "auth": {"password": HIDDEN, "url": f"db://u:{HIDDEN}@h"}}),
        ("*:/spec/auth", {"token": HIDDEN, "auth": {"password": "hunter2", "url": "db://u:hunter2@h"}}),
        ("*:/spec/*/url", {"token": HIDDEN, "auth": {"password": HIDDEN, "url": "db://u:hunter2@h"}}),
    ],
)
def test_what_is_excepted_stays(path: str, expected: Any) -> None:
    spec = {"token": "hunter2", "auth": {"password": "hunter2", "url": "db://u:hunter2@h"}}

    assert cleaned({"spec": spec}, keep=path)["spec"] == expected


def test_no_exception_lets_a_secret_leave() -> None:
    found = cleaned({"data": {"a": "aHVudGVyMg=="}}, SECRETS, keep="*:/data/*,*:/*")
    within = cleaned({"spec": {"kind": "Secret", "data": {"a": "aHVudGVyMg=="}}}, keep="*:/spec")

    text = cleaned({"spec": {"kind": "Secret", "data": "aHVudGVyMg=="}}, keep="*:/spec")

    assert found["data"] == {"a": HIDDEN}
    assert within["spec"]["data"] == {"a": HIDDEN}
    assert text["spec"]["data"] == HIDDEN


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("*:/spec/*/*/x", {"a/b": [{"x": HIDDEN}, {"y": 1}], "~1": {"0": {"x": None}}, "s": "x"}),
        ("*:/spec/a~1b/0", {"a/b": [{"x": HIDDEN}, {"y": 1}], "~1": {"0": {"x": None}}, "s": "x"}),
        ("*:/spec/~01/*", {"a/b": [{"x": 1}, {"y": 1}], "~1": {"0": {"x": None}}, "s": "x"}),
        ("*:/*/a~1b/1/*", {"a/b": [{"x": 1}, {"y": HIDDEN}], "~1": {"0": {"x": None}}, "s": "x"}),
        ("*:/spec/s/x", {"a/b": [{"x": 1}, {"y": 1}], "~1": {"0": {"x": None}}, "s": "x"}),
    ],
)
def test_names_positions_and_escapes_at_every_level(path: str, expected: Any) -> None:
    spec = {"a/b": [{"x": 1}, {"y": 1}], "~1": {"0": {"x": None}}, "s": "x"}

    assert cleaned({"spec": spec}, redact=path)["spec"] == expected
