"""Each condition from its gauge to the webhook: reached at its threshold, once; resolved; reached again."""

from decimal import Decimal
from typing import NamedTuple

import pytest

from evaluator.amounts import format_decimal
from generated.tidemark.v1 import (
    alert_pb2,
    customer_alert_pb2,
    threshold_pb2,
)
from tests.support.databases import Template
from tests.support.processes.programs import Programs
from tests.support.semantics.rows import ROWS, Row
from tests.support.semantics.stage import CUSTOMER, Stage, beside_programs, in_this_process
from tests.support.semantics.variants import VARIANTS
from tests.support.usage.caller import BOTH

# Conditions of each family that time does not move are also tested with real programs.
AS_PROGRAMS = ("usage_threshold_reached", "low_remaining_commit_balance_reached", "invoice_total_reached")


class Sent(NamedTuple):
    """A transition in a notification. sequence: of the notification, for its gauge."""

    kind: str
    level: str
    previous_value: str
    value: str
    sequence: int


@pytest.fixture(scope="module")
def shared_database_url(template: Template) -> str:
    """The URL of the database in which each row is an organization."""
    return template.fresh_database(months=False)


def test_every_condition_has_a_row() -> None:
    conditions = alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields
    assert [row.condition for row in ROWS] == [one.name for one in conditions]


@pytest.mark.parametrize("row", [*ROWS, *VARIANTS], ids=lambda row: row.name)
async def test_a_condition_notifies_as_its_row_says(row: Row, shared_database_url: str) -> None:
    async with in_this_process(shared_database_url) as stage:
        await check(row, stage)


async def test_real_programs_notify_as_the_rows_say(programs: Programs) -> None:
    server, _ = await programs.serve(), await programs.notify()
    rows = [row for row in ROWS if row.condition in AS_PROGRAMS]
    assert len(rows) == len(AS_PROGRAMS)
    for row in rows:
        async with beside_programs(programs.url, server) as stage:
            await check(row, stage)
    assert not server.complaints()


async def check(row: Row, stage: Stage) -> None:
    """Goes through a row, and compares what the receiver got with what the row says."""
    for given in row.given:
        await given(stage)
    alert = await create(row, stage)
    expected: list[Sent] = []
    start, before, at, past = Decimal(row.start), Decimal(row.before), row.reached_at, Decimal(row.past)

    await row.move(stage, start, before)
    await stands(row, stage, alert, before, in_alarm=False)

    await row.move(stage, before, at)
    expected.append(sent("REACHED", row, start if row.timed else before, at, 1))
    await arrived(stage, alert, row, expected)
    await stands(row, stage, alert, at, in_alarm=True)

    # It stays past the threshold: nothing more is sent.
    await row.move(stage, at, past)
    await stands(row, stage, alert, past, in_alarm=True)

    # The value comes back: the threshold resolves.
    await (row.back or row.move)(stage, past, before)
    if row.notifies_back:
        expected.append(sent("RESOLVED", row, at if row.timed else past, before, 2))
    await stands(row, stage, alert, before, in_alarm=False)

    # Armed again: one step past the threshold.
    await row.move(stage, before, past)
    expected.append(sent("REACHED", row, before, at if row.timed else past, len(expected) + 1))
    await stands(row, stage, alert, past, in_alarm=True)

    if row.renew is not None and stage.clock is not None:
        # A new cycle begins armed: on a gauge of its own, or on the same gauge, where the threshold resolves.
        await row.renew(stage)
        renewed = Decimal(row.renewed)
        if row.notifies_renewal:
            expected.append(sent("RESOLVED", row, past, renewed, len(expected) + 1))
        await row.move(stage, renewed, before)
        await stands(row, stage, alert, before, in_alarm=False)
        await row.move(stage, before, at)
        expected.append(sent("REACHED", row, before, at, len(expected) + 1 if row.notifies_renewal else 1))
        await stands(row, stage, alert, at, in_alarm=True)
    await arrived(stage, alert, row, expected)


async def create(row: Row, stage: Stage) -> alert_pb2.Alert:
    """Creates the alert of the row, which notifies of both kinds, and waits for its first evaluation."""
    alert = alert_pb2.Alert(display_name=row.condition, scope=row.scope)
    condition = getattr(alert, row.condition)
    condition.SetInParent()
    for name, value in row.fields.items():
        if isinstance(value, list):
            getattr(condition, name).extend(value)
        elif isinstance(value, str):
            setattr(condition, name, value)
        else:
            getattr(condition, name).CopyFrom(value)
    if row.notifies_back:
        alert.thresholds.append(threshold_pb2.Threshold(value=row.threshold, notify_on=BOTH))
    return await stage.caller.create(alert)


async def stands(row: Row, stage: Stage, alert: alert_pb2.Alert, value: Decimal, *, in_alarm: bool) -> None:
    """The state shows the value, and whether the threshold is reached."""
    state = await stage.caller.state(alert.alert_id, CUSTOMER)
    [shown] = [one for one in state.gauges if row.gauge(one.gauge)]
    assert (Decimal(shown.gauge.value), [one.in_alarm for one in shown.thresholds]) == (value, [in_alarm])
    status = (
        customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM if in_alarm else customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    )
    assert (state.status, state.no_data) == (status, False)


async def arrived(stage: Stage, alert: alert_pb2.Alert, row: Row, expected: list[Sent]) -> None:
    """The receiver got exactly these transitions, in signed webhooks."""
    bodies = await stage.received(len(expected))
    # Deliveries of one gauge can overtake each other: the higher sequence is the newer state.
    bodies.sort(
        key=lambda body: (body["data"]["gauge"].get("period", {}).get("end_time", ""), body["data"]["sequence"])
    )
    for body in bodies:
        data = body["data"]
        about = (data["alert_id"], data["condition"], data["customer_id"], data["late"])
        assert about == (alert.alert_id, row.condition, CUSTOMER, False)
        assert body["type"] == f"alert.{data['transitions'][0]['kind'].lower()}"
    assert [
        Sent(one["kind"], one["level"], one["previous_value"], one["value"], body["data"]["sequence"])
        for body in bodies
        for one in body["data"]["transitions"]
    ] == expected


def sent(kind: str, row: Row, previous: Decimal, value: Decimal, sequence: int) -> Sent:
    """A transition of the threshold of the row."""
    return Sent(kind, row.threshold, format_decimal(previous), format_decimal(value), sequence)
