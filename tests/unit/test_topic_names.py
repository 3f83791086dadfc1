"""KAFKA_TOPIC as it may be written, and what it means."""

from __future__ import annotations

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.settings import load
from clusterinfo.topic_names import TopicNames

MEANT = {
    "cluster-info": {"cluster-info"},
    "a,b": {"a", "b"},
    " a , a,, b ": {"a", "b"},
    "clusters.*": {"clusters.eu", "clusters."},
    "a,clusters.eu*": {"a", "clusters.eu"},
    "__internal*": {"__internal"},
    "_*": {"_schemas"},
}
TOPICS = {
    "cluster-info",
    "a",
    "b",
    "ab",
    "clusters",
    "clusters.",
    "clusters.eu",
    "clustersXeu",
    "__internal",
    "_schemas",
}


@pytest.mark.parametrize("given", MEANT)
def test_what_is_meant_is_matched_and_nothing_else(given: str) -> None:
    names = TopicNames.parse(given)
    assert {topic for topic in TOPICS if names.matches(topic)} == MEANT[given]
    assert {topic for topic in TOPICS if names.pattern().match(topic)} == MEANT[given]


@pytest.mark.parametrize("given", ["", ",", "*", "a,*", "a*b", "a b", "a/b", "..", "ä", "x" * 250, "a\nb", "a**"])
def test_what_is_no_topic_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="allowed is a topic's name"):
        TopicNames.parse(given)


@pytest.mark.parametrize("given", ["a,b", "a*", "*", "no topic"])
def test_a_collector_sends_to_one_topic(given: str) -> None:
    with pytest.raises(ConfigError, match=r"KAFKA_TOPIC is '.*allowed is") as refused:
        load({"KAFKA_TOPIC": given}).sending_topic()
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_one_topic_is_one() -> None:
    assert load({"KAFKA_TOPIC": "a,a"}).sending_topic() == "a"
    assert load({}).sending_topic() == "cluster-info"
