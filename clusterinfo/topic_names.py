"""KAFKA_TOPIC: the name of one topic, or, for who consumes, several names, of which some end in `*`. Pure.

Source: org.apache.kafka.common.internals.Topic, "Topic names can be up to 249 characters long and may contain only
ASCII alphanumerics, '.', '_' and '-'"; "." and ".." are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_INTERNAL = "__"
"""What Kafka's own topics begin with (`__consumer_offsets`): a `*` means none of them."""

ALLOWED = (
    "allowed is a topic's name (letters, digits, '.', '_' and '-'); a consumer may have several, separated by commas, "
    "and end each in *, such as clusters-*"
)


def is_topic_name(text: str) -> bool:
    """True for what Kafka takes as a topic's name."""
    return bool(_NAME.fullmatch(text)) and text not in (".", "..")


@dataclass(frozen=True, slots=True)
class TopicNames:
    """What KAFKA_TOPIC says: `names` of topics that must be there, `prefixes` of those that may come at any time."""

    given: str
    names: tuple[str, ...]
    prefixes: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> TopicNames:
        """Read the setting. Raises ValueError with what is allowed."""
        parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        names = tuple(part for part in parts if not part.endswith("*"))
        prefixes = tuple(part[:-1] for part in parts if part.endswith("*"))
        if not parts or not all(map(is_topic_name, (*names, *prefixes))):
            raise ValueError(ALLOWED)
        return cls(",".join(parts), names, prefixes)

    @property
    def single(self) -> str | None:
        """The one topic it names; None if it may be several."""
        return self.names[0] if len(self.names) == 1 and not self.prefixes else None

    def matches(self, topic: str) -> bool:
        """Whether a topic is one of them."""
        return topic in self.names or any(
            topic.startswith(prefix) and (prefix.startswith(_INTERNAL) or not topic.startswith(_INTERNAL))
            for prefix in self.prefixes
        )

    def pattern(self) -> re.Pattern[str]:
        """The same as a regular expression, of which a topic is the whole."""
        names = [re.escape(name) for name in self.names]
        prefixes = [
            ("" if p.startswith(_INTERNAL) else f"(?!{_INTERNAL})") + re.escape(p) + ".*" for p in self.prefixes
        ]
        return re.compile(f"(?:{'|'.join((*names, *prefixes))})$")
