"""What an entry of the audit log says: who, what, before, after, and from where."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest

from engine.limits import EngineLimits
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    audit_entry_pb2,
    customer_pb2,
    endpoint_pb2,
    filter_pb2,
    plan_pb2,
    role_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
    webhook_service_pb2,
)
from generated.tidemark.v1.audit_service_pb2 import GetAuditEntryRequest, ListAuditEntriesRequest
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from tests.support.audit.api import AuditedApi, AuditedCaller
from tests.support.server.running import reason_of, violations_of

SERVICE = "/tidemark.v1.AccountService"


async def put_plan(caller: AuditedCaller, plan_id: str, display_name: str = "", **more: Any) -> None:
    plan = plan_pb2.Plan(plan_id=plan_id, display_name=display_name)
    await caller.accounts.PutPlan(account_service_pb2.PutPlanRequest(plan=plan, **more.pop("request", {})), **more)


async def put_customer(caller: AuditedCaller, customer_id: str, *, validate_only: bool = False, **fields: Any) -> Any:
    customer = customer_pb2.Customer(customer_id=customer_id, **fields)
    request = account_service_pb2.PutCustomerRequest(customer=customer, validate_only=validate_only)
    return await caller.accounts.PutCustomer(request)


def usage_alert(customer_id: str, value: str = "10", **fields: Any) -> alert_pb2.Alert:
    alert = alert_pb2.Alert(
        display_name="usage",
        scope=scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=customer_id)),
        thresholds=[threshold_pb2.Threshold(value=value)],
        **fields,
    )
    alert.usage_threshold_reached.metric_id = "tokens"
    return alert


async def test_entry_says_who_changed_what_and_from_where(api: AuditedApi, clock: ManualClock) -> None:
    await put_plan(api.ours, "gold", "Gold", metadata=(("x-request-id", "req-1"),))
    clock.advance(timedelta(minutes=1))
    await put_plan(api.ours, "gold", "Golden")
    created, updated = await api.ours.entries()
    assert (created.entry_number, updated.entry_number) == (1, 2)
    assert created.actor == audit_entry_pb2.AuditActor(
        kind=audit_entry_pb2.AUDIT_ACTOR_KIND_API_KEY,
        actor_id=api.ours.key.key_id,
        display_name="key of ours",
        roles=[role_pb2.ROLE_ADMIN],
    )
    assert created.method == f"{SERVICE}/PutPlan"
    assert created.origin.request_id == "req-1"
    assert created.origin.peer.startswith("ipv4:127.0.0.1:")
    assert created.origin.user_agent.startswith("grpc-python-asyncio/")
    assert created.resource_type == audit_entry_pb2.AUDIT_RESOURCE_TYPE_PLAN
    assert (created.resource_id, created.customer_id) == ("gold", "")
    assert not created.HasField("before")
    assert created.after.plan.display_name == "Gold"
    assert created.changed_fields == []
    assert updated.create_time == to_timestamp(clock.now())
    assert updated.before.plan == created.after.plan
    assert updated.after.plan.display_name == "Golden"
    assert updated.changed_fields == ["display_name"]
    assert len(updated.origin.request_id) == 24
    found = await api.ours.audit.GetAuditEntry(GetAuditEntryRequest(entry_number=2))
    assert found.entry == updated


async def test_put_is_recorded_where_it_needs_the_lock_and_where_it_does_not(api: AuditedApi) -> None:
    await put_customer(api.ours, "acme", plan_id="gold")  # new: under the lock
    await put_customer(api.ours, "acme", plan_id="gold", display_name="Acme")  # without it
    await put_customer(api.ours, "acme", plan_id="iron", display_name="Acme")  # another plan: under the lock
    first, second, third = await api.ours.entries(resource_id="acme")
    assert [one.customer_id for one in (first, second, third)] == ["acme"] * 3
    assert not first.HasField("before")
    assert second.before.customer == first.after.customer
    assert second.changed_fields == ["display_name"]
    assert third.before.customer == second.after.customer
    assert third.changed_fields == ["plan_id"]
    assert not third.after.customer.HasField("current_billing_period")


async def test_what_changes_nothing_leaves_no_entry(api: AuditedApi, clock: ManualClock) -> None:
    known = to_timestamp(clock.now())
    await put_customer(api.ours, "acme", plan_id="gold", display_name="Acme", as_of_time=known)
    entries = await api.ours.entries()
    clock.advance(timedelta(hours=1))
    await put_customer(api.ours, "acme", plan_id="gold", display_name="Acme")  # repeated later
    before = to_timestamp(clock.now() - timedelta(days=1))
    answer = await put_customer(api.ours, "acme", plan_id="old", as_of_time=before)  # superseded
    assert answer.superseded
    await put_customer(api.ours, "acme", validate_only=True, plan_id="other")
    await put_customer(api.ours, "acme", validate_only=True, plan_id="gold", display_name="other")
    with pytest.raises(grpc.aio.AioRpcError):
        await put_customer(api.ours, "acme", currency="not a currency")
    with pytest.raises(grpc.aio.AioRpcError):
        await api.ours.accounts.DeletePlan(account_service_pb2.DeletePlanRequest(plan_id="unknown"))
    event = usage_pb2.UsageEvent(
        event_id="e1", customer_id="new", metric_id="tokens", quantity="1", event_time=to_timestamp(clock.now())
    )
    batch = usage_pb2.UsageBatch(events=[event])
    await api.ours.alerts.EvaluateUsageBatch(alert_service_pb2.EvaluateUsageBatchRequest(batch=batch))
    assert await api.ours.entries() == entries


async def test_repeated_request_id_leaves_one_entry(api: AuditedApi) -> None:
    request = alert_service_pb2.CreateAlertRequest(alert=usage_alert("acme"), request_id="once")
    answers = [await api.ours.alerts.CreateAlert(request) for _ in range(3)]
    assert [answer.replayed for answer in answers] == [False, True, True]
    [entry] = await api.ours.entries()
    assert entry.resource_id == answers[0].alert.alert_id
    assert entry.customer_id == "acme"
    assert entry.after.alert.thresholds == answers[0].alert.thresholds


async def test_calls_that_share_a_transaction_have_entries_of_their_own(api: AuditedApi) -> None:
    callers = [api.ours, *[await api.another_key(f"key {number}") for number in range(4)]]
    await asyncio.gather(
        *(
            put_customer(callers[number % 5], f"customer-{number:02}", plan_id="gold", display_name=f"{number}")
            for number in range(40)
        ),
        *(
            callers[number % 5].alerts.CreateAlert(
                alert_service_pb2.CreateAlertRequest(alert=usage_alert(f"customer-{number:02}"))
            )
            for number in range(40)
        ),
    )
    entries = await api.ours.entries()
    assert [entry.entry_number for entry in entries] == list(range(1, 81))
    for entry in entries:
        number = int(entry.customer_id.removeprefix("customer-"))
        assert entry.actor.actor_id == callers[number % 5].key.key_id
        if entry.HasField("after") and entry.after.HasField("customer"):
            assert entry.after.customer.display_name == str(number)


async def test_refused_neighbour_in_a_group_leaves_no_entry(api: AuditedApi) -> None:
    async def put(number: int) -> str:
        try:
            await put_customer(api.ours, f"c{number}", aliases=["taken"])
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return ""

    done = await asyncio.gather(*(put(number) for number in range(10)))
    assert sorted(done) == ["", *["ERROR_REASON_CUSTOMER_NAME_TAKEN"] * 9]
    [entry] = await api.ours.entries()
    assert entry.resource_id == f"c{done.index('')}"


async def test_each_alert_of_a_batch_has_an_entry(api: AuditedApi) -> None:
    requests = [alert_service_pb2.CreateAlertRequest(alert=usage_alert(f"c{number}")) for number in range(300)]
    created = await api.ours.alerts.BatchCreateAlerts(alert_service_pb2.BatchCreateAlertsRequest(requests=requests))
    updates = [
        alert_service_pb2.UpdateAlertRequest(
            alert=alert_pb2.Alert(alert_id=one.alert_id, thresholds=[threshold_pb2.Threshold(value=value)])
        )
        for one, value in zip(created.alerts[:3], ("10", "11", "12"), strict=True)
    ]
    await api.ours.alerts.BatchUpdateAlerts(alert_service_pb2.BatchUpdateAlertsRequest(requests=updates))
    archived = await api.ours.alerts.ArchiveAlert(
        alert_service_pb2.ArchiveAlertRequest(alert_id=created.alerts[2].alert_id)
    )
    assert archived.alert.state == alert_pb2.ALERT_STATE_ARCHIVED
    entries = await api.ours.entries()
    assert [entry.resource_id for entry in entries[:300]] == [one.alert_id for one in created.alerts]
    # The first update changes nothing.
    assert [entry.resource_id for entry in entries[300:]] == [created.alerts[number].alert_id for number in (1, 2, 2)]
    assert [list(entry.changed_fields) for entry in entries[300:]] == [
        ["thresholds"],
        ["thresholds"],
        ["state", "archive_time"],
    ]
    assert entries[300].before.alert.thresholds[0].value == "10"
    assert entries[300].after.alert.thresholds[0].value == "11"


async def test_alert_of_one_customer_is_recorded_with_its_customer(api: AuditedApi) -> None:
    alert = usage_alert("")
    alert.scope.all_customers.SetInParent()
    created = await api.ours.alerts.CreateAlert(alert_service_pb2.CreateAlertRequest(alert=alert))
    target = {"alert_id": created.alert.alert_id, "customer_id": "acme"}
    await put_customer(api.ours, "acme")
    await api.ours.alerts.DisableAlert(alert_service_pb2.DisableAlertRequest(**target))
    await api.ours.alerts.DisableAlert(alert_service_pb2.DisableAlertRequest(**target))
    await api.ours.alerts.EnableAlert(alert_service_pb2.EnableAlertRequest(**target))
    await api.ours.alerts.ResetCustomerAlert(alert_service_pb2.ResetCustomerAlertRequest(**target))
    disabled, enabled, reset = await api.ours.entries(
        customer_id="acme", resource_types=[audit_entry_pb2.AUDIT_RESOURCE_TYPE_ALERT]
    )
    assert disabled.after.alert_exclusion.key_id == api.ours.key.key_id
    assert enabled.before == disabled.after
    assert not enabled.HasField("after")
    assert not reset.HasField("before")
    assert [entry.method.rsplit("/")[-1] for entry in (disabled, enabled, reset)] == [
        "DisableAlert",
        "EnableAlert",
        "ResetCustomerAlert",
    ]


@pytest.mark.parametrize("engine_limits", [EngineLimits(groups=2)], ids=[pytest.HIDDEN_PARAM])
async def test_service_records_the_alert_that_it_disables_for_a_customer(api: AuditedApi, clock: ManualClock) -> None:
    alert = usage_alert("acme")
    alert.usage_threshold_reached.group_values.append(filter_pb2.GroupSelector(key="seat"))
    created = await api.ours.alerts.CreateAlert(alert_service_pb2.CreateAlertRequest(alert=alert))
    events = [
        usage_pb2.UsageEvent(
            event_id=seat,
            customer_id="acme",
            metric_id="tokens",
            quantity="1",
            event_time=to_timestamp(clock.now()),
            properties={"seat": seat},
        )
        for seat in "abcd"
    ]
    request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
    await api.ours.alerts.EvaluateUsageBatch(request)
    _, entry = await api.ours.entries()
    assert entry.actor.kind == audit_entry_pb2.AUDIT_ACTOR_KIND_SERVICE
    assert entry.method == "tidemark serve"
    assert (entry.resource_id, entry.customer_id) == (created.alert.alert_id, "acme")
    assert entry.after.alert_exclusion.customer_id == "acme"
    assert entry.after.alert_exclusion.create_time == to_timestamp(clock.now())
    assert not entry.HasField("origin") or entry.origin == audit_entry_pb2.AuditOrigin()


async def test_large_resource_is_abridged_and_its_changed_fields_are_named(api: AuditedApi) -> None:
    alert = alert_pb2.Alert(
        display_name="cost", labels={"team": "growth"}, thresholds=[threshold_pb2.Threshold(value="10")]
    )
    alert.scope.subscription.customer_id, alert.scope.subscription.subscription_id = "acme", "acme-pro"
    alert.cost_exceeded.currency = "EUR"
    alert.cost_exceeded.grouping_keys.append("region")
    for number in range(300):
        override = alert.cost_exceeded.threshold_overrides.add()
        override.group_values.add(key="region", value=f"region-{number}-{'x' * 100}")
        override.thresholds.add(value="9")
    created = await api.ours.alerts.CreateAlert(alert_service_pb2.CreateAlertRequest(alert=alert))
    change = alert_pb2.Alert(alert_id=created.alert.alert_id, labels={"team": "sales"})
    await api.ours.alerts.UpdateAlert(alert_service_pb2.UpdateAlertRequest(alert=change))
    first, second = await api.ours.entries()
    assert first.abridged
    assert second.abridged
    assert first.after.alert.alert_id == created.alert.alert_id
    assert first.after.alert.display_name == "cost"
    assert first.after.ByteSize() < 1_000
    assert second.changed_fields == ["labels"]


async def test_secret_is_nowhere_in_the_log(api: AuditedApi, database_url: str) -> None:
    endpoint = endpoint_pb2.Endpoint(
        url="https://hooks.example.com/", headers={"x-token": "header-secret"}, display_name="hook"
    )
    endpoint.credentials.bearer.token = "bearer-secret"
    created = await api.ours.webhooks.CreateEndpoint(webhook_service_pb2.CreateEndpointRequest(endpoint=endpoint))
    endpoint_id = created.endpoint.endpoint_id
    change = endpoint_pb2.Endpoint(endpoint_id=endpoint_id, headers={"x-token": "another-secret"})
    change.credentials.bearer.token = "third-secret"
    update = webhook_service_pb2.UpdateEndpointRequest(endpoint=change)
    update.update_mask.paths.extend(["headers", "credentials"])
    await api.ours.webhooks.UpdateEndpoint(update)
    rotated = await api.ours.webhooks.RotateSecret(webhook_service_pb2.RotateSecretRequest(endpoint_id=endpoint_id))
    entries = await api.ours.entries()
    assert [list(entry.changed_fields) for entry in entries] == [[], ["headers", "credentials"], ["signing_keys"]]
    assert entries[0].after.endpoint.headers == {"x-token": "(hidden)"}
    assert entries[0].after.endpoint.has_credentials
    assert len(entries[2].after.endpoint.signing_keys) == 2
    secrets = ["header-secret", "bearer-secret", "another-secret", "third-secret", api.ours.key.key]
    secrets += [created.secret, rotated.secret]
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT e::text, before_state, after_state FROM audit_entry e").fetchall()
    stored = b"".join(part if isinstance(part, bytes) else str(part).encode() for row in rows for part in row)
    assert len(rows) == 3
    assert not [secret for secret in secrets if secret.encode() in stored]


async def test_filters_restrict_the_list(api: AuditedApi, clock: ManualClock) -> None:
    other = await api.another_key("other")
    await put_customer(api.ours, "a", plan_id="gold")
    clock.advance(timedelta(minutes=1))
    await put_customer(other, "b", plan_id="gold")
    clock.advance(timedelta(minutes=1))
    await put_plan(other, "gold")

    async def numbers(**filters: Any) -> list[int]:
        return [entry.entry_number for entry in await api.ours.entries(**filters)]

    now = clock.now()
    assert await numbers() == [1, 2, 3]
    assert await numbers(actor_id=other.key.key_id) == [2, 3]
    assert await numbers(resource_types=[audit_entry_pb2.AUDIT_RESOURCE_TYPE_PLAN]) == [3]
    assert await numbers(resource_id="gold") == [3]
    assert await numbers(customer_id="a") == [1]
    assert await numbers(methods=[f"{SERVICE}/PutCustomer"]) == [1, 2]
    assert await numbers(start_time=to_timestamp(now)) == [3]
    assert await numbers(end_time=to_timestamp(now)) == [1, 2]
    assert await numbers(customer_id="a", actor_id=other.key.key_id) == []
    bad = ListAuditEntriesRequest(
        start_time=to_timestamp(now),
        end_time=to_timestamp(now),
        resource_types=[99, 0],  # type: ignore[list-item]
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.ours.audit.ListAuditEntries(bad)
    assert violations_of(refused.value) == ["resource_types[0]", "resource_types[1]"]


async def test_organizations_have_logs_of_their_own(api: AuditedApi) -> None:
    await put_plan(api.ours, "gold", "ours")
    await put_plan(api.theirs, "gold", "theirs")
    await put_plan(api.theirs, "gold", "theirs again")
    for caller, names in ((api.ours, ["ours"]), (api.theirs, ["theirs", "theirs again"])):
        entries = await caller.entries()
        assert [entry.after.plan.display_name for entry in entries] == names
        assert [entry.entry_number for entry in entries] == list(range(1, len(names) + 1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.ours.audit.GetAuditEntry(GetAuditEntryRequest(entry_number=2))
    assert reason_of(refused.value) == "ERROR_REASON_AUDIT_ENTRY_NOT_FOUND"
