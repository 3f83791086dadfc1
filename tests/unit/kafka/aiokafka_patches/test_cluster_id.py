"""Who answers is noticed in every answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from clusterinfo.kafka.aiokafka_patches.cluster_id import notice_other_cluster


def test_another_cluster_is_noticed_and_metadata_is_taken_in_all_the_same() -> None:
    taken: list[Any] = []
    others: list[str] = []
    cluster = SimpleNamespace(update_metadata=taken.append)
    consumer: Any = SimpleNamespace(_client=SimpleNamespace(cluster=cluster))
    notice_other_cluster(consumer, "first", others.append)
    answers: list[Any] = [SimpleNamespace(cluster_id=one) for one in ("first", None, "", "second")]
    answers.append(SimpleNamespace())  # version 1 of the answer has no such field
    for metadata in answers:
        cluster.update_metadata(metadata)
    assert others == ["second"]
    assert taken == answers
