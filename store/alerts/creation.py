"""Creation of alerts, one or many in one change."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import ConditionType, ScopeKind
from evaluator.definitions import AlertDefinition, DefinitionState
from runtime.quotas import QuotaKind
from runtime.turns import Slices
from store.alerts import counts
from store.alerts.change import Begun, Change, ItemRefused
from store.alerts.drafts import ROW_COLUMNS, Draft, with_currencies
from store.alerts.history import ChangeKind
from store.alerts.quiet_at_creation import FOUND, NOT_SETTLED, QUIET_COLUMNS, SETTLED, WideWatches
from store.alerts.unique_keys import AlertConflict, holders, keys_of, refuse_alike
from store.erasures import jobs as erasures
from store.erasures.jobs import CustomerBeingErased
from store.identity.quotas import QuotaReached
from store.postgres.database import driver
from store.postgres.distributed import Forms, on_cluster
from store.tables.alerts import alert


class TooManyAlerts(Exception):
    """The subscription, or the plan, has the most alerts of that type already that it can have."""

    def __init__(self, scope: ScopeKind, maximum: int) -> None:
        super().__init__(scope, maximum)
        self.scope = scope
        self.maximum = maximum


async def create_many(
    change: Change, drafts: Sequence[Draft], wide: WideWatches | None = None
) -> list[AlertDefinition]:
    """Saves several alerts, in their order, all or none. The backfills of active ones are still to run.

    wide: see `create_each`. Raises ItemRefused with AlertConflict, TooManyAlerts, QuotaReached or
    CustomerBeingErased, or with ItemsAlike if two of the alerts have the same key.
    """
    begun = change.begun
    drafts = await with_currencies(change.connection, change.organization_id, drafts)
    refuse_alike({index: one.definition for index, one in enumerate(drafts)})
    saved = await _save(change.connection, change.organization_id, drafts, begun, wide)
    if len(saved) < len(drafts):
        refused = {index: one for index, one in enumerate(drafts) if one.definition.alert_id not in saved}
        index = min(refused)
        raise ItemRefused(index, (await _refusals(change.connection, change.organization_id, refused))[index])
    maximum = change.max_spend_alerts
    over = await _above_maximum(change.connection, change.organization_id, drafts, maximum)
    if over:
        raise ItemRefused(min(over), TooManyAlerts(drafts[min(over)].definition.scope.kind, maximum))
    above = await counts.above(change.connection, change.organization_id, change.max_alerts)
    if above and change.max_alerts is not None:
        raise ItemRefused(max(len(drafts) - above, 0), QuotaReached(QuotaKind.ALERTS, change.max_alerts))
    created, slices = list[AlertDefinition](), Slices(change.organization_id)
    slices.begin_at_once()
    for one in drafts:
        created.append(begun_one := one.begun(begun, complete=saved[one.definition.alert_id]))
        change.record(None, begun_one)
        await slices.pause()
    return created


async def create_each(
    connection: AsyncConnection,
    organization_id: int,
    drafts: Sequence[Draft],
    begun: Begun,
    max_spend_alerts: int,
    wide: WideWatches | None = None,
    max_alerts: int | None = None,
) -> list[AlertDefinition | Exception]:
    """Saves those of several alerts that can be saved, each as if the ones before it had been created before it.

    wide: what the wide alerts watch; with it, quiet gauges are taken as evaluated, so no other change may follow at
    this epoch. max_alerts: of the organization. Returns, for each, the alert, AlertConflict or CustomerBeingErased.
    Raises TooManyAlerts or QuotaReached if that concerns any of several alerts, of which some may be saved: roll
    back, and create them one by one.
    """
    drafts = await with_currencies(connection, organization_id, drafts)
    saved = await _save(connection, organization_id, drafts, begun, wide)
    refused = {index: one for index, one in enumerate(drafts) if one.definition.alert_id not in saved}
    refusals = await _refusals(connection, organization_id, refused) if refused else {}
    made = [one for index, one in enumerate(drafts) if index not in refused]
    over = await _above_maximum(connection, organization_id, made, max_spend_alerts)
    if over:
        raise TooManyAlerts(made[min(over)].definition.scope.kind, max_spend_alerts)
    if made and max_alerts is not None and await counts.above(connection, organization_id, max_alerts):
        raise QuotaReached(QuotaKind.ALERTS, max_alerts)
    created, slices = list[AlertDefinition | Exception](), Slices(organization_id)
    slices.begin_at_once()
    for index, one in enumerate(drafts):
        refused_by = refusals.get(index)
        created.append(refused_by or one.begun(begun, complete=saved[one.definition.alert_id]))
        await slices.pause()
    return created


_AS_THEY_ARE = [name for name in ROW_COLUMNS if name != "visit_after"]

# Inserts alerts and the history of those that are saved; returns their ids, and whether they need no backfill. Left
# out are those whose key another alert has (ON CONFLICT without a target covers both unique indexes), and those of
# customers that are being erased. One JSON text for all rows: the driver converts arrays value by value.
_SAVE = """
WITH wanted AS (
    SELECT * FROM json_to_recordset(%(rows)s::json) AS wanted (
        {wanted_columns},
        key_id text, document jsonb
    )
), {found}, saved AS (
    INSERT INTO alert (
        organization_id, visit_after, looked, {columns}, changed_epoch, watching_epoch, create_epoch,
        watching_time, create_time, update_time
    )
    SELECT %(organization_id)s, CASE WHEN complete THEN NULL ELSE visit_after END, complete,
        {w_columns}, %(epoch)s, %(epoch)s, %(epoch)s, %(now)s, %(now)s, %(now)s
    FROM wanted w LEFT JOIN found f USING (alert_id) CROSS JOIN LATERAL (
        SELECT coalesce(f.unknown OR f.quiet, false)
    ) AS c (complete)
    WHERE w.customer_id IS NULL OR NOT EXISTS (
        SELECT FROM erasure_job j WHERE j.organization_id = %(organization_id)s AND j.customer_id = w.customer_id
    )
    ON CONFLICT DO NOTHING
    RETURNING alert_id, looked
), {settled}noted AS (
    INSERT INTO alert_change (organization_id, alert_id, kind, version, key_id, definition, change_time)
    SELECT %(organization_id)s, alert_id, %(kind)s, version, key_id, document, %(now)s
    FROM wanted JOIN saved USING (alert_id)
)
SELECT alert_id, looked FROM saved
"""
_COLUMNS = {
    "wanted_columns": ", ".join(f"{name} {kind}" for name, kind in (ROW_COLUMNS | QUIET_COLUMNS).items()),
    "columns": ", ".join(_AS_THEY_ARE),
    "w_columns": ", ".join(f"w.{name}" for name in _AS_THEY_ARE),
}
# On a cluster, gauges and alerts lie apart: no gauge is found to be quiet. Which customers are known is read before,
# under the organization's lock.
_UNKNOWN_FOUND = """
found AS (
    SELECT alert_id, customer_id <> ALL(%(known_ids)s) AS unknown, false AS quiet FROM wanted
    WHERE customer_id IS NOT NULL AND visit_after IS NOT NULL
)
"""
_KNOWN = b"SELECT customer_id FROM customer WHERE organization_id = %s AND customer_id = ANY(%s)"
_SAVE_FORMS = Forms(
    _SAVE.format(**_COLUMNS, found=FOUND, settled=f"{SETTLED}, ").encode(),
    _SAVE.format(**_COLUMNS, found=_UNKNOWN_FOUND, settled="").encode(),
)


async def _save(
    connection: AsyncConnection,
    organization_id: int,
    drafts: Sequence[Draft],
    begun: Begun,
    wide: WideWatches | None,
) -> dict[str, bool]:
    """Inserts the alerts that can be inserted; returns by id whether they need no backfill."""
    if any(one.definition.scope.customer_id is None for one in drafts):
        wide = None  # they may watch the same gauges as those that name a customer
    raw = await driver(connection)
    customer_ids = list({one.definition.scope.customer_id for one in drafts} - {None})
    known_ids = list[str]()
    if on_cluster(raw):
        known = await raw.execute(_KNOWN, (organization_id, customer_ids))
        known_ids = [row[0] for row in await known.fetchall()]
    cursor = await raw.execute(
        _SAVE_FORMS.on(raw),
        {
            "rows": (b"[" + b",".join(one.row for one in drafts) + b"]").decode(),
            "organization_id": organization_id,
            "epoch": begun.epoch,
            "now": begun.now,
            "kind": ChangeKind.CREATED.value,
            "customer_ids": customer_ids,
            "known_ids": known_ids,
            **(NOT_SETTLED if wide is None else wide.parameters()),
        },
        prepare=False,  # see `store.alerts.alerts`: the table may grow fast
    )
    return dict(await cursor.fetchall())


async def _refusals(
    connection: AsyncConnection, organization_id: int, refused: Mapping[int, Draft]
) -> dict[int, Exception]:
    """Why these alerts were not saved, in few queries for all. The transaction holds the organization's lock."""
    scopes = [one.definition.scope for one in refused.values()]
    named = {scope.customer_id for scope in scopes if scope.customer_id is not None}
    erased = await erasures.being_erased(connection, organization_id, named)
    held_by = await holders(connection, organization_id, [one.definition for one in refused.values()])
    found = dict[int, Exception]()
    for index, one in refused.items():
        definition = one.definition
        customer_id = definition.scope.customer_id
        if customer_id in erased and customer_id is not None:
            found[index] = CustomerBeingErased(customer_id)
            continue
        held = next((key for key in keys_of(definition) if key in held_by), None)
        if held is None:
            raise RuntimeError(f"{definition.alert_id} was not saved, but no other alert has its keys")
        found[index] = AlertConflict(held[0], held_by[held], definition.uniqueness_key)
    return found


async def _above_maximum(
    connection: AsyncConnection, organization_id: int, made: Sequence[Draft], maximum: int
) -> list[int]:
    """The indexes of the last alerts on cost that exceed the maximum of a subscription or plan."""
    on_cost = {
        _target(one.definition): index
        for index, one in enumerate(made)
        if one.definition.condition.condition_type in (ConditionType.COST_EXCEEDED, ConditionType.SPEND_EXCEEDED)
    }
    if not on_cost:
        return []
    columns = [func.coalesce(column, "") for column in _TARGET]
    scopes = [made[index].definition.scope for index in on_cost.values()]
    rows = await connection.execute(
        select(*(column.label(f"target_{number}") for number, column in enumerate(columns)))
        .where(
            alert.c.organization_id == organization_id,
            alert.c.state != DefinitionState.ARCHIVED,
            # These two have indexes.
            or_(
                alert.c.customer_id.in_({scope.customer_id for scope in scopes if scope.customer_id is not None}),
                alert.c.plan_id.in_({scope.plan_id for scope in scopes if scope.plan_id is not None}),
            ),
            tuple_(*columns).in_(list(on_cost)),
        )
        .group_by(*columns)
        .having(func.count() > maximum)
    )
    return [on_cost[tuple(row)] for row in rows]


_TARGET = (alert.c.condition_type, alert.c.scope, alert.c.plan_id, alert.c.customer_id, alert.c.subscription_id)


def _target(definition: AlertDefinition) -> tuple[str, ...]:
    scope, condition_type = definition.scope, definition.condition.condition_type
    return (
        condition_type.value,
        scope.kind.value,
        scope.plan_id or "",
        scope.customer_id or "",
        scope.subscription_id or "",
    )
