"""What an API may answer to a review of rights, of whatever sense."""

from __future__ import annotations

from typing import Any, cast

import pytest

from clusterinfo.errors import TransientError
from clusterinfo.kubernetes import diagnosis
from clusterinfo.kubernetes.client import KubernetesClient


class Api:
    """Answers whatever is posted with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def write(self, method: str, path: str, body: dict[str, Any]) -> bytes:
        return self._answer


async def may(answer: bytes) -> bool:
    return await diagnosis._may(cast(KubernetesClient, Api(answer)), "get", "shop", "collector")


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_review_says_what_is_allowed(is_allowed: bool) -> None:
    assert await may(
        b'{"kind":"SelfSubjectAccessReview","status":{"allowed":%s}}' % str(is_allowed).lower().encode()
    ) is (is_allowed)


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b"null", b"{}", b'{"status":null}', b'{"status":[]}', b'{"status":{"allowed":"yes"}}',
     b'{"status":{}}', b'{"status":{"allowed":"\xff"}}', b'{"spec":' + b"[" * 100_000],
)  # fmt: skip
async def test_what_is_no_review_is_reported_as_such(answer: bytes) -> None:
    with pytest.raises(TransientError, match="SelfSubjectAccessReview cannot be read"):
        await may(answer)
