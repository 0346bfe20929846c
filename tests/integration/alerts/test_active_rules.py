"""The rules of active alerts are those of their definitions, whatever they share with other alerts."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definition_json import condition_from_json, thresholds_from_json
from evaluator.definitions import AlertDefinition
from evaluator.overrides import Override, RetiredThreshold
from store.alerts import active_rules
from store.alerts.rows import columns_of, definition_of
from store.postgres.database import Database, driver
from store.tables.alerts import alert
from tests.support.evaluator.definitions import definition

# Documents of every condition type, and thresholds of every kind.
STORED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "unit" / "evaluator" / "stored_definitions.json").read_text()
)
THRESHOLDS = thresholds_from_json(STORED["thresholds"])
SCOPES = (
    Scope(ScopeKind.ALL_CUSTOMERS),
    Scope(ScopeKind.PLAN, plan_id="pro"),
    Scope(ScopeKind.CUSTOMER, customer_id="acme"),
    Scope(ScopeKind.CUSTOMER_PLAN, customer_id="acme", plan_id="pro"),
    Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="main"),
)
START = datetime(2026, 3, 1, tzinfo=UTC)


def of_every_type() -> list[AlertDefinition]:
    """Two definitions of each condition type; no two columns of one have the same value."""
    found, numbers = list[AlertDefinition](), itertools.count(1)
    for document in [one for one in STORED["conditions"] for _ in range(2)]:
        condition = condition_from_json(ConditionType(document["condition_type"]), document["condition"])
        number = next(numbers)
        found.append(
            replace(
                definition(condition, *THRESHOLDS[: number % 6], scope=SCOPES[number % len(SCOPES)]),
                alert_id=f"alert-{number}",
                display_name=f"name {number}",
                natural_key=None,
                evaluate_on_create=number % 3 == 0,
                version=1_000 + number,
                changed_epoch=2_000 + number,
                watching_epoch=3_000 + number,
                create_epoch=4_000 + number,
                reset_version=5_000 + number,
                watching_time=START + timedelta(hours=number),
                create_time=START + timedelta(minutes=number),
                update_time=START + timedelta(seconds=number),
                retired=tuple(RetiredThreshold(one, (("zone", "eu"),) * (number % 2)) for one in THRESHOLDS),
            )
        )
    return found


def with_long_documents() -> AlertDefinition:
    """A definition whose documents are too long to be shared."""
    first = of_every_type()[0]
    bound = [(("zone", f"zone {number}"),) for number in range(100)]
    return replace(
        first,
        alert_id="long",
        condition=replace(first.condition, overrides=tuple(Override(one, THRESHOLDS) for one in bound)),
        retired=tuple(RetiredThreshold(THRESHOLDS[0], one) for one in bound),
    )


async def test_rule_is_that_of_the_definition_for_every_condition_type(
    database: Database, organization_id: int
) -> None:
    definitions = {one.alert_id: one for one in [*of_every_type(), with_long_documents()]}
    assert {one.condition.condition_type for one in definitions.values()} == set(ConditionType)
    rows = [{"organization_id": organization_id, **columns_of(one)} for one in definitions.values()]
    async with database.transaction() as connection:
        await connection.execute(insert(alert), rows)
        read = (await connection.execute(select(alert))).mappings()
        expected = {row["alert_id"]: definition_of(row).to_rule() for row in read}
        assert expected == {one.alert_id: one.to_rule() for one in definitions.values()}
        raw = await driver(connection)
        for _ in range(2):  # decoded, and then shared
            assert await active_rules.rules_with_ids(raw, organization_id, list(definitions)) == expected
        wide = await active_rules.wide_rules(raw, organization_id)
        of_customers = await active_rules.rules_of_customers(raw, organization_id, ["acme"])
    found = [*wide, *of_customers["acme"]]
    assert {one.alert_id: one for one in found} == expected
    assert len(found) == len(expected)


async def test_rules_share_short_documents_and_not_long_ones(database: Database, organization_id: int) -> None:
    """Long ones would keep their memory after the alert is changed or archived."""
    short, long = of_every_type()[4], with_long_documents()
    alerts = [short, long, replace(short, alert_id="short 2"), replace(long, alert_id="long 2")]
    rows = [{"organization_id": organization_id, **columns_of(one)} for one in alerts]
    async with database.transaction() as connection:
        await connection.execute(insert(alert), rows)
        ids = [one.alert_id for one in alerts]
        rules = await active_rules.rules_with_ids(await driver(connection), organization_id, ids)
    first, first_long, second, second_long = (rules[one] for one in ids)
    assert first.thresholds is second.thresholds
    assert first.measure is second.measure
    assert first_long.overrides == second_long.overrides
    assert first_long.overrides is not second_long.overrides
    assert first_long.retired == second_long.retired
    assert first_long.retired is not second_long.retired
