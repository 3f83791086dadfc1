"""kubernetes_asyncio without its models and APIs: a session, its configuration, and the credentials of a Pod.

Its packages import what belongs to each of 700 kinds as soon as anything of them is imported: 33 MiB, and 0.2 s of a
start, for classes that no page is ever put into. Here these packages are registered empty, unless they were imported
already, so that their modules come one by one. Whoever wants one of its names imports it from here.

Issue: https://github.com/tomplus/kubernetes_asyncio/issues/293. It can go when the packages import lazily.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

ROOT = "kubernetes_asyncio"


def _register_empty() -> None:
    """The packages that import models, and what other modules take from them."""
    if ROOT in sys.modules or (spec := find_spec(ROOT)) is None or not spec.submodule_search_locations:
        return
    root = _register(ROOT, spec.submodule_search_locations[0])
    client = root.client = _register(f"{ROOT}.client", f"{spec.submodule_search_locations[0]}/client")  # type: ignore[attr-defined]
    client.models = _register(f"{ROOT}.client.models")  # type: ignore[attr-defined]
    for module, name in (("configuration", "Configuration"), ("api_client", "ApiClient")):
        setattr(client, name, getattr(import_module(f"{ROOT}.client.{module}"), name))


def _register(name: str, *folders: str) -> ModuleType:
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = list(folders)
    return package


_register_empty()

from kubernetes_asyncio.client import ApiClient, Configuration  # noqa: E402
from kubernetes_asyncio.config.config_exception import ConfigException  # noqa: E402
from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader  # noqa: E402
from kubernetes_asyncio.config.kube_config import FileOrData  # noqa: E402

__all__ = ["ApiClient", "ConfigException", "Configuration", "FileOrData", "InClusterConfigLoader"]
