"""A pytest plugin: tests run without a guard of the merge, or of following, and have to fail.

`tests/model/conftest.py` registers it where the whole folder is run: it adds the tests that `mutations.py` and
`code_guards.py` name, each once for every guard that it misses. With `-p tests.model.gate --without GUARD` whatever is
run is run without that guard ("STATEMENT: WORDS", or the rule of one in Python), to see who misses it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.model.code_guards import CODE_GUARDS, CodeGuard
from tests.model.guards import Guard
from tests.model.mutations import Mutation, all_guards, mutations, without

ROOT = Path(__file__).parents[2]
WHAT_TESTS_RAISE = Exception, pytest.fail.Exception
"""`pytest.raises` and `pytest.fail` raise what is no Exception."""
Missed = Mutation | CodeGuard
KNOWN: dict[str, Guard | CodeGuard] = {**all_guards(), **{one.name: one for one in CODE_GUARDS}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without", metavar="GUARD", choices=list(KNOWN), help="run without this guard")


def tests_that_miss_one() -> dict[str, list[Missed]]:
    """Id of a test -> the mutations that it has to notice."""
    found: dict[str, list[Missed]] = {}
    missed: list[Missed] = [*(one for one in mutations() if not one.is_missed_by_a_scene), *CODE_GUARDS]
    for mutation in missed:
        found.setdefault(mutation.missed_by, []).append(mutation)
    return found


def is_whole(config: pytest.Config) -> bool:
    """True if the folder of the model is run as a whole."""
    return Path(__file__).parent in [Path(argument).resolve() for argument in config.args]


def add_tests(config: pytest.Config) -> None:
    """Let `config` collect these tests too."""
    files = sorted({str(ROOT / test.partition("[")[0]) for test in tests_that_miss_one()})
    config.args += [file for file in files if file not in config.args]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that misses guards, once for each; last, so that what it is given besides comes first in its id."""
    name = metafunc.definition.nodeid
    chosen = {
        mutation.guard.name: mutation
        for test, missed in tests_that_miss_one().items()
        if test.partition("[")[0] == name
        for mutation in missed
    }
    if chosen:
        metafunc.fixturenames.append("mutation")
        metafunc.parametrize("mutation", list(chosen.values()), ids=list(chosen))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test that is given something besides, the variant that is meant is kept. Raises UsageError."""
    kept = [item for item in items if _is_meant(item)]
    files = {item.nodeid.partition("::")[0] for item in items}
    wanted = {one.guard.name: one.missed_by for missed in tests_that_miss_one().values() for one in missed}
    wanted = {name: test for name, test in wanted.items() if test.partition("::")[0] in files}
    found = {mutation.guard.name for item in kept if (mutation := _mutation(item))}
    if is_whole(config) and (lost := {name: test for name, test in wanted.items() if name not in found}):
        raise pytest.UsageError(f"no such tests: {lost}")
    items[:] = kept


def _is_meant(item: pytest.Item) -> bool:
    mutation = _mutation(item)
    if mutation is None:
        return True
    test, _, given = mutation.missed_by.removesuffix("]").partition("[")
    return item.nodeid == f"{test}[{given}{'-' if given else ''}{mutation.guard.name}]"


def _mutation(item: pytest.Item) -> Missed | None:
    """The mutation that this item is to fail with."""
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    found = params.get("mutation")
    if isinstance(found, Mutation) and found.is_missed_by_a_scene:
        return None
    return found if isinstance(found, Missed) else None


def _fails(mutation: Missed) -> Generator[None, Any, bool]:
    with without(mutation.guard):
        try:
            yield
        except WHAT_TESTS_RAISE:
            return True
    return False


def _forget_what_is_left() -> None:
    """A test that fails in its middle leaves connections open, of which nobody is to hear."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    gc.collect()
    sys.unraisablehook = hook


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """The test itself runs without the guard, not its fixtures; that it fails is what is wanted."""
    if name := pyfuncitem.config.getoption("--without", None):
        with without(KNOWN[name]):
            return (yield)
    mutation = _mutation(pyfuncitem)
    if mutation is None:
        return (yield)
    if (yield from _fails(mutation)):
        _forget_what_is_left()
        return True
    return pytest.fail(f"it passes without {mutation.guard.name!r}", pytrace=False)
