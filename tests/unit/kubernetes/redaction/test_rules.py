"""The rules as SECURITY.md has them: every rule does something."""

from __future__ import annotations

import json
import time

import pytest

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.paths import parse_path
from clusterinfo.kubernetes.redaction.values import SHAPES, replace_shapes
from clusterinfo.kubernetes.redaction.walk import Rules, walk
from tests.unit.kubernetes.redaction.corpus import gvr_of

EXAMPLES = {
    "a JSON Web Token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "an AWS access key id": "AKIAIOSFODNN7EXAMPLE",
    "a GitHub token": "ghp_0123456789abcdefghij",
    "a GitLab token": "glpat-0123456789abcdefghij",
    "a Slack token": "xoxb-0123456789-abcdef",
    "a Stripe key": "sk_live_0123456789abcdef",
    "a private key in PEM": "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----",
    "the address of a chat's webhook": "https://hooks.slack.com/services/T0/B0/abcdefgh",
    "a Telegram bot's token": "https://api.telegram.org/bot123456:abcdefgh/getMe",
    "Basic credentials": "Basic YWRtaW46aHVudGVyMg==",
    "a Bearer token": "Bearer abcd1234",
    "a private key in PEM, in base64": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1IY0M=",
}


@pytest.mark.parametrize("what", dict.fromkeys(shape.what for shape in SHAPES))
@pytest.mark.parametrize("around", ["{}", "see {} there", 'a="{}"', "{}\nnext", "x,{}", "({})"])
def test_a_shape_is_found_in_any_text(what: str, around: str) -> None:
    before, _, after = around.partition("{}")
    found = replace_shapes(around.format(EXAMPLES[what]), lambda secret: "[hidden]")

    assert "[hidden]" in found
    assert EXAMPLES[what] not in found
    assert found.startswith(before)
    assert found.endswith(after)


@pytest.mark.parametrize(
    "text",
    [
        "Basic authentication is required",
        "Bearer authentication",
        "Bearer token/header",
        'Bearer realm="x"',
        "eyJ is a prefix",
        "AKIA and ASIA",
        "asia-east1",
        "xox-ray",
        "glpat-",
        "https://hooks.slack.com/",
        "https://discord.com/api/webhooks/",
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUM=",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_only_begins_like_a_shape_stays(text: str) -> None:
    assert replace_shapes(text, lambda secret: "[hidden]") == text


@pytest.mark.parametrize(
    ("api_version", "kind", "members"),
    [
        ("v1", "Secret", {"data": {"a": "aHVudGVyMg=="}}),
        (
            "shop.example.com/v1",
            "Cloud",
            {"spec": {"list": {"kind": "SecretList", "items": [{"data": {"a": "hunter2"}}]}}},
        ),
        ("shop.example.com/v1", "Cloud", {"spec": {"password": {"value": "hunter2", "name": "kept"}}}),
        ("v1", "ConfigMap", {"data": {"a": "kind: Secret\nstringData:\n  a: hunter2\n"}}),
    ],
)
def test_values_go_and_keys_stay(api_version: str, kind: str, members: dict[str, object]) -> None:
    raw = json.dumps({"metadata": {"name": "x"}, **members}).encode()
    body = normalize(raw, gvr_of(api_version, kind), Redaction()).body

    assert b"hunter2" not in body
    assert b"aHVudGVyMg==" not in body
    assert b"redacted:len<=" in body


@pytest.mark.parametrize("name", ["pin", "password", "DB_PASSWORD", "dbPass"])
def test_a_number_is_a_secret_where_it_is_named_one(name: str) -> None:
    raw = json.dumps({"metadata": {"name": "x"}, "spec": {name: 123456, "token": 123456, "maxTokens": 5}}).encode()
    spec = json.loads(normalize(raw, gvr_of("a.example.com/v1", "Cloud"), Redaction()).body)["spec"]

    assert spec == {name: "redacted:len<=16", "token": 123456, "maxTokens": 5}


def test_a_number_before_its_name_is_a_secret_too() -> None:
    raw = b'{"metadata":{"name":"x"},"spec":{"a":[{"default":12345678,"name":"pin"},{"value":123456,"name":"x"}]}}'
    spec = json.loads(normalize(raw, gvr_of("a.example.com/v1", "Cloud"), Redaction()).body)["spec"]

    assert spec["a"] == [{"default": "redacted:len<=16", "name": "pin"}, {"value": 123456, "name": "x"}]


def test_what_redact_not_names_stays_before_its_name_too() -> None:
    raw = b'{"metadata":{"name":"x"},"spec":{"a":[{"value":"hunter2","name":"db_password"}]}}'
    keep = [parse_path("clouds.a.example.com:/spec/a/*/value")]

    assert b"hunter2" in normalize(raw, gvr_of("a.example.com/v1", "Cloud"), Redaction(keep=keep)).body


@pytest.mark.parametrize(
    "text",
    [
        "password: " + "\\" * 60_000,
        "Secret " + "\\" * 60_000,
        "H4sI" + "A" * 40 + " " * 20_000 + "!",
        "eyJ" * 20_000,
        "token=a&" * 8_000,
        ",token: x " * 6_000,
        "a: |\n" + " password: |\n" * 5_000,
        'token="' * 9_000,
    ],
    ids=lambda text: text[:8] + text[-8:],
)
def test_no_text_takes_long(text: str) -> None:
    """Each took longer than its length says, the first four minutes at the size of an annotation."""
    started = time.process_time()
    walk(json.dumps(text).encode(), "note", Rules(conceal=lambda value, field: "[hidden]"))

    assert time.process_time() - started < 3


def test_a_text_of_many_assignments_is_read_to_its_end() -> None:
    text = "token=a1b2&" * 5_000
    assert b"a1b2" not in walk(json.dumps(text).encode(), "note", Rules(conceal=lambda value, field: "[hidden]"))
