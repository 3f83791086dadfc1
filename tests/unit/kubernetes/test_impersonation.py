from __future__ import annotations

from typing import Any

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.kubernetes.impersonation import impersonation_headers

REFUSED = "without impersonating a user"


@pytest.mark.parametrize(
    ("user", "headers"),
    [
        ({}, []),
        ({"token": "t", "as": None, "as-uid": None, "as-groups": None, "as-user-extra": None}, []),
        ({"as": "", "as-uid": "", "as-groups": [], "as-user-extra": {}}, []),
        ({"as": "viewer"}, [("Impersonate-User", "viewer")]),
        (
            {"as": "system:serviceaccount:a:b", "as-uid": "u-1", "as-groups": ["g1", "g2"]},
            [
                ("Impersonate-User", "system:serviceaccount:a:b"),
                ("Impersonate-Uid", "u-1"),
                ("Impersonate-Group", "g1"),
                ("Impersonate-Group", "g2"),
            ],
        ),
        (
            {"as": "é", "as-user-extra": {"Scopes": ["a", "b"], "example.com/x%y": ["c"], "ü": ["d"], "none": None}},
            [
                ("Impersonate-User", "é"),
                ("Impersonate-Extra-scopes", "a"),
                ("Impersonate-Extra-scopes", "b"),
                ("Impersonate-Extra-example.com%2fx%25y", "c"),
                ("Impersonate-Extra-%c3%bc", "d"),
            ],
        ),
    ],
)
def test_headers_are_those_of_client_go(user: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    assert impersonation_headers(user, "u") == headers


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ({"as-groups": ["g"]}, REFUSED),
        ({"as-uid": "1", "as": None}, REFUSED),
        ({"as-user-extra": {"a": ["b"]}, "as": ""}, REFUSED),
        ({"as": 5}, "`as`"),
        ({"as": True}, "`as`"),
        ({"as": ["secret"]}, "`as`"),
        ({"as": "a\r\nX: secret"}, "`as`"),
        ({"as": "a", "as-uid": 7}, "`as-uid`"),
        ({"as": "a", "as-groups": "secret"}, "`as-groups`"),
        ({"as": "a", "as-groups": [None]}, "`as-groups`"),
        ({"as": "a", "as-groups": {"secret": 1}}, "`as-groups`"),
        ({"as": "a", "as-user-extra": ["secret"]}, "`as-user-extra`"),
        ({"as": "a", "as-user-extra": {"a": "secret"}}, "`as-user-extra`"),
        ({"as": "a", "as-user-extra": {"a": ["b\nsecret"]}}, "`as-user-extra`"),
        ({"as": "a", "as-user-extra": {1: ["b"]}}, "`as-user-extra`"),
        ({"as": "a", "as-user-extra": {"": ["b"]}}, "`as-user-extra`"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_without_its_value(user: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=r"user 'u' of the kubeconfig: ") as caught:
        impersonation_headers(user, "u")

    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
