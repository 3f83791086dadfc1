"""Kafka's ACLs: as SECURITY.md lists them for each role, and as a broker is given them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateAclsRequest

DOCUMENT = Path(__file__).parents[2] / "SECURITY.md"
_ROW = re.compile(r"^\| `(\w+)` \| (topic|group) `(\w+)` \| `(\w+)` \| (\w+)", re.MULTILINE)

# Codes of org.apache.kafka.common.resource.ResourceType and org.apache.kafka.common.acl.AclOperation
_RESOURCES = {"topic": 2, "group": 3}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3  # and of PatternType and AclPermissionType


@dataclass(frozen=True, slots=True)
class Acl:
    """`operation` on a `resource` (topic or group) whose name stands in `variable`. `is_needed`: else refused."""

    role: str
    resource: str
    variable: str
    operation: str
    is_needed: bool

    def __str__(self) -> str:
        return f"{self.role}-{self.operation} on {self.resource}"


def documented() -> list[Acl]:
    """The rows of SECURITY.md's table."""
    table = DOCUMENT.read_text(encoding="utf-8").split("<!-- acls -->")[1].split("<!-- /acls -->")[0]
    rows = _ROW.findall(table)
    return [Acl(role, kind, name, operation, without == "refused") for role, kind, name, operation, without in rows]


async def allow(bootstrap: str, principal: str, acls: Iterable[Acl], env: dict[str, str]) -> None:
    """Grant `acls`, for the topic and group that `env` names, to a user; `bootstrap`: where anybody is a super user.

    A topic that ends in `*` is a prefix.
    """
    host, port = bootstrap.split(":")
    connection = await create_conn(host, int(port), client_id="tests")
    try:
        for acl in acls:
            resource, operation = _RESOURCES[acl.resource], _OPERATIONS[acl.operation]
            name = env[acl.variable]
            pattern = _PREFIXED if name.endswith("*") else _LITERAL
            request = CreateAclsRequest(
                resource, name.removesuffix("*"), pattern, f"User:{principal}", "*", operation, _ALLOW
            )
            response = await connection.send(request)
            assert [code for code, _ in response.creation_responses] == [0], response
    finally:
        connection.close()
