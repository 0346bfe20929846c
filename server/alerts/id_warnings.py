"""Warnings about ids that requests about alerts name and that the organization does not have."""

from collections.abc import Sequence

from generated.tidemark.v1 import warning_pb2
from runtime.turns import Slices
from server.mapping import unknown_ids
from server.mapping.unknown_ids import NamedIds
from store.accounts import known_ids
from store.postgres.database import Connection


async def warnings_of(
    connection: Connection, organization_id: int, named: Sequence[NamedIds]
) -> list[list[warning_pb2.Warning]]:
    """The warnings about the ids of each request.

    Call it before the transaction locks the organization, so that usage does not wait for these reads.
    """
    unknown = await known_ids.unknown_of_each(connection, organization_id, [one.ids for one in named])
    found, slices = list[list[warning_pb2.Warning]](), Slices(organization_id)
    slices.begin_at_once()
    for one in named:
        found.append(unknown_ids.warnings(one, unknown[one.ids]))
        await slices.pause()
    return found
