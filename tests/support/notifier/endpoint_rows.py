"""The rows of endpoints, changed and read without the API."""

from typing import Any

from sqlalchemy import select, text, update

from store.tables.webhooks import endpoint
from tests.support.notifier.house import House


async def change(house: House, endpoint_id: str | None = None, **values: Any) -> None:
    """Sets columns of one endpoint, or of all; text values that begin with now() are SQL."""
    statement = update(endpoint).values(
        {name: text(value) if str(value).startswith("now()") else value for name, value in values.items()}
    )
    if endpoint_id is not None:
        statement = statement.where(endpoint.c.endpoint_id == endpoint_id)
    async with house.database.transaction() as connection:
        await connection.execute(statement)


async def row_of(house: House, endpoint_id: str) -> Any:
    """The row of an endpoint."""
    async with house.database.transaction() as connection:
        found = await connection.execute(select(endpoint).where(endpoint.c.endpoint_id == endpoint_id))
        return found.one()
