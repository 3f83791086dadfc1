from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterinfo.errors import TransientError
from clusterinfo.kubernetes import discovery
from clusterinfo.kubernetes.discovery import ApiGroup, ApiVersion, Selection
from clusterinfo.model import GroupVersionResource
from clusterinfo.settings import DEFAULT_EXCLUDE

RECORDED = Path(__file__).parents[2] / "recorded"


def recorded(name: str) -> bytes:
    body: str = json.loads((RECORDED / f"{name}.json").read_text())["body"]
    return body.encode()


def aggregated() -> list[ApiGroup]:
    return discovery.aggregated_groups(recorded("discovery-aggregated-core")) + discovery.aggregated_groups(
        recorded("discovery-aggregated-groups")
    )


def gvr(dotted: str, version: str = "v1", verbs: tuple[str, ...] = ("list",)) -> GroupVersionResource:
    resource, _, group = dotted.partition(".")
    return GroupVersionResource(group, version, resource, resource.title(), namespaced=True, verbs=verbs)


def test_a_real_server_is_listed_each_kind_once() -> None:
    found = discovery.choose(aggregated(), Selection())

    names = [(one.group, one.resource) for one in found.resources]
    assert len(names) == len(set(names))
    assert {"pods", "deployments.apps", "widgets.shop.example.com"} <= {one.dotted for one in found.resources}
    assert found.complete


def test_kinds_without_list_and_subresources_are_left() -> None:
    names = {one.dotted for one in discovery.choose(aggregated(), Selection()).resources}

    assert "bindings" not in names
    assert "tokenreviews.authentication.k8s.io" not in names
    assert not any("/" in name for name in names)
    scale = ApiGroup("apps", (ApiVersion("v1", (gvr("deployments/scale.apps"),)),))
    assert discovery.choose([scale], Selection()).resources == ()


def test_the_preferred_version_is_taken() -> None:
    found = {one.dotted: one for one in discovery.choose(aggregated(), Selection()).resources}

    hpa = found["horizontalpodautoscalers.autoscaling"]
    assert (hpa.version, hpa.kind, hpa.namespaced) == ("v2", "HorizontalPodAutoscaler", True)
    assert found["namespaces"].namespaced is False


def test_a_kind_the_preferred_version_lacks_is_taken_from_the_next() -> None:
    group = ApiGroup(
        "g.io",
        (
            ApiVersion("v2", (gvr("a.g.io", "v2"), gvr("b.g.io", "v2", ("get",)))),
            ApiVersion("v1", (gvr("a.g.io"), gvr("b.g.io"))),
            ApiVersion("v1beta1", (gvr("b.g.io", "v1beta1"),)),
        ),
    )

    found = discovery.choose([group], Selection())

    assert [(one.resource, one.version) for one in found.resources] == [("a", "v2"), ("b", "v1")]


def test_the_defaults_leave_out_what_they_name() -> None:
    found = discovery.choose(aggregated(), Selection(exclude=tuple(DEFAULT_EXCLUDE)))

    assert {one.dotted for one in found.excluded} == {
        "componentstatuses",
        "leases.coordination.k8s.io",
        "events.events.k8s.io",
    }
    assert "events" in {one.dotted for one in found.resources}


@pytest.mark.parametrize(
    ("pattern", "dotted", "expected"),
    [
        ("pods", "pods", True),
        ("pods", "pods.metrics.k8s.io", False),
        ("po*", "pods", True),
        ("*", "pods", True),
        ("*", "deployments.apps", True),
        ("*.*", "pods", False),
        ("*.*", "deployments.apps", True),
        ("*.metrics.k8s.io", "pods.metrics.k8s.io", True),
        ("*.metrics.k8s.io", "things.custom.metrics.k8s.io", True),
        ("deployments.apps", "deployments.apps", True),
        ("deployments", "deployments.apps", False),
        ("Pods", "pods", False),
        ("[ps]*", "secrets", True),
    ],
)
def test_patterns(pattern: str, dotted: str, expected: bool) -> None:
    resource, _, group = dotted.partition(".")

    assert discovery.matches(pattern, group, resource) is expected


@pytest.mark.parametrize(
    ("include", "wanted"),
    [
        ((), True),
        (("secrets",), True),
        (("*", "secrets"), True),
        (("*",), False),
        (("s*",), False),
        (("secret?",), False),
    ],
)
def test_secrets_are_listed_by_their_name_and_by_no_wildcard(include: tuple[str, ...], wanted: bool) -> None:
    assert Selection(include).wants("", "secrets") is wanted
    assert Selection((*include, "s*.example.com")).wants("example.com", "secrets")


def test_exclude_wins_over_include_and_both_are_excluded() -> None:
    selection = Selection(include=("pods", "secrets", "nothing"), exclude=("secrets",))

    found = discovery.choose(aggregated(), selection)

    assert [one.dotted for one in found.resources] == ["pods"]
    assert {"secrets", "configmaps", "deployments.apps"} <= {one.dotted for one in found.excluded}
    assert [(one.variable, one.pattern, one.question) for one in found.unmatched] == [
        ("INCLUDE", "secrets", ""),
        ("INCLUDE", "nothing", ""),
    ]
    assert not found.is_misspelt


@pytest.mark.parametrize(
    ("include", "exclude", "questions"),
    [
        ("deployments", "", ["INCLUDE deployments: did you mean deployments.apps?"]),
        ("deployment", "", ["INCLUDE deployment: did you mean deployments.apps?"]),
        ("ingress*", "", ["INCLUDE ingress*: did you mean ingresses.networking.k8s.io?"]),
        ("pods,nodes", "secret", ["EXCLUDE secret: did you mean secrets?"]),
        ("pods.metric.k8s.io", "zebras", ["INCLUDE pods.metric.k8s.io: did you mean pods?", "EXCLUDE zebras: "]),
        ("", "*.metrics.k8s.io,componentstatuses", []),
        ("*.failing.io", "things.failing.io", []),
        ("pods", "pods", ["INCLUDE pods: "]),
    ],
)
def test_what_matches_nothing_is_asked_back(include: str, exclude: str, questions: list[str]) -> None:
    groups = [*aggregated(), *discovery.aggregated_groups(_stale("failing.io", []))]
    include_words, exclude_words = (tuple(filter(None, words.split(","))) for words in (include, exclude))
    selection = Selection(include_words, exclude_words)
    found = discovery.choose(groups, selection)
    assert [f"{one.variable} {one.pattern}: {one.question}" for one in found.unmatched] == questions
    assert found.is_misspelt == (include not in ("", "pods,nodes", "*.failing.io"))


def test_a_rule_of_redaction_for_a_kind_that_there_is_not_is_asked_back() -> None:
    redaction = [
        ("REDACT", "pod:/spec/nodeName"), ("REDACT", "*:/spec/a"), ("REDACT", "things.failing.io:/spec"),
        ("REDACT_NOT", "deployments:/metadata"), ("REDACT_NOT", "zebras:/spec"), ("REDACT_NOT", "*.apps:/x"),
    ]  # fmt: skip
    groups = [*aggregated(), *discovery.aggregated_groups(_stale("failing.io", []))]
    found = discovery.choose(groups, Selection(redaction=tuple(redaction)))
    assert [f"{one.variable} {one.pattern}: {one.question}" for one in found.unmatched] == [
        "REDACT pod:/spec/nodeName: did you mean pods:/spec/nodeName?",
        "REDACT_NOT deployments:/metadata: did you mean deployments.apps:/metadata?",
        "REDACT_NOT zebras:/spec: ",
    ]
    assert not found.is_misspelt


def _stale(name: str, resources: list[dict[str, Any]]) -> bytes:
    version = {"version": "v1beta1", "freshness": "Stale", "resources": resources}
    items = [{"metadata": {"name": name}, "versions": [version]}]
    return json.dumps({"kind": "APIGroupDiscoveryList", "items": items}).encode()


def test_a_stale_group_fails_but_what_it_lists_is_listed() -> None:
    pods = {"resource": "pods", "responseKind": {"kind": "PodX"}, "scope": "Namespaced", "verbs": ["list"]}
    groups = discovery.aggregated_groups(_stale("x.io", [pods]))

    found = discovery.choose(groups, Selection())

    assert [one.dotted for one in found.resources] == ["pods.x.io"]
    assert found.failing == ("x.io",)
    assert not found.complete


def test_a_stale_group_that_is_left_out_as_a_whole_does_not_count() -> None:
    groups = discovery.aggregated_groups(_stale("metrics.k8s.io", []))

    assert discovery.choose(groups, Selection(exclude=tuple(DEFAULT_EXCLUDE))).complete
    assert not discovery.choose(groups, Selection(exclude=("pods.metrics.k8s.io",))).complete


def test_resources_of_subresources_only_have_no_verbs() -> None:
    odd = {"resource": "ghosts", "responseKind": None, "scope": "Cluster"}

    assert discovery.choose(discovery.aggregated_groups(_stale("x.io", [odd])), Selection()).resources == ()


def test_legacy_discovery_finds_what_aggregated_discovery_finds() -> None:
    index = discovery.legacy_index(recorded("discovery-legacy-api"), recorded("discovery-legacy-apis"))
    documents: dict[tuple[str, str], bytes | str] = {
        ("", "v1"): recorded("discovery-legacy-v1"),
        ("apps", "v1"): recorded("discovery-legacy-apps-v1"),
    }

    found = discovery.choose(discovery.legacy_groups(index, documents), Selection())

    expected = discovery.choose(aggregated(), Selection())
    assert sorted(found.resources) == sorted(one for one in expected.resources if one.group in ("", "apps"))
    assert "apps" not in found.failing
    assert "batch" in found.failing, "a document that did not come"
    assert ("autoscaling", "v2") in index.group_versions()


def test_legacy_discovery_puts_the_preferred_version_first() -> None:
    group = {
        "name": "g.io",
        "versions": [{"version": "v1"}, {"version": "v2"}],
        "preferredVersion": {"version": "v2"},
    }

    index = discovery.legacy_index(b'{"versions":null}', json.dumps({"groups": [group]}).encode())

    assert index.versions == {"": [], "g.io": ["v2", "v1"]}


def test_the_form_of_an_answer_is_known_by_its_kind() -> None:
    assert discovery.is_aggregated(recorded("discovery-aggregated-core"))
    assert not discovery.is_aggregated(recorded("discovery-legacy-api"))


PODS = {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["list"]}


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({**PODS, "resource": "ghosts", "scope": None}, "resource 'ghosts' has no scope, expected scope Namespaced or"),
        ({**PODS, "resource": "ghosts", "scope": "Galaxy"}, "resource 'ghosts' has 'Galaxy', expected scope"),
        ({**PODS, "resource": None}, "Expected `str`, got `null` - at `$.resource`"),
        ({"scope": "Namespaced", "verbs": ["list"]}, "missing required field `resource`"),
        ({**PODS, "resource": ""}, "length >= 1 - at `$.resource`"),
        ({**PODS, "resource": "ghosts", "verbs": "list"}, "Expected `array | null`, got `str` - at `$.verbs`"),
        ("ghosts", "Expected `object`, got `str`"),
    ],
)
def test_a_resource_that_cannot_be_read_costs_no_other(broken: object, why: str) -> None:
    version = {"version": "v1", "freshness": "Current", "resources": [broken, PODS]}
    groups = [{"metadata": {"name": name}, "versions": [version]} for name in ("a.io", "b.io")]
    groups[1]["versions"] = [{"version": "v1", "resources": [PODS]}]
    document = json.dumps({"kind": "APIGroupDiscoveryList", "items": groups}).encode()

    found = discovery.choose(discovery.aggregated_groups(document), Selection())

    assert [one.dotted for one in found.resources] == ["pods.a.io", "pods.b.io"]
    assert found.failing == ("a.io",)
    assert why in found.reasons["a.io"]


def test_a_resource_that_cannot_be_listed_needs_no_scope() -> None:
    tokens = {"resource": "tokens", "scope": None, "verbs": ["create"]}
    group = {"metadata": {"name": "a.io"}, "versions": [{"version": "v1", "resources": [tokens]}]}

    groups = discovery.aggregated_groups(json.dumps({"items": [group]}).encode())

    assert discovery.choose(groups, Selection()).complete


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"metadata": {"name": "a.io"}, "versions": "v1"}, "a.io"),
        ({"metadata": {"name": "a.io"}, "versions": [{"version": None}]}, "a.io"),
        ({"metadata": {"name": 5}}, "(number 1 of /apis)"),
        (None, "(number 1 of /apis)"),
    ],
)
def test_a_group_that_cannot_be_read_costs_no_other(broken: object, name: str) -> None:
    good = {"metadata": {"name": "b.io"}, "versions": [{"version": "v1", "resources": [PODS]}]}
    document = json.dumps({"kind": "APIGroupDiscoveryList", "items": [broken, good]}).encode()

    found = discovery.choose(discovery.aggregated_groups(document), Selection())

    assert [one.dotted for one in found.resources] == ["pods.b.io"]
    assert found.failing == (name,)


GOOD = {"name": "b.io", "versions": [{"version": "v1"}]}
LISTED = b'{"kind":"APIResourceList","resources":[{"name":"pods","namespaced":true,"kind":"Pod","verbs":["list"]}%s]}'


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"name": "a.io", "versions": [{"version": None}]}, "a.io"),
        ({"versions": [{"version": "v1"}]}, "(number 1 of /apis)"),
        ({"name": "", "versions": [{"version": "v1"}]}, "(number 1 of /apis)"),
    ],
)
def test_a_legacy_group_that_cannot_be_read_costs_no_other(broken: object, name: str) -> None:
    index = discovery.legacy_index(b'{"versions":["v1"]}', json.dumps({"groups": [broken, GOOD]}).encode())
    documents: dict[tuple[str, str], bytes | str] = {("", "v1"): LISTED % b"", ("b.io", "v1"): LISTED % b""}

    found = discovery.choose(discovery.legacy_groups(index, documents), Selection())

    assert [one.dotted for one in found.resources] == ["pods", "pods.b.io"]
    assert found.failing == (name,)


@pytest.mark.parametrize(
    ("document", "listed", "why"),
    [
        (b"<html><body>sign in</body></html>", [], "JSON is malformed"),
        (b'{"kind":"Status","code":401}', [], "its kind is 'Status', expected APIResourceList"),
        (b"[" * 5000 + b"]" * 5000, [], "what it serves cannot be read"),
        (LISTED % b',{"namespaced":true,"verbs":["list"]}', ["pods.b.io"], "missing required field `name`"),
        (LISTED % b',{"name":"ghosts","verbs":5}', ["pods.b.io"], "at `$.verbs`"),
        ("401 Unauthorized: no", [], "401 Unauthorized: no"),
    ],
)
def test_a_legacy_document_that_cannot_be_read_fails_its_group(
    document: bytes | str, listed: list[str], why: str
) -> None:
    index = discovery.legacy_index(b'{"versions":["v1"]}', json.dumps({"groups": [GOOD]}).encode())

    groups = discovery.legacy_groups(index, {("", "v1"): LISTED % b"", ("b.io", "v1"): document})
    found = discovery.choose(groups, Selection())

    assert [one.dotted for one in found.resources] == ["pods", *listed]
    assert found.failing == ("b.io",)
    assert why in found.reasons["b.io"]


def test_what_is_no_document_is_fatal() -> None:
    with pytest.raises(TransientError, match="discovery document"):
        discovery.aggregated_groups(b"<html>")


# --- APIServices -----------------------------------------------------------------------------------------------------


def test_an_api_service_that_names_a_service_is_served_by_it() -> None:
    local = {"spec": {"group": "apps", "version": "v1"}}
    null = {"spec": {"group": "", "version": "v1", "service": None}}
    other = {"spec": {"group": "shop.example.com", "version": "v1", "service": {"namespace": "a", "name": "b"}}}
    document = {"kind": "APIServiceList", "metadata": {"continue": "more"}, "items": [local, null, other, {}]}
    assert discovery.api_services(json.dumps(document).encode()) == ({("shop.example.com", "v1")}, "more")


@pytest.mark.parametrize("document", [b"{}", b'{"items":null,"metadata":null}', b'{"metadata":{"continue":null}}'])
def test_no_api_services(document: bytes) -> None:
    assert discovery.api_services(document) == (set(), "")


@pytest.mark.parametrize(
    "document", [b"<html>", b"[]", b'{"items":[{"spec":{"group":7}}]}', b'{"items":[{"spec":null}]}']
)
def test_what_is_no_page_of_api_services(document: bytes) -> None:
    with pytest.raises(TransientError):
        discovery.api_services(document)
