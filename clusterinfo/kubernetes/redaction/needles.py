"""A search for any of many words at once, in bytes, by an Aho-Corasick automaton: some 4 ns a byte. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation

NOT_IN: Final = {"pat": b"path", "secret": b',"mountpath":"/var/run/secrets/kubernetes.io/serviceaccount"'}
"""Word -> the text in which it is not counted: every Pod mounts its token there, beside a name that no other has."""


class Needles:
    """Words, to be found as they are written here. One that lies within another need not be found beside it."""

    def __init__(self, words: Iterable[str], not_in: Mapping[str, bytes] = NOT_IN) -> None:
        known = list(dict.fromkeys(words))
        self._automaton = BytesAhoCorasick([word.encode() for word in known], implementation=Implementation.DFA)
        self._not_in = [_around(word, not_in.get(word, b"")) for word in known]

    def ends(self, data: bytes) -> list[int]:
        """Where words end, in order: at least one of those that overlap."""
        not_in = self._not_in
        return [
            end
            for number, _, end in self._automaton.find_matches_as_indexes(data)
            if (around := not_in[number]) is None or data[end - around[0] : end + around[1]] != around[2]
        ]

    def are_in(self, data: bytes) -> bool:
        """True if one of the words is."""
        return bool(self.ends(data))


def _around(word: str, text: bytes) -> tuple[int, int, bytes] | None:
    """How far `text` reaches before and behind the end of the word in it."""
    if not text:
        return None
    before = text.index(word.encode()) + len(word)
    return before, len(text) - before, text
