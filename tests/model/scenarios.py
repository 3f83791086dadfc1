"""Short stories in which a guard is all that stands between the merge and a wrong row.

A scene uses the rules that any history is made of; what it leaves open (kinds, names, contents, crashes) is drawn.
Each must pass with every guard in place, whatever happened before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

from tests.model.events import KINDS, NAMES, NAMESPACES, Change, Job, Plan, Wish
from tests.model.schedule import AFTER, AT_COMMIT, Crash
from tests.model.state import NUL, REFUSED, SECOND, WILD

if TYPE_CHECKING:
    from tests.model.machine import History

LONG = 120 * SECOND
"""Longer than a slow list takes."""

LISTED = tuple(range(len(KINDS)))
WATCHED = tuple(number for number, kind in enumerate(KINDS) if not kind.by_clock)
"""Kinds (numbers in `KINDS`): all, and those that are watched as well."""


def _put(random: Random, kind: int, *, name: str = "", namespace: str = "", watched: bool = False) -> Change:
    return Change(
        kind,
        namespace or random.choice(NAMESPACES),
        name or random.choice(NAMES),
        "put",
        random.choice((0, 1, 2)),
        watched,
    )


def _delete(change: Change, *, watched: bool = False) -> Change:
    return Change(change.kind, change.namespace, change.name, "delete", 0, watched)


def _some(random: Random, kind: int) -> tuple[Change, ...]:
    """An object of each name in each namespace, or of most of them."""
    return tuple(
        _put(random, kind, name=name, namespace=namespace)
        for name in NAMES
        for namespace in NAMESPACES
        if random.random() < 0.8
    ) or (_put(random, kind),)


def _wish(
    random: Random,
    kind: int,
    fate: str = "whole",
    *,
    reach: str = "",
    rules: int = 1,
    stubs: int = 0,
    slow: bool = False,
) -> Wish:
    return Wish(0, kind, reach, rules, stubs, slow, fate, random.randrange(6))


def _known(history: History, random: Random, kinds: tuple[int, ...] = LISTED) -> int:
    """One of these kinds, which is served, listed once, its records stored."""
    kind = random.choice(kinds)
    cluster = history.world.clusters[0]
    cluster.gone.discard(KINDS[kind].id)
    cluster.excluded.discard(KINDS[kind].id)
    history.collect(_wish(random, kind), None)
    history.drain()
    return kind


def superseded(history: History, random: Random) -> None:
    """An older sighting comes again when a newer one is stored."""
    kind = _known(history, random)
    change = _put(random, kind)
    history.change(0, (_delete(change), change), None)
    history.collect(_wish(random, kind, "late"), None)
    history.change(0, (Change(kind, change.namespace, change.name, "recreate", random.choice((0, 1, 2)), False),), None)
    history.collect(_wish(random, kind), None)
    history.drain()
    _release(history, random)


def _release(history: History, random: Random) -> None:
    history.deliver_late(len(history.held), None)
    history.drain(random.choice((1, 2, 3, 100)))


def stubbed(history: History, random: Random) -> None:
    """An object that was stored whole is sent as a stub, at the same version."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    orders = [(1, 0), (1, 7)]
    random.shuffle(orders)
    for rules, stubs in [(1, 0), *orders]:
        history.collect(_wish(random, kind, rules=rules, stubs=stubs), None)
        history.drain()


def unlearnt(history: History, random: Random) -> None:
    """An object that newer rules have cleaned is sent by older ones."""
    kind = _known(history, random)
    where = random.choice(NAMESPACES)
    history.change(0, (Change(kind, where, random.choice(NAMES), "put", 1, False),), None)
    for rules in (2, 1):
        history.collect(_wish(random, kind, rules=rules), None)
        history.drain()


def _broken(fate: str) -> Callable[[History, Random], None]:
    def story(history: History, random: Random) -> None:
        kind = _known(history, random)
        history.change(0, _some(random, kind), None)
        history.collect(_wish(random, kind), None)
        history.drain()
        history.change(1, (_put(random, kind),), None)
        history.collect(_wish(random, kind, fate), None)
        history.drain(random.choice((1, 2, 3, 100)))

    return story


def resurrected(history: History, random: Random) -> None:
    """What a proven list did not name any more comes late from an older one."""
    kind = _known(history, random)
    change = _put(random, kind)
    history.change(0, (change,), None)
    history.collect(_wish(random, kind, "late"), None)
    history.change(0, (_delete(change),), None)
    history.collect(_wish(random, kind, reach=random.choice(("", change.namespace))), None)
    history.drain()
    _release(history, random)


def buried(history: History, random: Random) -> None:
    """The same of what was deleted under a watch: its tombstone is all that is known."""
    kind = _known(history, random, WATCHED)
    change = _put(random, kind)
    history.change(0, (change,), None)
    history.collect(_wish(random, kind, "late"), None)
    history.change(0, (_delete(change, watched=True),), None)
    history.drain()
    _release(history, random)
    history.collect(_wish(random, kind), None)  # as of the deletion itself
    history.drain()


def overtaken_floor(history: History, random: Random) -> None:
    """A whole list arrives after a newer one is proven."""
    kind = _known(history, random)
    history.collect(_wish(random, kind, "late"), None)
    history.change(0, (_put(random, kind),), None)
    history.collect(_wish(random, kind), None)
    history.drain()
    history.deliver_late(len(history.held), None)
    history.drain()


def narrow(history: History, random: Random) -> None:
    """One namespace is listed; the other one's objects stay."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind), None)
    history.change(0, (_put(random, kind),), None)
    history.collect(_wish(random, kind, reach=random.choice(NAMESPACES)), None)
    history.drain()


def unanswered(history: History, random: Random) -> None:
    """The answer to a commit is lost, in the middle of a list."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind), None)
    for partition in range(history.partitions):
        for _ in range(3):
            crash = Crash(0, AT_COMMIT, AFTER, random.random() < 0.2)
            history.consume(Plan(Job(partition, random.choice((1, 2)), False), None, (), crash))


def usurped(history: History, random: Random) -> None:
    """An owner goes on although another one has claimed the partition and not stored anything yet."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind), None)
    for partition in range(history.partitions):
        size = random.choice((1, 2, 3))
        history.consume(Plan(Job(partition, size, True), None, (), None))
        runs = (random.randint(3, 40), random.randint(2, 4), 60)
        history.consume(Plan(Job(partition, size, False), Job(partition, size + 1, True), runs, None))
        runs = (1, random.randint(3, 6), 60)
        history.consume(Plan(Job(partition, size, False), Job(partition, size + 1, True), runs, None))


def crowded(history: History, random: Random) -> None:
    """Two partitions bring two versions of one object at the same time."""
    kind = _known(history, random, WATCHED)
    before = history.partitions, history.scattered
    history.partitions, history.scattered = 2, 1
    history.collect(_wish(random, kind), None)  # so that both partitions are known to carry the kind
    history.collect(_wish(random, kind), None)
    history.drain()
    for _ in range(4):
        change = _put(random, kind, watched=True)
        other = _put(random, kind, name=change.name, namespace=change.namespace, watched=True)
        history.change(0, (change, other), None)
        runs = tuple(random.randint(1, 9) for _ in range(12))
        history.consume(Plan(Job(0, 9, False), Job(1, 9, False), runs, None))
    history.partitions, history.scattered = before


def hasty(history: History, random: Random) -> None:
    """A completion overtakes items of its list."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind, "overtaken"), None)
    history.drain(random.choice((1, 2)))


def repeated(history: History, random: Random) -> None:
    """A list that is closed comes again."""
    kind = _known(history, random)
    history.change(0, (_put(random, kind),), None)
    history.collect(_wish(random, kind), None)
    history.drain()
    for partition in range(len(history.logs)):
        history.upset("send again", 0, partition, random.randint(1, 8), None)
    history.drain()


def abolished(history: History, random: Random) -> None:
    """A kind is gone, with all there was of it; what was seen of it before comes late."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind), None)
    history.drain()
    history.change(0, (_put(random, kind),), None)
    history.collect(_wish(random, kind, "late"), None)
    fates = tuple("gone" if number == kind else "completed" for number in range(len(KINDS)))
    history.snapshot(0, False, fates, True, None)
    history.drain()
    _release(history, random)
    _send_again(history, random.choice((1, 100)))


def paged(history: History, random: Random) -> None:
    """Pages are written without Kafka, two attempts at a time."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind, "pages"), None)
    while history.pages:
        history.write_page(True, tuple(random.randint(1, 20) for _ in range(3)), None)


def backwards(history: History, random: Random) -> None:
    """A cluster is restored from a backup and nobody says so: its next list fails, and deletes nothing."""
    cluster = history.world.clusters[0]
    kind = random.choice(WATCHED)
    if cluster.was_tainted:
        return
    cluster.gone.discard(KINDS[kind].id)
    cluster.excluded.discard(KINDS[kind].id)
    cluster.backups.clear()
    history.world.tick(LONG)  # what slow lists before reported of the kind is older than what comes now
    history.change(0, (_put(random, kind),), None)
    history.upset("restore in silence", 0, 0, 1, None)  # the first time: the backup is made
    history.change(0, _some(random, kind), None)
    history.collect(_wish(random, kind), None)
    history.drain()
    history.guarded_alarm(kind, lambda: history.upset("restore in silence", 0, 0, 1, None), _wish(random, kind))


def sluggish(history: History, random: Random) -> None:
    """Two collectors, a slow one that began first: older when it ends, and no alarm."""
    kind = _known(history, random)
    history.change(0, _some(random, kind), None)
    slow = Wish(0, kind, "", 1, 0, True, "late", 0)
    history.collect(slow, None)
    history.change(0, (_put(random, kind),), None)
    history.collect(_wish(random, kind), None)
    history.drain()
    history.deliver_late(len(history.held), None)
    history.drain()


def together(history: History, random: Random) -> None:
    """Lists of all namespaces and of single ones, of two kinds, are stored at once; between them objects go."""
    kinds = [_known(history, random, (kind,)) for kind in random.sample(LISTED, 2)]
    for kind in kinds:
        history.change(0, _some(random, kind), None)
        history.collect(_wish(random, kind), None)
    history.drain()
    for reach in random.sample(("", *NAMESPACES, "", *NAMESPACES), 4):
        for kind in kinds:
            history.change(0, (_put(random, kind), *(_delete(_put(random, kind)) for _ in range(2))), None)
            history.collect(_wish(random, kind, reach=reach, slow=random.random() < 0.3), None)
    history.drain()
    for partition in range(len(history.logs)):
        history.upset("send again", 0, partition, 3, None)
    history.drain()


def founded(history: History, random: Random) -> None:
    """Two partitions bring the first that is heard of a cluster, at the same time."""
    before = history.partitions
    history.partitions = 2
    for kind in WATCHED:
        history.change(0, (_put(random, kind, watched=True),), None)
    runs = tuple(random.randint(1, 6) for _ in range(6))
    history.consume(Plan(Job(0, 9, False), Job(1, 9, False), runs, None))
    history.partitions = before


def belated(history: History, random: Random) -> None:
    """A snapshot comes late, when its cluster is called otherwise and what it says of a kind is long past."""
    kind = _known(history, random)
    served = ("completed",) * len(KINDS)
    fate = random.choice(("gone", "excluded"))
    history.snapshot(
        0, False, tuple(fate if number == kind else "completed" for number in LISTED), True, None, late=True
    )
    history.snapshot(0, True, served, random.choice((True, False)), None)
    history.change(0, (_put(random, kind),), None)
    history.collect(_wish(random, kind, reach=random.choice(("", *NAMESPACES))), None)
    history.drain()
    _release(history, random)


def _in_any_order(size: int) -> Callable[[History, Random], None]:
    """One object changes again and again, is watched, and listed in every shape; it comes in order, or in any."""

    def story(history: History, random: Random) -> None:
        for kind in random.sample(WATCHED, len(WATCHED)):
            _known(history, random, (kind,))
            history.change(0, _some(random, kind), None)
            history.collect(_wish(random, kind), None)
        history.drain()
        key = random.choice(NAMESPACES), random.choice(NAMES)
        contents = random.choice(((0, 1, 2), (1, 1, 2), (0, 1, REFUSED, NUL, WILD)))
        history.holds_back = True
        for _ in range(random.randint(4, 12)):
            _changes_and_is_listed(history, random, kind, key, contents)
        history.holds_back = False
        if random.random() < 0.5:
            random.shuffle(history.held)
        history.deliver_late(len(history.held), None)
        history.drain(size)
        history.change(0, (Change(kind, *key, "delete", 0, False),), None)
        history.collect(_wish(random, kind, reach=random.choice(("", key[0]))), None)
        history.drain()
        _send_again(history, size)

    return story


def _send_again(history: History, size: int) -> None:
    """The last records of each partition come twice more."""
    for partition in range(len(history.logs)):
        for number in (8, 16):
            history.upset("send again", 0, partition, number, None)
    history.drain(size)


def _changes_and_is_listed(
    history: History, random: Random, kind: int, key: tuple[str, str], contents: tuple[int | str, ...]
) -> None:
    what = random.choice(("put", "put", "put", "put", "delete", "recreate", "", "restore backwards"))
    watched = random.random() < 0.6
    if what.startswith("restore"):
        history.upset(what, 0, 0, 1, None)
    elif what:
        history.change(0, (Change(kind, *key, what, random.choice(contents), watched),), None)
    for _ in range(random.choice((0, 1, 1, 2))):
        reach, rules, stubs = random.choice(("", "", key[0])), random.choice((1, 1, 2)), random.choice((0, 0, 7))
        history.collect(_wish(random, kind, reach=reach, rules=rules, stubs=stubs), None)


SCENES: Mapping[str, Callable[[History, Random], None]] = {
    "superseded": superseded, "stubbed": stubbed, "unlearnt": unlearnt, "incomplete": _broken("lost"),
    "swapped": _broken("swapped"), "resurrected": resurrected, "buried": buried, "overtaken floor": overtaken_floor,
    "narrow": narrow, "unanswered": unanswered, "usurped": usurped, "crowded": crowded, "hasty": hasty,
    "repeated": repeated, "abolished": abolished, "paged": paged, "backwards": backwards, "sluggish": sluggish,
    "together": together, "founded": founded, "belated": belated, "shuffled": _in_any_order(100),
    "singly": _in_any_order(1),
}  # fmt: skip
