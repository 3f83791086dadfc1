"""Time is linear in an object, whatever a stranger who may create one writes into it: compared at two sizes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction import search
from clusterinfo.kubernetes.redaction.manifests import holds_secret
from clusterinfo.kubernetes.redaction.names import judge
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.values import is_harmless
from clusterinfo.kubernetes.redaction.walk import Rules, walk
from clusterinfo.model import GroupVersionResource

CLOUDS = GroupVersionResource("shop.example.com", "v1", "clouds", "Cloud", namespaced=True)
RULES = Rules(conceal=lambda value, field: "[hidden]")


def seconds(run: Callable[[], object], times: int = 1) -> float:
    def once() -> float:
        started = time.process_time()
        for _ in range(times):
            run()
        return time.process_time() - started

    return min(once() for _ in range(3))


@pytest.mark.parametrize("unit", ["x", "*", "$AXXX", "$AX", "$A", "%A%", "<a>", "{{}}", "$(A)", "aB", "a-", "/a", "1."])
@pytest.mark.parametrize("name", ["password", "DB_PASSWORD", "secretKey", "secret", "jwt"])
def test_a_value_is_read_in_one_way(unit: str, name: str) -> None:
    """One of 80 `x` and a letter took a week, as what may be two placeholders, or three."""
    short, long = (unit * (length // len(unit)) + "!" for length in (15, 30))

    def read(value: str) -> Callable[[], object]:
        return lambda: is_harmless(value, judge(name), name)

    assert seconds(read(long), 50) < 20 * seconds(read(short), 50)


def text(value: str) -> None:
    walk(json.dumps(value).encode(), "note", RULES)


def spec(value: str) -> None:
    normalize(b'{"metadata":{"name":"x"},"spec":%s}' % value.encode(), CLOUDS, Redaction())


def behind(value: str) -> None:
    assert not search._value_follows(value.encode())


def members(value: str) -> None:
    assert not search._names_value(value.encode())


CASES: dict[str, tuple[Callable[[str], object], str, str, str, int]] = {
    "values in values": (text, "", "token=$(", "", 10_000),
    "values that begin with a backslash": (text, "", "token=\\", "", 10_000),
    "values that are concealed": (text, "", "token=redacted:len<=", "", 10_000),
    "values that are somewhere else": (text, "", "token=vault:", "", 10_000),
    "values that are addresses": (text, "", "cookie=https://", "", 10_000),
    "manifests in comments": (holds_secret, "", '"kind: Secret #', "\\x", 20_000),
    "names": (members, "", '"name":"pwd",', "", 20_000),
    "ends of arrays": (behind, '"x":"', "],", '"}', 10_000),
    "a value that waits for its name": (spec, '{"value":"x","a":{', '"password":"hunter2",', '"b":1}}', 80_000),
}


@pytest.mark.parametrize(("run", "before", "unit", "after", "size"), CASES.values(), ids=CASES)
def test_four_times_as_much_takes_four_times_as_long(
    run: Callable[[str], object], before: str, unit: str, after: str, size: int
) -> None:
    """The limit of 9 leaves room for a busy machine, and 16 is what takes the square."""
    short, long = (before + unit * (length // len(unit)) + after for length in (size, 4 * size))

    assert seconds(lambda: run(long)) < 9 * seconds(lambda: run(short)) + 0.01


@pytest.mark.parametrize(
    "piece",
    [
        b'"name":"DB_PASSWORD","value":"x"',
        b'"a":1},"name":"DB_PASSWORD"',
        b'"name":"x","a":"}","name":"DB_PASSWORD"',
        b'"name":"x","a":[1],"key":"DB_PASSWORD"',
        b'"name":"DB_PASSWORD","values":[',
        b'x","name":"y","name":"DB_PASSWORD"',
        b'"a\\"b":1,"name":"y","name":"DB_PASSWORD"',
    ],
)
def test_a_value_may_belong_to_a_name(piece: bytes) -> None:
    assert search._names_value(piece)


@pytest.mark.parametrize(
    ("piece", "follows"),
    [
        (b'"a":1},"value":"x"}', True),
        (b'"a":1} , "b":"c" , "value" :"x"}', True),
        (b'"a":[1],"b":2},"c":[1],"d":1,"default":"x"}', True),
        (b'"value":"x"}', False),
        (b'"value":"x"},"b":1}', False),
        (b'"a":1},"b":["value"]}', False),
    ],
)
def test_a_value_follows_behind_an_object(piece: bytes, *, follows: bool) -> None:
    assert search._value_follows(piece) is follows


def test_a_comment_hides_no_manifest() -> None:
    assert holds_secret("kind: Secret # of C:\\x\ndata:\n  a: aHVudGVyMg==\n")


@pytest.mark.parametrize("begin", ["$(", "`", "vault:", "redacted:len<=", "https://"])
def test_a_long_value_is_harmless_under_no_beginning(begin: str) -> None:
    shown = walk(json.dumps(f"x token={begin}{'hunter2' * 200} y").encode(), "note", RULES)

    assert shown == b'"x token=[hidden] y"'


def test_an_escape_begins_no_value() -> None:
    raw = json.dumps("x token=\\nhunter2 y").encode()

    assert walk(raw, "note", RULES) == raw
