"""The backlog: the work that waits in the database, with the age of the oldest of each kind.

One statement reads all of it. Its cost does not grow with the backlog: counts stop at MOST_COUNTED, and the oldest
row is the first of an index. Only the part about deliveries takes a step for each endpoint that has some waiting, as
the poll of an idle notifier does.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from store.deliveries.outbox import OLDEST_TIME
from store.deliveries.queue import DUE_ENDPOINTS, OPEN, SETTINGS
from store.postgres.database import Connection, driver
from store.postgres.distributed import on_cluster

MOST_COUNTED = 10_000  # rows of a kind; a larger backlog counts as this many
_OLDEST_OF = 200  # notifications without a position, among which the oldest is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits. The times of the oldest are None when nothing of that kind waits.

    read_time: of PostgreSQL's clock. outbox: notifications that are not fanned out to endpoints yet. due_deliveries:
    the oldest time at which a delivery became due to an endpoint that may get one now; waiting_deliveries: to any
    endpoint, also one whose receiver fails or is slow. timers: the earliest timer, which may lie ahead. backfills:
    alerts that are not evaluated on all that exists yet, and the last change of one of them. feed: notifications that
    have no position in the feed of their organization yet, and on a cluster those that placing still has to delete;
    unseen_feed: those of the first _OLDEST_OF that do not show. reservations: those that are open. next_expiry: the
    earliest time at which one of them expires, which may lie ahead. recharges: those that wait for a report.
    disabled_recharge_policies: those that have switched themselves off.
    """

    read_time: datetime
    schema_revision: str
    outbox: int
    oldest_outbox: datetime | None
    oldest_due_delivery: datetime | None
    oldest_waiting_delivery: datetime | None
    due_endpoints: int
    next_timer: datetime | None
    backfills: int
    oldest_backfill: datetime | None
    feed: int
    oldest_feed: datetime | None
    unseen_feed: int
    reservations: int
    next_expiry: datetime | None
    recharges: int
    oldest_recharge: datetime | None
    disabled_recharge_policies: int


_DELIVERIES = f"""
    SELECT count(*) AS endpoints, min(next_attempt_time) AS oldest,
           min(next_attempt_time) FILTER (WHERE {OPEN}) AS oldest_open
    FROM first_waiting
    JOIN due_endpoint USING (organization_id, endpoint_id)
    JOIN endpoint USING (organization_id, endpoint_id)
"""
_READ = """
WITH RECURSIVE {deliveries}, backfills AS (
    SELECT count(*) AS number, min(update_time) AS oldest
    FROM (SELECT update_time FROM alert WHERE visit_after IS NOT NULL LIMIT :most) AS waiting
), unplaced AS (
    SELECT organization_id, customer_id, notification_id FROM feed_pending LIMIT :oldest_of
), pending AS (
    SELECT min(create_time) AS oldest, count(*) AS shown
    FROM unplaced
    JOIN notification USING (organization_id, customer_id, notification_id)
)
SELECT clock_timestamp() AS read_time,
       (SELECT version_num FROM alembic_version) AS schema_revision,
       (SELECT count(*) FROM (SELECT 1 FROM outbox {outbox_order} LIMIT :most) AS counted) AS outbox,
       ({oldest_outbox}) AS oldest_outbox,
       deliveries.oldest_open AS oldest_due_delivery,
       deliveries.oldest AS oldest_waiting_delivery,
       deliveries.endpoints AS due_endpoints,
       least((SELECT min(due_time) FROM wallet), (SELECT min(due_time) FROM recharge_policy)) AS next_timer,
       backfills.number AS backfills,
       backfills.oldest AS oldest_backfill,
       (SELECT count(*) FROM (SELECT 1 FROM feed_pending {feed_order} LIMIT :most) AS counted)
           AS feed,
       pending.oldest AS oldest_feed,
       (SELECT count(*) FROM unplaced) - pending.shown AS unseen_feed,
       (SELECT count(*)
        FROM (SELECT 1 FROM reservation WHERE state = 'OPEN' ORDER BY expire_time LIMIT :most) AS counted)
           AS reservations,
       (SELECT min(expire_time) FROM reservation WHERE state = 'OPEN') AS next_expiry,
       (SELECT count(*) FROM (SELECT 1 FROM recharge WHERE state = 'REQUESTED' LIMIT :most) AS counted) AS recharges,
       (SELECT min(create_time) FROM recharge WHERE state = 'REQUESTED') AS oldest_recharge,
       (SELECT count(*) FROM (SELECT 1 FROM recharge_policy WHERE state = 'DISABLED' LIMIT :most) AS counted)
           AS disabled_recharge_policies
FROM deliveries, backfills, pending
"""
_ALL = text(
    _READ.format(
        deliveries=f"{DUE_ENDPOINTS}, deliveries AS ({_DELIVERIES})",
        oldest_outbox=OLDEST_TIME.plain.decode(),
        outbox_order="ORDER BY outbox_id",
        feed_order="ORDER BY organization_id, arrival",
    )
)
# Citus executes no recursive statement that also reads distributed tables, so there deliveries are read before.
_DELIVERIES_ALONE = text(f"WITH RECURSIVE {DUE_ENDPOINTS} {_DELIVERIES}")
_OTHERS = text(
    _READ.replace("RECURSIVE ", "").format(
        deliveries="""deliveries AS (
            SELECT CAST(:endpoints AS bigint) AS endpoints, CAST(:oldest AS timestamptz) AS oldest,
                   CAST(:oldest_open AS timestamptz) AS oldest_open
        )""",
        oldest_outbox=OLDEST_TIME.cluster.decode(),
        outbox_order="",
        feed_order="",
    )
)


async def read(connection: Connection) -> Backlog:
    """What waits now."""
    await connection.execute(text(SETTINGS))
    bounds = {"most": MOST_COUNTED, "oldest_of": _OLDEST_OF}
    if on_cluster(await driver(connection)):
        deliveries = (await connection.execute(_DELIVERIES_ALONE)).one()._asdict()
        row = (await connection.execute(_OTHERS, {**bounds, **deliveries})).one()
    else:
        row = (await connection.execute(_ALL, bounds)).one()
    return Backlog(**row._asdict())
