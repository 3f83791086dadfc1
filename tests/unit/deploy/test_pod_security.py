"""The checker of the restricted profile finds what breaks it: it judges the shipped manifests elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.pod_security import violations

GOOD: dict[str, Any] = {
    "kind": "Deployment",
    "spec": {
        "template": {
            "spec": {
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "c",
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            }
        }
    },
}

POD: list[tuple[str, dict[str, Any]]] = [
    ("host namespaces", {"hostNetwork": True}),
    ("host namespaces", {"hostPID": True}),
    ("volume types", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    ("sysctls", {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
    ("c: not root", {"securityContext": {"runAsNonRoot": None}}),
    ("c: not user 0", {"securityContext": {"runAsUser": 0}}),
    ("c: seccomp", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
]
CONTAINER: list[tuple[str, dict[str, Any]]] = [
    ("c: privileged", {"securityContext": {"privileged": True}}),
    ("c: privilege escalation", {"securityContext": {"allowPrivilegeEscalation": None}}),
    ("c: capabilities dropped", {"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}}),
    ("c: capabilities added", {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}),
    ("c: not root", {"securityContext": {"runAsNonRoot": False}}),
    ("c: not user 0", {"securityContext": {"runAsUser": 0}}),
    ("c: seccomp", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
    ("c: AppArmor", {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
    ("c: SELinux", {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}),
    ("c: /proc", {"securityContext": {"procMount": "Unmasked"}}),
    ("c: Windows host process", {"securityContext": {"windowsOptions": {"hostProcess": True}}}),
    ("c: host ports", {"ports": [{"containerPort": 1, "hostPort": 1}]}),
    ("c: host of probes", {"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
]


def changed(manifest: dict[str, Any], into: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`manifest` after `change` was laid over a part of it, one level deep for its securityContext."""
    into |= {name: into.get(name, {}) | value if name == "securityContext" else value for name, value in change.items()}
    return manifest


def test_what_keeps_the_profile_passes() -> None:
    assert list(violations(GOOD)) == []
    assert list(violations({"kind": "Service", "spec": {}})) == []


@pytest.mark.parametrize(("rule", "change"), POD)
def test_what_a_pod_may_not(rule: str, change: dict[str, Any]) -> None:
    manifest = copy.deepcopy(GOOD)
    assert list(violations(changed(manifest, manifest["spec"]["template"]["spec"], change))) == [rule]


@pytest.mark.parametrize(("rule", "change"), CONTAINER)
@pytest.mark.parametrize("among", ["containers", "initContainers"])
def test_what_a_container_may_not(rule: str, change: dict[str, Any], among: str) -> None:
    manifest = copy.deepcopy(GOOD)
    pod = manifest["spec"]["template"]["spec"]
    if among == "initContainers":
        pod["initContainers"] = copy.deepcopy(pod["containers"])
    assert list(violations(changed(manifest, pod[among][0], change))) == [rule]


def test_a_cron_job_is_looked_into() -> None:
    job: dict[str, Any] = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": copy.deepcopy(GOOD["spec"])}}}
    job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["hostIPC"] = True
    assert list(violations(job)) == ["host namespaces"]
