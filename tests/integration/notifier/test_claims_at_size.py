"""A claim beside many organizations and endpoints that have work: its plan shows how many rows it compares."""

from datetime import timedelta

from sqlalchemy import text

from store.deliveries import claims
from store.deliveries.claims import ClaimRequest
from store.deliveries.queue import SETTINGS
from store.postgres.database import Database
from tests.support.postgres.plans import recorded
from tests.support.server.sharing import own_database

pytestmark = own_database

ORGANIZATIONS, ENDPOINTS = 40, 20  # endpoints: of each organization; each has one delivery that is due

FILL = (
    "INSERT INTO organization (name, create_time) SELECT 'o' || number, now() FROM generate_series(1, :organizations)"
    " AS number",
    "INSERT INTO endpoint (organization_id, endpoint_id, url, event_types, state, create_time)"
    " SELECT organization_id, 'whe_' || number, 'https://example.com', '{}', 'ENABLED', now()"
    " FROM organization, generate_series(1, :endpoints) AS number WHERE name LIKE 'o%'",
    "INSERT INTO delivery_live (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,"
    " status, create_time, next_attempt_time)"
    " SELECT organization_id, 'whd_' || endpoint_id, endpoint_id, 'ntf', 'ann', 'alert.reached', 'PENDING', now(),"
    " now() FROM endpoint",
)
ANALYZE = text("ANALYZE organization, endpoint, delivery_live")


async def test_a_claim_compares_no_endpoint_with_the_organizations_of_others(
    database: Database, database_url: str
) -> None:
    async with database.transaction() as connection:
        parameters = {"organizations": ORGANIZATIONS, "endpoints": ENDPOINTS}
        for statement in FILL:
            wanted = {name: value for name, value in parameters.items() if f":{name}" in statement}
            await connection.execute(text(statement), wanted)
    # A cluster does not analyze tables of the coordinator in the transaction that has filled them.
    async with database.transaction() as connection:
        await connection.execute(ANALYZE)
    with recorded(lambda: True) as statements:
        async with database.transaction() as connection:
            claimed = await claims.claim(connection, ClaimRequest(limit=ORGANIZATIONS, lease=timedelta(minutes=1)))
    # One delivery of each organization.
    assert len({one.organization_id for one in claimed}) == len(claimed) == ORGANIZATIONS
    cost = statements.costs(database_url, SETTINGS)[0]
    assert "first_waiting" in cost.statement
    assert cost.mismatches <= ORGANIZATIONS * ENDPOINTS
