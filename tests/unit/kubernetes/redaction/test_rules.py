"""The rules as SECURITY.md has them: every rule does something."""

from __future__ import annotations

import json

import pytest

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.values import SHAPES, replace_shapes
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
