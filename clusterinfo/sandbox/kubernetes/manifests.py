"""Realistic manifests, one function a kind: enough of spec and status for all columns of `kubectl get -o wide`.

Pure: randomness, time and names come with the `World`. Secret texts are planted where real clusters leak them (values
and last-applied annotations of Secrets, environment variables, URLs, custom resources) and reported to `World.plant`.
"""

import base64
import datetime as dt
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from clusterinfo.sandbox.kubernetes.catalog import JSON
from clusterinfo.sandbox.kubernetes.encoding import timestamp

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
CANARY_MARKS = (b"canary-", base64.b64encode(b"canary"))  # every canary contains one of the two
ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
REGISTRY = "registry.example.com"
NON_ROOT_IMAGES = ("envoy:v1.31.2", "fluent-bit:3.1.9", "vault-agent:1.17.5")


@dataclass
class World:
    """What the kinds refer to. `counts`: how many objects of each kind there will be; `plant(place, text)` reports."""

    random: random.Random
    now: dt.datetime
    counts: dict[str, int]
    plant: Callable[[str, str], None]
    uids: dict[tuple[str, str], str] = field(default_factory=dict)

    def count(self, resource: str) -> int:
        return max(1, self.counts.get(resource, 0))

    def namespace(self, index: int) -> str:
        return f"ns-{index % self.count('namespaces'):03d}" if self.counts.get("namespaces") else "default"

    def node(self, index: int) -> str:
        return f"node-{index % self.count('nodes'):05d}"

    def ago(self, days: float = 30) -> str:
        """A time up to that many days ago."""
        return timestamp(self.now - dt.timedelta(seconds=self.random.random() * days * 86400))

    def hexadecimal(self, length: int) -> str:
        return f"{self.random.getrandbits(length * 4):0{length}x}"

    def uid(self, resource: str, name: str) -> str:
        """The uid that an object has, or will have."""
        if (resource, name) not in self.uids:
            h = self.hexadecimal(32)
            self.uids[resource, name] = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"
        return self.uids[resource, name]

    def canary(self, place: str) -> str:
        """A new secret text, reported as planted at `place`."""
        text = f"canary-{self.hexadecimal(20)}"
        self.plant(place, text)
        return text

    def encoded_canary(self, place: str) -> str:
        """The same in base64, as it stands in a Secret."""
        text = base64.b64encode(self.canary(place).encode()).decode()
        self.plant(place, text)
        return text


def address(index: int, first: int) -> str:
    """The index-th IPv4 address of `first`.0.0.0."""
    return f"{first}.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"


def applied(api_version: str, kind: str, body: JSON) -> JSON:
    """`body` as `kubectl apply` leaves it: the annotation repeats it whole, secrets too."""
    metadata = {key: value for key, value in body["metadata"].items() if key in ("name", "namespace", "labels")}
    manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"annotations": {}, **metadata}}
    manifest |= {key: value for key, value in body.items() if key not in ("metadata", "status")}
    text = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    annotations = {**body["metadata"].get("annotations", {}), LAST_APPLIED: text}
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def owner(api_version: str, kind: str, name: str, uid: str) -> list[JSON]:
    reference = {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}
    return [{**reference, "controller": True, "blockOwnerDeletion": True}]


def labels(app: str) -> dict[str, str]:
    return {
        "app": app,
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": f"{app}-prod",
        "team": f"team-{len(app)}",
    }


def condition(kind: str, value: bool, time: str, reason: str = "", message: str = "") -> JSON:
    one: JSON = {"type": kind, "status": "True" if value else "False", "lastTransitionTime": time}
    return one | ({"reason": reason, "message": message} if reason else {})


def namespace(world: World, index: int) -> JSON:
    name = f"ns-{index:03d}"
    metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": f"team-{index % 7}"}}
    body = {"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    return applied("v1", "Namespace", body)


def node(world: World, index: int) -> JSON:
    name, cpus = f"node-{index:05d}", 8 << index % 3
    ready, time = index % 50 != 49, world.ago(10)
    memory, disk = cpus * 4 * 1024 * 1024, 100 * 1024 * 1024
    capacity = {
        "cpu": str(cpus),
        "ephemeral-storage": f"{disk}Ki",
        "hugepages-2Mi": "0",
        "memory": f"{memory}Ki",
        "pods": "110",
    }
    allocatable = capacity | {
        "cpu": f"{cpus * 1000 - 80}m",
        "memory": f"{memory - 524288}Ki",
        "ephemeral-storage": "95552429670",
    }
    conditions = [
        condition(
            "MemoryPressure", False, time, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"
        ),
        condition("DiskPressure", False, time, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", False, time, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", ready, time, "KubeletReady", "kubelet is posting ready status"),
    ]
    zone = ZONES[index % len(ZONES)]
    metadata = {
        "name": name,
        "labels": {
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": f"m6i.{cpus // 4}xlarge",
            "topology.kubernetes.io/region": zone[:-1],
            "topology.kubernetes.io/zone": zone,
        },
        "annotations": {
            "node.alpha.kubernetes.io/ttl": "0",
            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        },
    }
    spec: JSON = {
        "podCIDR": f"10.{index >> 8 & 255}.{index & 255}.0/24",
        "providerID": f"aws:///{zone}/i-{world.hexadecimal(17)}",
    }
    if index % 20 == 19:
        spec |= {"unschedulable": True, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}
    info = {
        "machineID": world.hexadecimal(32),
        "systemUUID": world.hexadecimal(32),
        "bootID": world.hexadecimal(32),
        "kernelVersion": "6.1.115-126.197.amzn2023.x86_64",
        "osImage": "Amazon Linux 2023.6",
        "containerRuntimeVersion": "containerd://2.0.1",
        "kubeletVersion": "v1.36.0",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }
    addresses = [{"type": "InternalIP", "address": address(index, 10)}, {"type": "Hostname", "address": name}]
    images = [
        {
            "names": [f"{REGISTRY}/{image.split(':')[0]}@sha256:{world.hexadecimal(64)}", f"{REGISTRY}/{image}"],
            "sizeBytes": 91 << 20,
        }
        for image in NON_ROOT_IMAGES
    ]
    status = {
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": conditions,
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": info,
        "images": images,
    }
    return {"metadata": metadata, "spec": spec, "status": status}


def configmap(world: World, index: int) -> JSON:
    lines = [f"setting_{n}: value-{(index * 31 + n) % 997}" for n in range(10 + index % 40)]
    lines.append(f"database: postgres://reader:{world.canary('configmap')}@db.example.com:5432/app")
    metadata = {"name": f"cm-{index}", "namespace": world.namespace(index), "labels": {"app": f"app-{index}"}}
    body: JSON = {"metadata": metadata, "data": {"config.yaml": "\n".join(lines) + "\n", "log-level": "info"}}
    return applied("v1", "ConfigMap", body | ({"immutable": True} if index % 10 == 9 else {}))


def secret(world: World, index: int) -> JSON:
    metadata = {"name": f"sec-{index}", "namespace": world.namespace(index), "labels": {"app": f"app-{index}"}}
    if index % 8 == 7:
        data = {"tls.crt": world.encoded_canary("secret"), "tls.key": world.encoded_canary("secret")}
        return applied("v1", "Secret", {"metadata": metadata, "data": data, "type": "kubernetes.io/tls"})
    data = {"password": world.encoded_canary("secret"), "token": world.encoded_canary("secret")}
    body: JSON = {"metadata": metadata, "data": data, "type": "Opaque"}
    return applied("v1", "Secret", body | ({"immutable": True} if index % 10 == 9 else {}))


def service(world: World, index: int) -> JSON:
    app = f"app-{index}"
    kind = ("ClusterIP", "ClusterIP", "NodePort", "LoadBalancer")[index % 4]
    ports: list[JSON] = [
        {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"},
        {"name": "metrics", "protocol": "TCP", "port": 9090, "targetPort": 9090},
    ]
    if kind != "ClusterIP":
        ports[0]["nodePort"] = 30000 + index % 2767
    spec: JSON = {"ports": ports, "selector": {"app": app}, "clusterIP": address(index, 172), "type": kind}
    spec |= {"clusterIPs": [spec["clusterIP"]], "sessionAffinity": "None", "ipFamilies": ["IPv4"]}
    spec |= {"ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"}
    if index % 16 == 4:
        spec["externalIPs"] = [f"198.51.100.{index % 250}"]
    balancer = {"ingress": [{"hostname": f"lb-{index}.elb.example.com"}]} if kind == "LoadBalancer" else {}
    metadata = {"name": f"svc-{index}", "namespace": world.namespace(index), "labels": labels(app)}
    return applied("v1", "Service", {"metadata": metadata, "spec": spec, "status": {"loadBalancer": balancer}})


def container(app: str, name: str, version: int, password: str, url: str) -> JSON:
    """A container with probes, resources and about a dozen environment variables, three of them secret."""
    env: list[JSON] = [
        {"name": f"ENV_{n}", "value": f"value-{n}-{hashlib.sha256(f'{app}{n}'.encode()).hexdigest()[:16]}"}
        for n in range(6)
    ]
    env += [
        {"name": "DB_PASSWORD", "value": password},
        {"name": "DATABASE_URL", "value": url},
        {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": f"{app}-token", "key": "token"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
    ]
    probe = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10}
    probe |= {"successThreshold": 1, "failureThreshold": 3}
    return {
        "name": name,
        "image": f"{REGISTRY}/{app}/{name}:v1.{version}.0",
        "args": ["--config=/etc/app/config.yaml", "--log-level=info"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": env,
        "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "tmp", "mountPath": "/scratch"}],
        "livenessProbe": {**probe, "initialDelaySeconds": 10},
        "readinessProbe": probe,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }


def pod_spec(app: str, password: str, url: str) -> JSON:
    return {
        "volumes": [
            {"name": "config", "configMap": {"name": f"{app}-config", "defaultMode": 420}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "containers": [container(app, "main", 3, password, url), container(app, "sidecar", 1, password, url)],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    }


def secrets_of(world: World, app: str) -> tuple[str, str]:
    """The password and the URL with a password that all objects of one app carry in their environment."""
    digest = hashlib.sha256(app.encode()).hexdigest()
    password, url_password = f"canary-{digest[:20]}", f"canary-{digest[20:40]}"
    world.plant("env", password)
    world.plant("url", url_password)
    return password, f"postgres://{app}:{url_password}@db.example.com:5432/{app}"


def template(world: World, app: str) -> JSON:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"}
    return {
        "metadata": {"labels": labels(app), "annotations": annotations},
        "spec": pod_spec(app, *secrets_of(world, app)),
    }


def deployment(world: World, index: int) -> JSON:
    app, time, replicas = f"app-{index}", world.ago(), 1 + index % 5
    ready = max(0, replicas - sum(pod % 100 in WARNINGS for pod in pods_of(world, index)))
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": app}},
        "template": template(world, app),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    status: JSON = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas}
    status |= {"readyReplicas": ready, "availableReplicas": ready} if ready else {}
    status |= {"unavailableReplicas": replicas - ready} if ready < replicas else {}
    status["conditions"] = [
        condition(
            "Available", ready == replicas, time, "MinimumReplicasAvailable", "Deployment has minimum availability."
        ),
        condition(
            "Progressing", True, time, "NewReplicaSetAvailable", f'ReplicaSet "{app}" has successfully progressed.'
        ),
    ]
    metadata = {
        "name": app,
        "namespace": world.namespace(index),
        "uid": world.uid("deployments", app),
        "labels": labels(app),
    }
    metadata["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    return applied("apps/v1", "Deployment", {"metadata": metadata, "spec": spec, "status": status})


def replicaset(world: World, index: int) -> JSON:
    parent = index % world.count("deployments")
    app, name, replicas = f"app-{parent}", replicaset_name(world, index), 1 + parent % 5
    replicas = replicas if index < world.count("deployments") else 0  # older revisions are scaled down
    metadata = {
        "name": name,
        "namespace": world.namespace(parent),
        "uid": world.uid("replicasets", name),
        "labels": labels(app) | {"pod-template-hash": f"{index:07x}"},
        "annotations": {
            "deployment.kubernetes.io/desired-replicas": str(replicas),
            "deployment.kubernetes.io/revision": "1",
        },
        "ownerReferences": owner("apps/v1", "Deployment", app, world.uid("deployments", app)),
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template(world, app)}
    status = {"replicas": replicas, "observedGeneration": 1}
    status |= (
        {"fullyLabeledReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas} if replicas else {}
    )
    return {"metadata": metadata, "spec": spec, "status": status}


def replicaset_name(world: World, index: int) -> str:
    return f"app-{index % world.count('deployments')}-{index:07x}"


def pod_name(world: World, index: int) -> str:
    return f"{replicaset_name(world, index % world.count('replicasets'))}-{index:05x}"


def parent_of(world: World, pod: int) -> int:
    """The number of the Deployment that a pod is of."""
    return pod % world.count("replicasets") % world.count("deployments")


def pods_of(world: World, deployment: int) -> list[int]:
    """The numbers of the pods of its present ReplicaSet, which is the first of those that it has."""
    return list(range(deployment, world.counts.get("pods", 0), world.count("replicasets")))


def pod(world: World, index: int) -> JSON:
    set_index, parent = index % world.count("replicasets"), parent_of(world, index)
    app, set_name, time = f"app-{parent}", replicaset_name(world, set_index), world.ago(20)
    spec = pod_spec(app, *secrets_of(world, app))
    spec |= {
        "nodeName": world.node(index),
        "automountServiceAccountToken": False,
        "priority": 0,
        "enableServiceLinks": True,
    }
    spec["preemptionPolicy"] = "PreemptLowerPriority"
    spec["tolerations"] = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in ("not-ready", "unreachable")
    ]
    manifest = {
        "apiVersion": "v1",
        "spec": {"containers": [{"name": "main", "env": spec["containers"][0]["env"][6:8]}]},
    }
    metadata = {
        "name": pod_name(world, index),
        "namespace": world.namespace(parent),
        "labels": labels(app) | {"pod-template-hash": f"{set_index:07x}"},
        "annotations": {
            "checksum/config": world.hexadecimal(64),
            LAST_APPLIED: orjson.dumps(manifest).decode(),
            "prometheus.io/port": "9090",
            "prometheus.io/scrape": "true",
        },
        "ownerReferences": owner("apps/v1", "ReplicaSet", set_name, world.uid("replicasets", set_name)),
    }
    return {"metadata": metadata, "spec": spec, "status": pod_status(world, index, spec, time)}


WARNINGS = {
    31: ("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu."),
    67: ("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu."),
    59: ("Evicted", "The node was low on resource: memory."),
    97: ("BackOff", "Back-off restarting failed container main"),
}
"""Of 100 pods those that are not ready although they should be, and the event that says why."""


def pod_status(world: World, index: int, spec: JSON, time: str) -> JSON:
    """Of 100 pods about 94 run, 2 are pending, 2 have succeeded, 1 has failed, 1 crashes again and again."""
    fate = index % 100
    if fate in (31, 67):
        del spec["nodeName"]
        unschedulable = condition(
            "PodScheduled", False, time, "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu."
        )
        return {"phase": "Pending", "conditions": [unschedulable], "qosClass": "Burstable"}
    phase = "Succeeded" if fate in (43, 83) else "Failed" if fate == 59 else "Running"
    crashing = fate == 97
    ready = phase == "Running" and not crashing
    state: JSON = {"running": {"startedAt": time}}
    if phase != "Running":
        code = 0 if phase == "Succeeded" else 137
        ended = {
            "exitCode": code,
            "reason": "OOMKilled" if code else "Completed",
            "startedAt": time,
            "finishedAt": time,
        }
        state = {"terminated": ended}
    elif crashing:
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
    statuses = [
        {
            "name": one["name"],
            "state": state,
            "lastState": {},
            "ready": ready,
            "restartCount": 17 if crashing else index % 3,
            "image": one["image"],
            "imageID": f"{one['image'].split(':')[0]}@sha256:{world.hexadecimal(64)}",
            "containerID": f"containerd://{world.hexadecimal(64)}",
            "started": ready,
        }
        for one in spec["containers"]
    ]
    conditions = [
        condition("Initialized", True, time),
        condition("Ready", ready, time),
        condition("ContainersReady", ready, time),
        condition("PodScheduled", True, time),
    ]
    status: JSON = {"phase": phase, "conditions": conditions, "hostIP": address(index % world.count("nodes"), 10)}
    status |= {"podIP": address(index, 100), "podIPs": [{"ip": address(index, 100)}], "startTime": time}
    if phase == "Failed":
        status |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
    return status | {"containerStatuses": statuses, "qosClass": "Burstable"}


def ingress(world: World, index: int) -> JSON:
    host = f"app-{index}.example.com"
    backend = {"service": {"name": f"svc-{index}", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec: JSON = {"ingressClassName": ("nginx", "traefik")[index % 2], "rules": [rule]}
    if index % 3:
        spec["tls"] = [{"hosts": [host], "secretName": f"sec-{index}"}]
    status = {"loadBalancer": {"ingress": [{"ip": f"203.0.113.{index % 250}"}]}}
    metadata = {"name": f"ing-{index}", "namespace": world.namespace(index), "labels": labels(f"app-{index}")}
    return applied("networking.k8s.io/v1", "Ingress", {"metadata": metadata, "spec": spec, "status": status})


def persistentvolume(world: World, index: int) -> JSON:
    claimed = index < world.counts.get("persistentvolumeclaims", 0)
    spec: JSON = {
        "capacity": {"storage": f"{1 + index % 50}Gi"},
        "accessModes": ["ReadWriteOnce"] if index % 4 else ["ReadWriteMany", "ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Delete" if index % 3 else "Retain",
        "storageClassName": "gp3",
        "volumeMode": "Filesystem",
    }
    if index % 4:
        spec["csi"] = {"driver": "ebs.csi.aws.com", "volumeHandle": f"vol-{world.hexadecimal(17)}", "fsType": "ext4"}
    else:
        spec["nfs"] = {"server": "nfs.example.com", "path": f"/export/{index}"}
    if claimed:
        reference = {"kind": "PersistentVolumeClaim", "namespace": world.namespace(index), "name": f"pvc-{index}"}
        spec["claimRef"] = reference | {"apiVersion": "v1", "uid": world.uid("persistentvolumeclaims", f"pvc-{index}")}
    metadata = {"name": f"pv-{index}", "finalizers": ["kubernetes.io/pv-protection"]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Bound" if claimed else "Available"}}


def persistentvolumeclaim(world: World, index: int) -> JSON:
    name, bound = f"pvc-{index}", index < world.counts.get("persistentvolumes", 0)
    modes = ["ReadWriteOnce"] if index % 4 else ["ReadWriteMany", "ReadOnlyMany"]
    spec: JSON = {"accessModes": modes, "resources": {"requests": {"storage": f"{1 + index % 50}Gi"}}}
    spec |= {"storageClassName": "gp3", "volumeMode": "Filesystem"}
    status: JSON = {"phase": "Pending"}
    if bound:
        spec["volumeName"] = f"pv-{index}"
        status = {"phase": "Bound", "accessModes": modes, "capacity": {"storage": f"{1 + index % 50}Gi"}}
    metadata: JSON = {
        "name": name,
        "namespace": world.namespace(index),
        "uid": world.uid("persistentvolumeclaims", name),
    }
    metadata |= {"finalizers": ["kubernetes.io/pvc-protection"]}
    return applied("v1", "PersistentVolumeClaim", {"metadata": metadata, "spec": spec, "status": status})


def statefulset(world: World, index: int) -> JSON:
    app, replicas = f"db-{index}", 1 + index % 3
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": app}},
        "serviceName": app,
        "template": template(world, app),
    }
    spec |= {
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 10,
    }
    status = {"observedGeneration": 1, "replicas": replicas, "readyReplicas": replicas, "currentReplicas": replicas}
    status |= {"updatedReplicas": replicas, "availableReplicas": replicas, "collisionCount": 0}
    metadata = {"name": app, "namespace": world.namespace(index), "labels": labels(app)}
    return applied("apps/v1", "StatefulSet", {"metadata": metadata, "spec": spec, "status": status})


def daemonset(world: World, index: int) -> JSON:
    app, nodes = f"agent-{index}", world.count("nodes")
    spec: JSON = {
        "selector": {"matchLabels": {"app": app}},
        "template": template(world, app),
        "revisionHistoryLimit": 10,
    }
    spec["template"]["spec"]["nodeSelector"] = {"kubernetes.io/os": "linux"}
    spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    status = {
        "currentNumberScheduled": nodes,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": nodes,
        "numberReady": nodes,
    }
    status |= {"observedGeneration": 1, "updatedNumberScheduled": nodes, "numberAvailable": nodes}
    metadata = {"name": app, "namespace": world.namespace(index), "labels": labels(app)}
    return applied("apps/v1", "DaemonSet", {"metadata": metadata, "spec": spec, "status": status})


def job(world: World, index: int) -> JSON:
    app, time, failed = f"batch-{index}", world.ago(3), index % 10 == 9
    spec = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "template": template(world, app), "suspend": False}
    spec |= {"completionMode": "NonIndexed", "selector": {"matchLabels": {"app": app}}}
    status: JSON = {"startTime": time, "uncountedTerminatedPods": {}}
    if failed:
        status |= {
            "failed": 7,
            "conditions": [condition("Failed", True, time, "BackoffLimitExceeded", "backoff limit reached")],
        }
    else:
        done = timestamp(dt.datetime.fromisoformat(time) + dt.timedelta(seconds=40 + index % 600))
        status |= {
            "succeeded": 1,
            "ready": 0,
            "completionTime": done,
            "conditions": [condition("Complete", True, done)],
        }
    metadata: JSON = {"name": app, "namespace": world.namespace(index), "labels": labels(app)}
    if world.counts.get("cronjobs.batch"):
        parent = f"nightly-{index % world.count('cronjobs.batch')}"
        metadata["ownerReferences"] = owner("batch/v1", "CronJob", parent, world.uid("cronjobs", parent))
    return {"metadata": metadata, "spec": spec, "status": status}


def cronjob(world: World, index: int) -> JSON:
    name = f"nightly-{index}"
    spec: JSON = {
        "schedule": f"{index % 60} {index % 24} * * *",
        "concurrencyPolicy": "Forbid",
        "suspend": index % 12 == 11,
    }
    spec |= {"timeZone": "Europe/Berlin", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1}
    spec["jobTemplate"] = {"metadata": {}, "spec": {"template": template(world, name)}}
    status = {"lastScheduleTime": world.ago(1), "lastSuccessfulTime": world.ago(1)}
    metadata = {
        "name": name,
        "namespace": world.namespace(index),
        "uid": world.uid("cronjobs", name),
        "labels": labels(name),
    }
    return applied("batch/v1", "CronJob", {"metadata": metadata, "spec": spec, "status": status})


def event(world: World, index: int) -> JSON:
    """Every other one warns, of a pod that is not ready; the others are about any pod."""
    pods, warned = world.count("pods"), sorted(WARNINGS)[index // 2 % len(WARNINGS)]
    pod = (warned + index // 8 * 100) % pods if index % 2 else index % pods
    kind = "Warning" if pod % 100 in WARNINGS else "Normal"
    reason, message = WARNINGS.get(pod % 100, ("Pulled", f"Container image already present, attempt {index % 9}"))
    name, where, time = pod_name(world, pod), world.namespace(parent_of(world, pod)), world.ago(0.04)
    metadata = {"name": f"{name}.{index:016x}", "namespace": where}
    involved = {
        "kind": "Pod",
        "namespace": where,
        "name": name,
        "uid": world.uid("pods", name),
        "apiVersion": "v1",
    }
    body: JSON = {
        "metadata": metadata,
        "involvedObject": involved | {"fieldPath": "spec.containers{main}"},
        "reason": reason,
        "message": message,
        "source": {"component": "kubelet", "host": world.node(index)},
    }
    body |= {"firstTimestamp": time, "lastTimestamp": time, "count": 1 + index % 30, "type": kind, "eventTime": None}
    return body | {"reportingComponent": "kubelet", "reportingInstance": world.node(index)}


def lease(world: World, index: int) -> JSON:
    name = world.node(index) if index < world.counts.get("nodes", 0) else f"lease-{index}"
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": world.ago(0.0001).replace("Z", ".000000Z")}
    return {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec}


def serviceaccount(world: World, index: int) -> JSON:
    metadata = {"name": f"sa-{index}", "namespace": world.namespace(index)}
    return {"metadata": metadata, "automountServiceAccountToken": False}


def autoscaler(world: World, index: int) -> JSON:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"app-{index}"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    current = {
        "type": "Resource",
        "resource": {"name": "cpu", "current": {"averageUtilization": index % 95, "averageValue": "90m"}},
    }
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 10, "metrics": [metric]}
    status = {"currentReplicas": 1 + index % 5, "desiredReplicas": 1 + index % 5, "currentMetrics": [current]}
    metadata = {"name": f"app-{index}", "namespace": world.namespace(index)}
    return applied("autoscaling/v2", "HorizontalPodAutoscaler", {"metadata": metadata, "spec": spec, "status": status})


def endpointslice(world: World, index: int) -> JSON:
    labelled = {
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": f"svc-{index}",
    }
    ends = [
        {"addresses": [address(index * 3 + n, 100)], "conditions": {"ready": True}, "nodeName": world.node(n)}
        for n in range(3)
    ]
    metadata = {"name": f"svc-{index}-{index:05x}", "namespace": world.namespace(index), "labels": labelled}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": ends, "ports": ports}


def clusterrole(world: World, index: int) -> JSON:
    rules = [{"verbs": ["get", "list", "watch"], "apiGroups": ["", "apps"], "resources": ["pods", "deployments"]}]
    return {"metadata": {"name": f"reader-{index}"}, "rules": rules if index % 5 else None}


def storageclass(world: World, index: int) -> JSON:
    body: JSON = {"metadata": {"name": "gp3" if index == 0 else f"class-{index}"}, "provisioner": "ebs.csi.aws.com"}
    return body | {
        "parameters": {"type": "gp3"},
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def signing_request(world: World, index: int) -> JSON:
    spec = {
        "request": world.encoded_canary("csr"),
        "signerName": "kubernetes.io/kubelet-serving",
        "usages": ["server auth"],
    }
    spec |= {"username": f"system:node:{world.node(index)}", "groups": ["system:nodes", "system:authenticated"]}
    return {"metadata": {"name": f"csr-{index:05x}"}, "spec": spec, "status": {}}


def widget(world: World, index: int) -> JSON:
    """A custom resource with texts that are hard to carry: beyond ASCII, quotes, backslashes, in every tenth a NUL."""
    nul = "nul \0 as text, " if index % 10 == 0 else ""
    spec = {
        "colour": f"blau ä 😀 {index}",
        "credentials": {"password": world.canary("custom")},
        "endpoint": f"https://widget:{world.canary('url')}@api.example.com/v{index}",
        "notes": nul + 'quote " and backslash \\',
        "price": index + 0.5,
    }
    metadata = {"name": f"widget-{index}", "namespace": world.namespace(index), "labels": {"size": f"s{index % 5}"}}
    return applied("shop.example.com/v1", "Widget", {"metadata": metadata, "spec": spec})


def gadget(world: World, index: int) -> JSON:
    """Of any further custom kind: no status, no secrets."""
    metadata = {"name": f"gadget-{index}", "namespace": world.namespace(index), "labels": {"size": f"s{index % 5}"}}
    return {"metadata": metadata, "spec": {"size": index, "tags": ["a", "b"], "ratio": index / 7}}
