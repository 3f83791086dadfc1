"""The profile "restricted" of the Pod Security Standards, with what it takes over from "baseline", as a table.

Source: kubernetes.io/docs/concepts/security/pod-security-standards. The API server enforces it by the namespace's label
`pod-security.kubernetes.io/enforce`; here it is asked before there is an API server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

JSON = dict[str, Any]

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def at(tree: Any, *path: str) -> Any:
    """What stands at the path, None if nothing does."""
    for step in path:
        tree = (tree or {}).get(step)
    return tree


POD: dict[str, Callable[[JSON], bool]] = {
    "host namespaces": lambda pod: not any(at(pod, name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "volume types": lambda pod: all(set(volume) - {"name"} <= VOLUMES for volume in pod.get("volumes") or []),
    "sysctls": lambda pod: {one["name"] for one in at(pod, "securityContext", "sysctls") or []} <= SYSCTLS,
}
"""Rule -> True if a Pod's spec keeps it."""

CONTAINER: dict[str, Callable[[JSON, JSON], bool]] = {
    "privileged": lambda own, pod: not own.get("privileged"),
    "privilege escalation": lambda own, pod: own.get("allowPrivilegeEscalation") is False,
    "capabilities dropped": lambda own, pod: "ALL" in (at(own, "capabilities", "drop") or []),
    "capabilities added": lambda own, pod: set(at(own, "capabilities", "add") or []) <= {"NET_BIND_SERVICE"},
    "not root": lambda own, pod: own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
    "not user 0": lambda own, pod: 0 not in (own.get("runAsUser"), pod.get("runAsUser")),
    "seccomp": lambda own, pod: (at(own, "seccompProfile", "type") or at(pod, "seccompProfile", "type")) in SECCOMP,
    "AppArmor": lambda own, pod: "Unconfined" not in [at(one, "appArmorProfile", "type") for one in (own, pod)],
    "SELinux": lambda own, pod: {at(one, "seLinuxOptions", "type") for one in (own, pod)} <= SELINUX,
    "/proc": lambda own, pod: own.get("procMount", "Default") == "Default",
    "Windows host process": lambda own, pod: not any(at(one, "windowsOptions", "hostProcess") for one in (own, pod)),
}
"""Rule -> True if a container's and its Pod's securityContext keep it."""

AROUND: dict[str, Callable[[JSON], bool]] = {
    "host ports": lambda one: not any(port.get("hostPort") for port in one.get("ports") or []),
    "host of probes": lambda one: not any(at(one, probe, "httpGet", "host") for probe in PROBES),
}
"""Rule -> True if a container keeps it."""


def pod_spec(manifest: JSON) -> JSON | None:
    """The Pod's spec in a workload of any kind; None in what makes no Pods."""
    paths = {"Pod": ("spec",), "CronJob": ("spec", "jobTemplate", "spec", "template", "spec")}
    found = at(manifest, *paths.get(manifest["kind"], ("spec", "template", "spec")))
    return found if isinstance(found, dict) and "containers" in found else None


def containers(pod: JSON) -> list[JSON]:
    """Every container of a Pod, init and ephemeral ones too."""
    return [one for name in ("initContainers", "containers", "ephemeralContainers") for one in pod.get(name) or []]


def violations(manifest: JSON) -> Iterator[str]:
    """What the manifest's Pods would be refused for."""
    if (pod := pod_spec(manifest)) is None:
        return
    yield from (rule for rule, kept in POD.items() if not kept(pod))
    for one in containers(pod):
        own, of_pod = one.get("securityContext") or {}, pod.get("securityContext") or {}
        yield from (f"{one['name']}: {rule}" for rule, kept in CONTAINER.items() if not kept(own, of_pod))
        yield from (f"{one['name']}: {rule}" for rule, kept in AROUND.items() if not kept(one))
