"""List versions that stand still while their objects change: they order nothing, so time has to.

One version of a list is one state of a kind. Two records that contradict each other at one version, or a list that
holds fewer objects than are known as of its version, show a server that does not keep to that. From then on the kind is
ordered by when its lists began; what is under way proves nothing, and the next list puts everything right.
"""

from __future__ import annotations

from typing import Any

from clusterinfo.postgres.merge.staging import Staged
from clusterinfo.postgres.sql import statements


async def notice_contradictions(connection: Any, staged: Staged) -> None:
    """Note the kinds of which staged records contradict one another, a row or a floor. Runs before the plan."""
    units = [row["id"] for row in await connection.fetch(statements()["find_contradictions"])]
    if units:
        staged.standing.update(units)
        await connection.execute(statements()["drop_unit_progress"], units)


async def find_standing(connection: Any, staged: Staged) -> set[int]:
    """The units that are known to stand still since this batch: their lists prove nothing. Runs after the rows."""
    surplus = [row["id"] for row in await connection.fetch(statements()["find_stalled"])]
    if surplus:
        staged.standing.update(surplus)
        await connection.execute(statements()["drop_unit_progress"], surplus)
    return staged.standing
