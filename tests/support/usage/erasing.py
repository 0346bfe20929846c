"""Erasures of customers for tests: calls, a customer with rows in every table, and the rows that are left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg

from generated.tidemark.v1 import (
    access_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    erasure_job_pb2,
    invoice_pb2,
    limit_pb2,
    metric_pb2,
    scope_pb2,
    subscription_pb2,
)
from generated.tidemark.v1 import (
    account_service_pb2 as messages,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.balances.holder import GRANT, SEAT, Holder, alert
from tests.support.notifier.house import House
from tests.support.usage.caller import (
    Caller,
    on_customer,
    on_subscription,
    until,
    usage_alert,
)
from tests.support.usage.voiding import void
from tests.support.webhooks.attempts import claim, fan_out, record
from webhooks.deliveries import DeliveryStatus

PERSON, NEIGHBOUR = "person-4711", "neighbour-0815"
URL = "http://127.0.0.1:9/hook"
DONE = erasure_job_pb2.ERASURE_STATE_DONE
BALANCE = condition_pb2.LowRemainingCommitBalanceReachedCondition()
# Answers to requests with a request_id expire by themselves. The job has the customer's id while it runs.
NOT_ERASED = {"request"}


async def erase(caller: Caller, customer: str = PERSON, **fields: Any) -> messages.DeleteCustomerResponse:
    """Begins an erasure."""
    request = messages.DeleteCustomerRequest(customer_id=customer, **fields)
    return await caller.accounts.DeleteCustomer(request, metadata=caller.metadata)


async def job_of(caller: Caller, job_id: str) -> erasure_job_pb2.ErasureJob:
    """The job as it is now."""
    request = messages.GetErasureJobRequest(job_id=job_id)
    return (await caller.accounts.GetErasureJob(request, metadata=caller.metadata)).job


async def erased(caller: Caller, customer: str = PERSON) -> erasure_job_pb2.ErasureJob:
    """Erases a customer, and waits for the end."""
    return await finished(caller, (await erase(caller, customer)).job.job_id)


async def finished(caller: Caller, job_id: str) -> erasure_job_pb2.ErasureJob:
    """The job, once it is done."""

    async def done() -> bool:
        return (await job_of(caller, job_id)).state == DONE

    await until(done)
    return await job_of(caller, job_id)


async def live(
    caller: Caller, database: Database, clock: ManualClock, customer: str, *, endpoint: bool = True
) -> None:
    """A customer with rows in every table."""
    holder = Holder(caller, customer)
    await caller.put_customer(
        customer_pb2.Customer(
            customer_id=customer,
            display_name=f"{customer} Inc.",
            external_id=f"crm {customer}",
            aliases=[f"alias of {customer}"],
            plan_id="gold",
        )
    )
    await caller.put_subscription(subscription_pb2.Subscription(customer_id=customer, subscription_id="pro"))
    await caller.put_subscription(subscription_pb2.Subscription(customer_id=customer, subscription_id="unused"))
    deletion = messages.DeleteSubscriptionRequest(customer_id=customer, subscription_id="unused")
    await caller.accounts.DeleteSubscription(deletion, metadata=caller.metadata)
    await holder.put(
        "c1",
        "100",
        display_name=f"commit of {customer}",
        custom_fields={"owner": customer},
        contract_id=f"contract of {customer}",
    )
    await holder.put("s1", "10", kind=SEAT, seat=("user", f"seat of {customer}"))
    await holder.put("g1", "5", kind=GRANT, currency="EUR")
    await holder.adjust("c1", "20", "adjusted")
    decrement = messages.DecrementBalancesRequest(
        customer_id=customer, adjustment_id="taken", amount="1", custom_fields={"by": customer}
    )
    decrement.spend.currency = "USD"
    await caller.accounts.DecrementBalances(decrement, metadata=caller.metadata)
    limit = limit_pb2.Limit(
        limit_id=f"limit {customer}",
        customer=scope_pb2.CustomerScope(customer_id=customer),
        spend=access_pb2.SpendAccess(currency="USD"),
        amount="1000",
    )
    await caller.accounts.PutLimit(messages.PutLimitRequest(limit=limit), metadata=caller.metadata)
    invoice = invoice_pb2.Invoice(
        invoice_id="i1",
        customer_id=customer,
        display_name=f"invoice of {customer}",
        status=invoice_pb2.INVOICE_STATUS_PAID,
        currency="USD",
        total="12.50",
        period_end_time=to_timestamp(clock.now()),
        custom_fields={"owner": customer},
    )
    await caller.accounts.PutInvoice(messages.PutInvoiceRequest(invoice=invoice), metadata=caller.metadata)
    own = await caller.create(usage_alert("3", scope=on_customer(customer)))
    await caller.create(usage_alert("4", metric="others", scope=on_customer(customer)))
    exceeded = alert(
        "5", scope=on_subscription("pro", customer), usage_exceeded=condition_pb2.UsageExceededCondition()
    )
    exceeded.usage_exceeded.metric_id = "calls"
    await caller.create(exceeded)
    await caller.send(
        *(caller.event(f"e{n}", "2", customer, cost="1", subscription="pro", user=f"u{n}") for n in range(20)),
        *(caller.event(f"old{n}", "1", customer, at=clock.now() - timedelta(days=20)) for n in range(3)),
        caller.event("names", "1", customer, metric="names", name=f"name of {customer}"),
    )
    await void(caller, "old0", customer=customer)
    disable = alert_service_pb2.DisableAlertRequest(alert_id=own.alert_id, customer_id=customer)
    await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    if endpoint:
        [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
        house = House(database, clock, int(organization_id))
        await house.endpoint(URL)
        await fan_out(house)
        await record(house, await claim(house), DeliveryStatus.DELIVERED)
    await caller.send(caller.event("later", "0.5", customer, cost="1"))


async def wide_alerts(caller: Caller) -> None:
    """Alerts that cover every customer."""
    await caller.put_metric("names", metric_pb2.AGGREGATION_UNIQUE_COUNT, "name")
    await caller.create(usage_alert("3", "10"))
    await caller.create(usage_alert("1", metric="names"))
    await caller.create(usage_alert("1", groups=[("user", None)]))
    await caller.create(alert("90", low_remaining_commit_balance_reached=BALANCE))


def _unique() -> Any:
    from generated.tidemark.v1 import metric_pb2

    return metric_pb2.AGGREGATION_UNIQUE_COUNT


async def rows_with(caller: Caller, text: str) -> dict[str, int]:
    """How many rows of the organization contain a text in any column, by table."""
    tables = await caller.rows(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    )
    found = {}
    for [table] in tables:
        query = f'SELECT count(*) FROM "{table}" t WHERE organization_id = %(organization_id)s'
        [[number]] = await caller.rows(query + " AND t::text LIKE %(like)s", like=f"%{text}%")
        if number and table not in NOT_ERASED:
            found[table] = int(number)
    return found


async def ledger(caller: Caller, customer: str) -> dict[str, list[tuple[str, str]]]:
    """Type and amount of each ledger entry, by balance."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in await Holder(caller, customer).entries():
        found.setdefault(one.balance_id, []).append((str(one.type), one.amount))
    return found


@asynccontextmanager
async def held(caller: Caller) -> AsyncIterator[None]:
    """Holds the person's events, so that an erasure waits at its first step."""
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute("SELECT FROM event WHERE customer_id = %s FOR UPDATE", (PERSON,))
        yield
