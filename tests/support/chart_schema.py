"""k8s/chart/values.schema.json: what Helm refuses before anything is applied.

Settings are named by the program's own list, so that a misspelt one is refused too.
"""

from __future__ import annotations

import json
from typing import Any

from clusterinfo.settings import SECRET_FIELDS, Settings

JSON = dict[str, Any]
TEXT, FLAG, FREE = {"type": "string"}, {"type": "boolean"}, {"type": "object"}
LIST_OF_OBJECTS = {"type": "array", "items": FREE}
COUNT = {"type": "integer", "minimum": 0}
SWITCH = {"enabled": FLAG}


def text() -> str:
    """The schema, as JSON."""
    schema = {"$schema": "https://json-schema.org/draft-07/schema#", "title": "clusterinfo", **_object(_values())}
    return json.dumps(schema, indent=2)


def _object(properties: JSON) -> JSON:
    """Nothing but these."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _settings(prefix: str) -> JSON:
    """Settings that hold no secret, as texts: a ConfigMap takes nothing else, and 0.10 would become 0.1."""
    names = [name.upper() for name in Settings.model_fields if name not in SECRET_FIELDS]
    names += [f"{name.upper()}_FILE" for name in SECRET_FIELDS]
    return _object({name: TEXT for name in names if name.startswith(prefix)})


def _values() -> JSON:
    pods = {"extraEnv": LIST_OF_OBJECTS, "podSpec": FREE}
    scaled = {"replicas": COUNT, "min": COUNT, "max": COUNT, "autoscaling": {"enum": ["", "hpa", "keda"]}}
    scaled["kedaBootstrapServers"] = TEXT
    return {
        "global": FREE,
        "settings": _settings(""),
        "database": _object(
            {"settings": _settings("DB_"), "secret": TEXT | {"minLength": 1}, "mounted": FLAG, "ownerSecret": TEXT}
        ),
        "kafka": _object({"collectorSecret": TEXT, "consumerSecret": TEXT}),
        "image": _object(
            {
                "collector": TEXT,
                "consumer": TEXT,
                "tag": TEXT,
                "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
            }
        ),
        "collector": _object(
            SWITCH | {"replicas": COUNT, "schedule": TEXT, "interval": TEXT, "resources": FREE} | pods
        ),
        "consumer": _object(scaled | {"resources": FREE} | pods),
        "migrate": _object(SWITCH | pods),
        "rbac": _object({"create": FLAG}),
        "networkPolicy": _object(SWITCH),
        "podMonitor": _object(SWITCH),
        "prometheusRule": _object(SWITCH | {"runbooks": TEXT}),
        "dashboards": _object(SWITCH),
    }
