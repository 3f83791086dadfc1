"""The table of settings in docs/SETTINGS.md, made from the settings themselves."""

from __future__ import annotations

from clusterinfo.settings import DEFAULT_EXCLUDE, SECRET_FIELDS, Settings

SHOWN = {
    "kafka_brokers": "localhost:9092",
    "exclude": ", ".join(DEFAULT_EXCLUDE),
    "collect_interval": "5m",
    "resync_interval": "6h",
    "list_timeout": "30m",
    "page_bytes": "16MiB",
    "batch_bytes": "16MiB",
    "batch_wait": "20ms",
    "history_retention": "90d",
    "dead_letter_bytes": "1GiB",
    "shutdown_grace_s": "25",
}
"""Defaults as a user would write them, where that is not what Python prints."""


def rows() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, in order."""
    return [
        (name.upper(), _default(name, field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def table() -> str:
    """The table in Markdown."""
    head = "| variable | default | meaning |\n|---|---|---|\n"
    return head + "\n".join(f"| `{name}` | {default} | {text} |" for name, default, text in rows())


def _default(name: str, value: object) -> str:
    if name in SHOWN:
        return f"`{SHOWN[name]}`"
    if name in SECRET_FIELDS or value is None or value == []:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
