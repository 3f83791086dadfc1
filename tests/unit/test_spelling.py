"""What is meant by a name that there is not."""

import pytest

from clusterinfo.spelling import did_you_mean, meant

KINDS = ["pods", "secrets", "deployments.apps", "deployments.example.com", "ingresses.networking.k8s.io"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("secret", "secrets"),
        ("Pod", "pods"),
        ("deployments", "deployments.apps"),
        ("deployment.example.com", "deployments.example.com"),
        ("ingress", "ingresses.networking.k8s.io"),
        ("deploy*", "deployments.apps"),
        ("pods", ""),
        ("zebras", ""),
        ("", ""),
    ],
)
def test_what_is_close_is_meant(name: str, found: str) -> None:
    assert meant(name, KINDS) == found
    assert did_you_mean(name, KINDS) == (f"did you mean {found}?" if found else "")
