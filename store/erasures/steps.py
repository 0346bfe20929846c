"""The steps of an erasure: small transactions that delete what belongs to a customer, or pseudonymise its ledger.

Each step is repeated until it finds nothing more, so a step that is cut off loses only its own transaction. A step
costs an index scan of the customer's own rows; what other customers have does not matter, except for the log of
operator events, and for reservations where the customer has limits and others below it. Both are kept for a short
time.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import Table, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit.erasing import erase_customer
from store.erasures import jobs
from store.erasures.customers_below import clear_parents
from store.erasures.jobs import ErasureJob, Step, StepResult
from store.erasures.keys import revoke_keys
from store.erasures.notifications import delete_notifications, delete_operator_events
from store.erasures.reservations import end_reservations
from store.erasures.reservations_below import forget_in_reservations
from store.identity import organizations
from store.postgres.database import driver
from store.postgres.distributed import on_cluster
from store.tables import balances, event_key
from store.tables.invoices import invoice
from store.tables.wallets import overage

ROWS_AT_ONCE = 2_000  # of one transaction


# Rows of a table by their place on disk: the keys of these tables differ, and each statement holds a snapshot.
_DELETE = """
DELETE FROM {table} WHERE organization_id = :organization_id AND customer_id = :customer_id AND ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE organization_id = :organization_id AND customer_id = :customer_id
    LIMIT :limit FOR UPDATE
))
"""

# A ctid is unique only within a partition.
_OF_CUSTOMER = event_key.of_customer(":organization_id", ":customer_id")
_DELETE_EVENTS = f"""
DELETE FROM event e WHERE {_OF_CUSTOMER} AND (tableoid, ctid) IN (
    SELECT tableoid, ctid FROM event e WHERE {_OF_CUSTOMER}
    LIMIT :limit
)
"""

_PSEUDONYMISE = """
UPDATE {table} SET customer_id = :pseudonym{cleared}
WHERE organization_id = :organization_id AND customer_id = :customer_id AND ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE organization_id = :organization_id AND customer_id = :customer_id LIMIT :limit
))
"""

# On a cluster rows cannot change their customer: they are deleted, and made again where those of the pseudonym lie.
_MOVE = """
WITH gone AS (
    DELETE FROM {table}
    WHERE organization_id = :organization_id AND customer_id = :customer_id AND ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE organization_id = :organization_id AND customer_id = :customer_id LIMIT :limit
    ))
    RETURNING *
)
INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM gone
"""

# The history of alerts on others, and jobs, name the customer too.
_RENAME_IN_HISTORY = (
    "UPDATE alert_change SET customer_id = :pseudonym, subscription_id = NULL"
    " WHERE organization_id = :organization_id AND customer_id = :customer_id",
    "UPDATE redelivery_job SET customer_id = :pseudonym"
    " WHERE organization_id = :organization_id AND customer_id = :customer_id",
)

# Alerts on the customer alone, with their history.
_ALERTS = """
WITH gone AS (
    DELETE FROM alert WHERE organization_id = :organization_id AND alert_id IN (
        SELECT alert_id FROM alert
        WHERE organization_id = :organization_id AND customer_id = :customer_id LIMIT :limit
    )
    RETURNING alert_id
), changes AS (
    DELETE FROM alert_change
    WHERE organization_id = :organization_id AND alert_id IN (SELECT alert_id FROM gone)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM changes)
"""


def _values(job: ErasureJob, limit: int) -> dict[str, object]:
    return {
        "organization_id": job.organization_id,
        "customer_id": job.customer_id,
        "pseudonym": job.pseudonym,
        "limit": limit,
    }


def _deletion(table: str, statement: str = _DELETE) -> Step:
    """Deletes the customer's rows of a table."""
    query = text(statement.format(table=table) if statement is _DELETE else statement)

    async def step(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
        deleted = await _count(connection, query, _values(job, limit))
        return StepResult(deleted=deleted, complete=deleted == 0)

    return step


def _pseudonymisation(table: Table, cleared: Mapping[str, str] = MappingProxyType({})) -> Step:
    """Gives the customer's rows of a table the pseudonym. cleared: new values, which remove what can identify it."""
    assignments = "".join(f", {name} = {value}" for name, value in cleared.items())
    values = {column.name: column.name for column in table.columns} | {"customer_id": ":pseudonym", **cleared}
    update = text(_PSEUDONYMISE.format(table=table.name, cleared=assignments))
    move = text(_MOVE.format(table=table.name, columns=", ".join(values), values=", ".join(values.values())))

    async def step(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
        query = move if on_cluster(await driver(connection)) else update
        changed = await _count(connection, query, _values(job, limit))
        return StepResult(pseudonymised=changed, complete=changed == 0)

    return step


async def _count(connection: AsyncConnection, query: TextClause, values: dict[str, object]) -> int:
    wanted = {name: values[name] for name in query.compile().params}
    return int((await connection.execute(query, wanted)).rowcount)


async def _alerts(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    values = _values(job, limit)
    values.pop("pseudonym")
    deleted = int(await connection.scalar(text(_ALERTS), values) or 0)
    return StepResult(deleted=deleted, complete=deleted == 0)


async def _history(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    values = _values(job, limit)
    changed = [await _count(connection, text(statement), values) for statement in _RENAME_IN_HISTORY]
    return StepResult(pseudonymised=sum(changed), complete=True)


async def _audit_log(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    assert job.customer_id is not None, "a running job knows its customer"
    changed, more = await erase_customer(connection, job.organization_id, job.customer_id, job.pseudonym, limit)
    return StepResult(pseudonymised=changed, complete=not more)


async def _hold_organization(connection: AsyncConnection, job: ErasureJob, _: int) -> StepResult:
    """Takes the organization's lock, shared: before that of the audit log, as all changes do."""
    await organizations.lock_shared(connection, job.organization_id)
    return StepResult(complete=True)


def together(*steps: Step) -> Step:
    """Steps in their order under one number: after each transaction all of them are asked again, from the first."""

    async def take(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
        deleted = pseudonymised = 0
        for one in steps:
            result = await one(connection, job, limit)
            deleted += result.deleted
            pseudonymised += result.pseudonymised
            if not result.complete:
                return replace(result, deleted=deleted, pseudonymised=pseudonymised)
        return StepResult(deleted=deleted, pseudonymised=pseudonymised, complete=True)

    return take


# A job counts the steps that are complete, and during an upgrade servers of two versions take its steps in turn. So a
# new step gets no number of its own, which would let the version before leave out other steps: it is taken together
# with one that exists.
# In this order: first what is measured, then what was reported of it, then the facts, of which the ledger is kept.
STEPS: tuple[Step, ...] = (
    together(
        end_reservations,
        forget_in_reservations,
        _deletion("meter_minute"),
        _deletion("meter"),
        _deletion("event", _DELETE_EVENTS),
    ),
    _deletion("voided_event"),
    _deletion("unique_value"),
    _deletion("alert_state"),
    _deletion("gauge"),
    _deletion("group_count"),
    _deletion("alert_exclusion"),
    _deletion("outbox"),
    _deletion("feed_pending"),
    delete_notifications,
    delete_operator_events,
    _alerts,
    _history,
    _deletion("usage_limit"),
    _deletion("customer_name"),
    _deletion("fact_deletion"),
    _pseudonymisation(balances.balance_entry, {"custom_fields": "NULL"}),
    _pseudonymisation(balances.balance_adjustment, {"custom_fields": "'{}'"}),
    _pseudonymisation(balances.balance_decrement, {"custom_fields": "'{}'"}),
    _pseudonymisation(balances.balance_segment, {"held": "0"}),
    _pseudonymisation(
        balances.balance,
        {
            "display_name": "''",
            "contract_id": "NULL",
            "contract_custom_fields": "'{}'",
            "custom_fields": "'{}'",
            "seat_group_value": "CASE WHEN seat_group_value IS NOT NULL THEN 'erased' END",
        },
    ),
    _pseudonymisation(overage, {"held": "0"}),
    _pseudonymisation(invoice, {"display_name": "''", "custom_fields": "'{}'", "contract_custom_fields": "'{}'"}),
    together(_hold_organization, _deletion("recharge_policy"), _deletion("recharge"), _audit_log, clear_parents),
)


async def step(
    connection: AsyncConnection, organization_id: int, job_id: str, now: datetime, *, limit: int = ROWS_AT_ONCE
) -> bool:
    """One transaction of a job; returns whether it did anything.

    False: another replica works on the job, it is done, or what is left of its step is in use.
    """
    job = await jobs.lock(connection, organization_id, job_id)
    if job is None:
        return False
    if job.step == len(STEPS):
        await _finish(connection, job, now)
        return True
    result = await STEPS[job.step](connection, job, limit)
    await jobs.advance(connection, job, result)
    return not result.waits


async def _finish(connection: AsyncConnection, job: ErasureJob, now: datetime) -> None:
    """Deletes the customer itself; from then on its id is that of a new customer.

    Its wallet goes with it, under the same lock: a backfill creates it again as long as the customer exists.
    """
    await organizations.begin_deletion(connection, job.organization_id)
    values = {"organization_id": job.organization_id, "customer_id": job.customer_id}
    for table in ("wallet", "customer_evaluation", "subscription", "customer"):
        await connection.execute(
            text(f"DELETE FROM {table} WHERE organization_id = :organization_id AND customer_id = :customer_id"),
            values,
        )
    await revoke_keys(connection, job, now)
    # Entries of changes that were committed after the step of the log. From here on, there are no more of them.
    while not (await _audit_log(connection, job, ROWS_AT_ONCE)).complete:
        pass
    await jobs.finish(connection, job, now)
