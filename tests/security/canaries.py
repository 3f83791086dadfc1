"""Secret texts, one in every place where they hide: each name says where, each text is found nowhere else."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from typing import Any

JSON = dict[str, Any]
Manifest = tuple[str, JSON]
"""Resource, object."""
HUGE = "".join(random.Random(1).choices(string.ascii_letters, k=6000))
"""A uid that no index can hold: a dead letter."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
CUSTOM = "clouds", "shop.example.com", "Cloud"
REQUESTS = "certificaterequests", "cert-manager.io", "CertificateRequest"


def text_of(place: str) -> str:
    """The canary of a place."""
    return f"canary-{place.replace(' ', '-')}-0x5ec"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def spellings(text: str) -> list[str]:
    """As it may turn up: plain and in base64."""
    return [text, encoded(text)]


def _object(name: str, **members: Any) -> JSON:
    return {"metadata": {"name": name, "namespace": "default", **members.pop("metadata", {})}, **members}


def _annotated(name: str, key: str, value: str, **members: Any) -> JSON:
    return _object(name, metadata={"annotations": {key: value}}, **members)


def _pod(name: str, field: str = "containers", **container: Any) -> JSON:
    return _object(name, spec={field: [{"name": "main", "image": "app:1", **container}]})


def _template(env: str, text: str) -> JSON:
    return {"spec": {"containers": [{"name": "main", "image": "app:1", "env": [{"name": env, "value": text}]}]}}


PLACES: dict[str, Callable[[str], Manifest]] = {
    "secret": lambda text: ("secrets", _object("a", type="Opaque", data={"password": encoded(text)})),
    "secret not in base64": lambda text: ("secrets", _object("b", type="Opaque", data={"raw": f"{text}!"})),
    "secret applied": lambda text: (
        "secrets",
        _annotated("c", LAST_APPLIED, json.dumps({"stringData": {"x": text}}), type="Opaque", data={}),
    ),
    "secret with stringData": lambda text: ("secrets", _object("d", type="Opaque", stringData={"x": text})),
    "secret that is refused": lambda text: (
        "secrets",
        _object("e", type="Opaque", data={"password": encoded(text)}, metadata={"uid": HUGE}),
    ),
    "env of a pod": lambda text: ("pods", _pod("f", env=[{"name": "DB_PASSWORD", "value": text}])),
    "env of an init container": lambda text: (
        "pods",
        _pod("g", "initContainers", env=[{"name": "PLAIN", "value": "x"}, {"name": "api_token", "value": text}]),
    ),
    "env of a deployment": lambda text: (
        "deployments.apps",
        _object("h", spec={"template": _template("AWS_SECRET_ACCESS_KEY", text)}),
    ),
    "env of a cronjob": lambda text: (
        "cronjobs.batch",
        _object("i", spec={"jobTemplate": {"spec": {"template": _template("SMTP_PASSWD", text)}}}),
    ),
    "env of an ephemeral container": lambda text: (
        "pods",
        _pod(
            "g2",
            "ephemeralContainers",
            env=[{"name": "SESSION_KEY", "value": "x"}, {"name": "PGPASSWORD", "value": text}],
        ),
    ),
    "env of a statefulset": lambda text: (
        "statefulsets.apps",
        _object("i2", spec={"template": _template("MYSQL_ROOT_PASSWORD", text)}),
    ),
    "env of a revision": lambda text: (
        "controllerrevisions.apps",
        _object("j", revision=1, data={"spec": {"template": _template("CLIENT_SECRET", text)}}),
    ),
    "deployment applied": lambda text: (
        "deployments.apps",
        _annotated("k", LAST_APPLIED, json.dumps({"spec": {"x": text}}), spec={}),
    ),
    "deployment applied by kapp": lambda text: (
        "deployments.apps",
        _annotated("k2", "kapp.k14s.io/original", json.dumps({"spec": {"x": text}}), spec={}),
    ),
    "custom object handled by kopf": lambda text: (
        "clouds.shop.example.com",
        _annotated("k3", "kopf.zalando.org/last-handled-configuration", json.dumps({"spec": {"x": text}}), spec={}),
    ),
    "template applied within a custom object": lambda text: (
        "clouds.shop.example.com",
        _object("k4", spec={"template": {"metadata": {"annotations": {LAST_APPLIED: json.dumps({"x": text})}}}}),
    ),
    "managed fields within a custom object": lambda text: (
        "clouds.shop.example.com",
        _object("l2", spec={"template": {"metadata": {"managedFields": [{"fieldsV1": {f"f:{text}": {}}}]}}}),
    ),
    "managed fields": lambda text: (
        "services",
        _object("l", metadata={"managedFields": [{"manager": "me", "fieldsV1": {f"f:{text}": {}}}]}, spec={}),
    ),
    "url in arguments": lambda text: ("pods", _pod("m", args=[f"--database=postgres://app:{text}@db:5432/app"])),
    "url in an annotation": lambda text: ("services", _annotated("n", "hook", f"https://me:{text}@x.example", spec={})),
    "token in a url": lambda text: ("pods", _pod("o", command=["git", "clone", f"https://{text}@git.example/x"])),
    "url in an event": lambda text: (
        "events",
        _object("p", message=f'Failed to pull image "https://me:{text}@registry.example/app"', reason="Failed"),
    ),
    "url in a configmap": lambda text: ("configmaps", _object("q", data={"url": f"amqp://me:{text}@mq:5672"})),
    "password that is no userinfo": lambda text: (
        "configmaps",
        _object("q2", data={"url": f"amqp://me:a/{text}#b@c@mq:5672"}),
    ),
    "url in json in a configmap": lambda text: (
        "configmaps",
        _object("q3", data={"app.json": json.dumps({"url": f"amqp://me:a/{text}@mq"}).replace("/", "\\/")}),
    ),
    "configmap": lambda text: ("configmaps", _object("r", data={"app.conf": f"colour = {text}\n"})),
    "configmap in binary": lambda text: ("configmaps", _object("s", binaryData={"blob": encoded(text)})),
    "custom field": lambda text: ("clouds.shop.example.com", _object("t", spec={"auth": {"adminPassword": text}})),
    "custom fields in a list": lambda text: ("clouds.shop.example.com", _object("u", spec={"apiKeys": ["x", text]})),
    "custom env": lambda text: (
        "clouds.shop.example.com",
        _object("v", spec={"env": [{"name": "GITHUB_TOKEN", "value": text}]}),
    ),
    "secret in a custom object": lambda text: (
        "clouds.shop.example.com",
        _object("w", spec={"manifests": [{"kind": "Secret", "stringData": {"anything": text}}]}),
    ),
    "certificate request": lambda text: (
        "certificatesigningrequests.certificates.k8s.io",
        {"metadata": {"name": "x"}, "spec": {"request": encoded(text), "signerName": "example.com/x"}},
    ),
    "cert-manager request": lambda text: (
        "certificaterequests.cert-manager.io",
        _object("y", spec={"request": encoded(text)}),
    ),
}
"""Where -> the object that holds a text there."""
