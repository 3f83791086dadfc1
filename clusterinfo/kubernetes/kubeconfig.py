"""Kubeconfig files -> the cluster and the user of a context, as client-go reads them (tools/clientcmd: loader.go,
client_config.go). What is wrong with them is told by file, line and member, never by what they hold.

PyYAML's errors quote the line they mean, and kubernetes_asyncio's loader names entries by all they hold, tokens
included, and knows half of the members: so the files are read, merged and taken apart here.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from clusterinfo.errors import ConfigError

if TYPE_CHECKING:
    import yaml

# What PyYAML puts in quotes: names and marks of YAML's own, which may be repeated, or text of the file.
_OWN_WORDS = re.compile(r"'(<[a-z ]+>|[][{},:?-])'")
_QUOTE = re.compile(r"['\"]")
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""PowerShell's `>` writes UTF-16; kubectl reads it."""
_SECTIONS = ("clusters", "contexts", "users")
EXEC_EXTENSION = "client.authentication.k8s.io/exec"
"""Of a cluster: what an exec plugin is told beside it. Source: client-go, tools/clientcmd/client_config.go."""

T = TypeVar("T")


class Extension(msgspec.Struct, frozen=True):
    """One of `extensions`."""

    name: str = ""
    extension: Any = None


class Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    """`clusters[].cluster`; absent, null and empty are one."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: list[Extension] = []


class Variable(msgspec.Struct, frozen=True):
    """One of an exec plugin's `env`."""

    name: str = ""
    value: str = ""


class Exec(msgspec.Struct, frozen=True, rename="camel"):
    """`users[].user.exec`."""

    command: str = ""
    args: list[str] = []
    env: list[Variable] = []
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class AuthProvider(msgspec.Struct, frozen=True):
    """`users[].user.auth-provider`."""

    name: str = ""
    config: dict[str, str] = {}


class User(msgspec.Struct, frozen=True, rename={"token_file": "tokenFile", "auth_provider": "auth-provider"}):
    """`users[].user`, but for whom it impersonates."""

    token: str = ""
    token_file: str = ""
    username: str = ""
    password: str = ""
    client_certificate: str = msgspec.field(name="client-certificate", default="")
    client_certificate_data: str = msgspec.field(name="client-certificate-data", default="")
    client_key: str = msgspec.field(name="client-key", default="")
    client_key_data: str = msgspec.field(name="client-key-data", default="")
    auth_provider: AuthProvider | None = None
    exec: Exec | None = None


class Context(msgspec.Struct, frozen=True):
    """`contexts[].context`; its namespace does not concern us."""

    cluster: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a section has under a name, and the file that has it."""

    section: str
    name: str
    value: Mapping[str, Any]
    path: str

    def wrong(self, problem: str) -> ConfigError:
        """`problem` with what names the entry before it."""
        return ConfigError(f"{self.section[:-1]} {self.name!r} of the kubeconfig {self.path!r}: {problem}")

    def read(self, kind: type[T]) -> T:
        """Raises ConfigError for a member of another type; msgspec's messages name members and types, no values."""
        try:
            return msgspec.convert(self.value, kind)
        except msgspec.ValidationError as error:
            raise self.wrong(f"{error}; is a pair of quotes missing?") from None

    def file(self, member: str, path: str) -> str:
        """The file that `member` names: relative to the kubeconfig's folder. Raises ConfigError, PermissionError."""
        named = Path(self.path).parent / path
        if not is_file(named):
            raise self.wrong(f"`{member}` names no file, as seen from the kubeconfig")
        return str(named)

    def data(self, member: str, text: str) -> bytes:
        """What `member` holds in base64, which may be broken into lines. Raises ConfigError."""
        try:
            return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            raise self.wrong(f"`{member}` is no base64") from None


@dataclass(slots=True)
class Kubeconfig:
    """The entries by section and name; `current` is the context of the first file that sets it.

    Of entries with one name in several files the first counts, whole.
    """

    sections: dict[str, dict[str, Entry]] = field(default_factory=lambda: {section: {} for section in _SECTIONS})
    current: str = ""

    def cluster_of(self, context: Entry) -> Entry:
        """Raises ConfigError if there is none."""
        name = context.read(Context).cluster
        if not name:
            raise context.wrong("it names no cluster")
        if name not in self.sections["clusters"]:
            raise context.wrong(f"it names cluster {name!r}, which no file of KUBECONFIG has")
        return self.sections["clusters"][name]

    def user_of(self, context: Entry) -> Entry:
        """An empty one for a context that names nobody: requests are anonymous then. Raises ConfigError if missing."""
        name = context.read(Context).user
        if name and name not in self.sections["users"]:
            raise context.wrong(f"it names user {name!r}, which no file of KUBECONFIG has")
        return self.sections["users"].get(name) or Entry("users", name, {}, context.path)


def read_kubeconfig(paths: Iterable[str]) -> Kubeconfig:
    """Raises ConfigError, with file, line and problem, for what cannot be read or is no kubeconfig; PermissionError."""
    merged = Kubeconfig()
    files = {path: _load(path) for path in paths}
    filled = {path: loaded for path, loaded in files.items() if isinstance(loaded, dict)}
    if not filled:
        raise ConfigError(f"KUBECONFIG {':'.join(files)!r} holds no kubeconfig: expected clusters, users, contexts")
    for path, loaded in filled.items():
        _check_kind(loaded, path)
        for section in _SECTIONS:
            for entry in _entries(loaded.get(section) or [], section, path).values():
                merged.sections[section].setdefault(entry.name, entry)
        merged.current = merged.current or _text(loaded, "current-context", path)
    return merged


def is_file(path: Path) -> bool:
    """False if there is none. Raises PermissionError where we may not look; Path.is_file() of 3.14 hides that."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        raise
    except (OSError, ValueError):  # it does not exist, or its name is too long
        return False


def _check_kind(loaded: dict[str, Any], path: str) -> None:
    given = loaded.get("apiVersion") or "v1", loaded.get("kind") or "Config"
    if given != ("v1", "Config"):
        raise _unreadable(path, "its apiVersion and kind are not v1 and Config: it is no kubeconfig")


def _entries(given: Any, section: str, path: str) -> dict[str, Entry]:
    if not isinstance(given, list):
        raise _unreadable(path, f"expected {section} to be a list")
    found: dict[str, Entry] = {}
    for number, item in enumerate(given, 1):
        if item is not None:
            entry = _entry(item, section, number, path)
            if entry.name in found:
                raise _unreadable(path, f"entry {number} of {section} has the name of another one")
            found[entry.name] = entry
    return found


def _entry(item: Any, section: str, number: int, path: str) -> Entry:
    name = (item.get("name") or "") if isinstance(item, dict) else None
    if not isinstance(name, str):
        raise _unreadable(path, f"entry {number} of {section} has no name")
    value = item.get(section[:-1]) or {}
    if not isinstance(value, dict):
        raise _unreadable(path, f"entry {number} of {section}: expected `{section[:-1]}` to be a map")
    return Entry(section, name, without_nulls(value), path)


def without_nulls(value: Any) -> Any:
    """To Go null and absent are one, and so they are to msgspec then; what an extension holds is passed on as it is."""
    if isinstance(value, dict):
        return {k: v if k == "extension" else without_nulls(v) for k, v in value.items() if v is not None}
    return value if not isinstance(value, list) else [without_nulls(item) for item in value]


def _text(loaded: dict[str, Any], member: str, path: str) -> str:
    value = loaded.get(member) or ""
    if not isinstance(value, str):
        raise _unreadable(path, f"expected {member} to be text")
    return value


def _load(path: str) -> Any:
    import yaml

    text = _decoded(path)
    try:
        # kubectl reads the first document and looks at no other
        return next(iter(yaml.load_all(text, _loader())), None)
    except yaml.MarkedYAMLError as error:
        raise _unreadable(path, f"{_where(error)}{_problem(error.problem)}; is it whole?") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _unreadable(path, f"line {line}: it holds a character that YAML does not allow") from None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, f"it holds a value that is none in YAML ({type(error).__name__})") from None


def _decoded(path: str) -> str:
    try:
        raw = Path(path).read_bytes()
    except PermissionError:  # whoever asked knows who may read it
        raise
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    encoding = next((name for mark, name in _ENCODINGS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise _unreadable(path, "it is no UTF-8; save it as UTF-8") from None


def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's, but what looks like a date is text, as in Go's YAML."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _unreadable(path: str, problem: str) -> ConfigError:
    return ConfigError(f"KUBECONFIG {path!r} cannot be read: {problem}")


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _problem(problem: str | None) -> str:
    """PyYAML's problem, up to where it begins to quote the file."""
    own = _OWN_WORDS.sub(r"\1", problem or "")
    return _QUOTE.split(own)[0].strip() or "it is no YAML"
