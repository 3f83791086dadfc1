"""Kubeconfig files -> one, merged as kubectl does. What is wrong with them is reported, nothing that they hold.

PyYAML's errors quote the line they mean, and kubernetes_asyncio's merger names each entry by all it holds, tokens
included, which its loader then quotes: so the files are read and merged here, once each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterinfo.errors import ConfigError

if TYPE_CHECKING:
    import yaml
    from kubernetes_asyncio.config.kube_config import ConfigNode

# What PyYAML puts in quotes: names and marks of YAML's own, which may be repeated, or text of the file.
_OWN_WORDS = re.compile(r"'(<[a-z ]+>|[][{},:?-])'")
_QUOTE = re.compile(r"['\"]")


@dataclass(slots=True)
class Kubeconfig:
    """The entries by section, each a node that knows its file; `current` is the context of the first file that sets it.

    Of entries with one name the first counts.
    """

    sections: dict[str, list[ConfigNode]] = field(default_factory=lambda: {"clusters": [], "contexts": [], "users": []})
    current: str | None = None

    def as_node(self) -> ConfigNode:
        """For kubernetes_asyncio's loader."""
        from kubernetes_asyncio.config.kube_config import ConfigNode

        return ConfigNode("kubeconfig", dict(self.sections))

    def user_of(self, context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], str]:
        """Name, entry and file of a context's user; an empty entry if there is none."""
        name = context.get("user")
        for node in self.sections["users"]:
            user = node.value.get("user")
            if node.value["name"] == name and isinstance(user, dict):
                return str(name), user, str(node.path)
        return str(name), {}, ""


def read_kubeconfig(paths: Iterable[str]) -> Kubeconfig:
    """Raises ConfigError, with file, line and problem, for what cannot be read or is no kubeconfig; PermissionError."""
    merged = Kubeconfig()
    files = {path: _load(path) for path in paths}
    filled = {path: loaded for path, loaded in files.items() if isinstance(loaded, dict)}
    if not filled:
        raise ConfigError(f"KUBECONFIG {':'.join(files)!r} holds no kubeconfig: expected clusters, users, contexts")
    for path, loaded in filled.items():
        for section in merged.sections:
            _merge(merged.sections[section], loaded.get(section), section, path)
        merged.current = merged.current or loaded.get("current-context")
    return merged


def _merge(known: list[ConfigNode], entries: Any, section: str, path: str) -> None:
    from kubernetes_asyncio.config.kube_config import ConfigNode

    if not isinstance(entries or [], list):
        raise ConfigError(f"KUBECONFIG {path!r} cannot be read: expected {section} to be a list")
    names = {node.value["name"] for node in known}
    for number, entry in enumerate(entries or [], 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"KUBECONFIG {path!r} cannot be read: entry {number} of {section} has no name")
        if entry["name"] not in names:
            known.append(ConfigNode(f"{section}[name={entry['name']}]", entry, path))
            names.add(entry["name"])


def _load(path: str) -> Any:
    import yaml

    problem = f"KUBECONFIG {path!r} cannot be read"
    try:
        text = Path(path).read_text("utf-8")
    except PermissionError:  # whoever asked knows who may read it
        raise
    except OSError as error:
        raise ConfigError(f"{problem}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{problem}: it is no UTF-8; save it as UTF-8") from None
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{problem}: {_where(error)}{_problem(error.problem)}; is it whole?") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{problem}: line {line}: it holds a character that YAML does not allow") from None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{problem}: it holds a value that is none in YAML ({type(error).__name__})") from None


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _problem(problem: str | None) -> str:
    """PyYAML's problem, up to where it begins to quote the file."""
    own = _OWN_WORDS.sub(r"\1", problem or "")
    return _QUOTE.split(own)[0].strip() or "it is no YAML"
