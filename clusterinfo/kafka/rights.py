"""What the user may do with topics and a group: "authorized operations", which a broker tells since Kafka 2.3.

aiokafka (0.14.0) has no request that asks for those of topics, and does not read the answer about groups (KIP-430).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

_NOT_TOLD = -(2**31)
_TEXT = String("utf-8")
Struct = TypeVar("Struct", bound=RequestStruct)


class Operation(IntEnum):
    """Codes of org.apache.kafka.common.acl.AclOperation: the bits of an answer."""

    Read = 3
    Write = 4


class _MetadataResponse(Response):  # type: ignore[misc]  # aiokafka is untyped
    """https://kafka.apache.org/protocol#The_Messages_Metadata, version 8"""

    API_KEY, API_VERSION = 3, 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION, RESPONSE_TYPE = 3, 8, _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(_TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, struct: type[_MetadataStruct]) -> _MetadataStruct:
        return struct(self._topics, False, False, True)


class _GroupsResponse(Response):  # type: ignore[misc]  # aiokafka is untyped
    """https://kafka.apache.org/protocol#The_Messages_DescribeGroups, version 3"""

    API_KEY, API_VERSION = 15, 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", _TEXT),
                ("state", _TEXT),
                ("protocol_type", _TEXT),
                ("protocol", _TEXT),
                (
                    "members",
                    Array(
                        ("member_id", _TEXT),
                        ("client_id", _TEXT),
                        ("client_host", _TEXT),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _GroupsStruct(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION, RESPONSE_TYPE = 15, 3, _GroupsResponse
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))


class _GroupsRequest(Request[_GroupsStruct]):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = 15

    def __init__(self, groups: list[str]) -> None:
        self._groups = groups

    def build(self, struct: type[_GroupsStruct]) -> _GroupsStruct:
        return struct(self._groups, True)


async def on_topics(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, frozenset[Operation] | None]:
    """Topic -> what may be done with it; None where the broker does not tell. Makes no topic. Raises KafkaError."""
    response = await _sent(admin, _MetadataRequest(names))
    topics = response.topics if response else []
    return dict.fromkeys(names) | {topic: operations(bits) for code, topic, _, _, bits in topics if not code}


async def on_group(admin: AIOKafkaAdminClient, name: str) -> frozenset[Operation] | None:
    """What may be done with a group, whether there is one or not; None where the broker does not tell.

    Raises KafkaError, also if the group may not even be described.
    """
    response = await _sent(admin, _GroupsRequest([name]), await admin.find_coordinator(name))
    if response is None:
        return None
    [(code, *_, bits)] = response.groups
    if code:
        raise for_code(code)()
    return operations(bits)


def operations(bits: int) -> frozenset[Operation] | None:
    """Those of an answer that matter here; None if it has none."""
    return None if bits == _NOT_TOLD else frozenset(one for one in Operation if bits >> one & 1)


async def _sent(admin: AIOKafkaAdminClient, request: Request[Any], node: int | None = None) -> Any:
    """The answer; None from a broker that is too old for the question."""
    client = admin._client
    try:
        return await client.send(client.get_random_node() if node is None else node, request)
    except (IncompatibleBrokerVersion, NotImplementedError):
        return None
