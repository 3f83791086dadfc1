"""The nouns: identities, times and digests."""

from __future__ import annotations

import datetime as dt

import pytest
import xxhash

from clusterinfo.model import (
    GroupVersionResource,
    ListLane,
    Unit,
    digest_hex,
    is_beyond_versions,
    item_digest,
    list_start,
    list_start_us,
    version_number,
)


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("1", 1),
        ("4611686018427387904", 2**62),
        ("4611686018427387905", None),
        ("9223372036854775807", None),
        ("9" * 4301, None),
        ("0", None),
        ("", None),
        ("abc", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("0" * 4300 + "1", None),
        ("00000000000000000001", None),
        ("0000000000000000001", 1),
    ],
)
def test_version_number(version: str, number: int | None) -> None:
    assert version_number(version) == number


@pytest.mark.parametrize(
    ("version", "beyond"),
    [
        ("4611686018427387904", False),
        ("4611686018427387905", True),
        ("9" * 4301, True),
        ("99", False),
        ("", False),
        ("x" * 4301, False),
        ("\u0663" * 30, False),
    ],
)
def test_a_version_beyond_those_that_order(version: str, beyond: bool) -> None:
    assert is_beyond_versions(version) is beyond


def test_the_start_of_a_list_is_in_its_id() -> None:
    # RFC 9562, A.6: "017F22E2-79B0-7CC3-98C4-DC0C0C07398F" is Tuesday, February 22, 2022 2:22:22.00 PM GMT-05:00
    example = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert list_start(example) == dt.datetime(2022, 2, 22, 19, 22, 22, tzinfo=dt.UTC)
    assert list_start_us(example) == 1645557742000000


def test_the_digest_of_an_item_is_that_of_the_contract() -> None:
    assert item_digest("ns", "a", "7") == int(xxhash.xxh3_128_hexdigest(b"ns\0a\0" + b"7"), 16)
    assert digest_hex(2**128 + 5) == f"{5:032x}"


def test_names_as_kubectl_spells_them() -> None:
    pods = GroupVersionResource("", "v1", "pods", "Pod", True)
    deployments = GroupVersionResource("apps", "v1", "deployments", "Deployment", True)
    assert (pods.api_version, pods.dotted) == ("v1", "pods")
    assert (deployments.api_version, deployments.dotted) == ("apps/v1", "deployments.apps")
    assert str(ListLane(Unit("c", "apps", "deployments"), "ns")) == "deployments.apps in ns"
    assert str(ListLane(Unit("c", "", ""))) == "snapshot"
