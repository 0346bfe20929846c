"""The rules of active alerts, for the registry of rules.

After many alerts are created, one commit may read thousands of rules. Most alerts of an organization differ only in
their customer, so what is decoded from the same short JSON is decoded once, and shared.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.definition_json import condition_from_json, retired_from_json, thresholds_from_json
from evaluator.gauges import Measure
from evaluator.overrides import Override, RetiredThreshold
from evaluator.thresholds import ThresholdSet
from runtime.turns import Slices
from store.postgres.database import DriverConnection

DECODED_AT_ONCE = 50  # rows that the driver decodes without a pause
# Rows that are decoded between two statements. The transaction is idle meanwhile, and holds the organization's lock.
DECODED_BETWEEN_STATEMENTS = 1_000
SHARED_DOCUMENTS = 4_096  # of the process; those that were used last are kept
# Characters of a document that is shared. A longer one can be decoded into thousands of thresholds, which would stay
# after its alert is changed or archived: the overrides of one alert can take 10 MB.
SHARED_LENGTH = 1_000

_SELECT = """
SELECT alert_id, name, version, condition_type, scope, plan_id, customer_id, subscription_id, condition::text,
    thresholds::text, evaluate_on_create, changed_epoch, watching_epoch, watching_time, create_epoch, create_time,
    reset_version, retired::text
FROM alert WHERE organization_id = %s AND state = 'ACTIVE'
"""
_WIDE = f"{_SELECT} AND customer_id IS NULL"
_OF_CUSTOMERS = f"{_SELECT} AND customer_id = ANY(%s)"
_WITH_IDS = f"{_SELECT} AND alert_id = ANY(%s)"


async def wide_rules(connection: DriverConnection, organization_id: int) -> list[AlertRule]:
    """The rules of all active alerts that name no customer."""
    return await _rules(connection, _WIDE, organization_id)


async def rules_of_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str]
) -> dict[str, list[AlertRule]]:
    """The rules of the active alerts that name these customers, by customer id, without customers that have none."""
    found: dict[str, list[AlertRule]] = {}
    for rule in await _rules(connection, _OF_CUSTOMERS, organization_id, list(customer_ids)):
        found.setdefault(rule.scope.customer_id or "", []).append(rule)
    return found


async def rules_with_ids(
    connection: DriverConnection, organization_id: int, alert_ids: Collection[str]
) -> dict[str, AlertRule]:
    """The rules of those of the alerts that are active, by id."""
    found = await _rules(connection, _WITH_IDS, organization_id, list(alert_ids))
    return {rule.alert_id: rule for rule in found}


async def _rules(
    connection: DriverConnection, query: str, organization_id: int, *parameters: list[str]
) -> list[AlertRule]:
    found, slices = list[AlertRule](), Slices(organization_id)
    async with connection.cursor() as cursor:
        # Planned anew: a plan that was made while the table was small reads all of it, and is kept while it grows.
        await cursor.execute(query.encode(), (organization_id, *parameters), prepare=False)
        while rows := await cursor.fetchmany(DECODED_AT_ONCE):
            if found and not len(found) % DECODED_BETWEEN_STATEMENTS:
                # An empty statement: PostgreSQL ends transactions that are silent for longer than a few seconds.
                await connection.execute(b"")
            await slices.begin()
            for row in rows:
                found.append(_rule(row))
                await slices.pause()
    return found


class _Condition(NamedTuple):
    """What a rule has of its alert's condition and thresholds."""

    condition_type: ConditionType
    measure: Measure
    groups: tuple[GroupSelector, ...]
    thresholds: ThresholdSet
    overrides: tuple[Override, ...]


def _condition(condition_type: str, condition: str, thresholds: str) -> _Condition:
    is_short = len(condition) + len(thresholds) <= SHARED_LENGTH
    return (_shared_condition if is_short else _decoded_condition)(condition_type, condition, thresholds)


def _decoded_condition(condition_type: str, condition: str, thresholds: str) -> _Condition:
    decoded = condition_from_json(ConditionType(condition_type), orjson.loads(condition))
    own = decoded.threshold_set(thresholds_from_json(orjson.loads(thresholds)))
    return _Condition(decoded.condition_type, decoded.measure, decoded.selectors, own, decoded.overrides)


def _retired(retired: str) -> tuple[RetiredThreshold, ...]:
    return (_shared_retired if len(retired) <= SHARED_LENGTH else _decoded_retired)(retired)


def _decoded_retired(retired: str) -> tuple[RetiredThreshold, ...]:
    return retired_from_json(orjson.loads(retired))


_shared_condition = lru_cache(maxsize=SHARED_DOCUMENTS)(_decoded_condition)
_shared_retired = lru_cache(maxsize=SHARED_DOCUMENTS)(_decoded_retired)


def _rule(row: Sequence[Any]) -> AlertRule:
    """The rule in a row of _SELECT."""
    alert_id, name, version, condition_type, scope, plan_id, customer_id, subscription_id, *others = row
    condition, thresholds, evaluate_on_create, changed_epoch, watching_epoch, watching_time, *others = others
    create_epoch, create_time, reset_version, retired = others
    shared = _condition(condition_type, condition, thresholds)
    return AlertRule(
        alert_id=alert_id,
        display_name=name,
        version=version,
        condition_type=shared.condition_type,
        scope=Scope(ScopeKind(scope), plan_id, customer_id, subscription_id),
        measure=shared.measure,
        groups=shared.groups,
        thresholds=shared.thresholds,
        evaluate_on_create=evaluate_on_create,
        changed_epoch=changed_epoch,
        watching_epoch=watching_epoch,
        watching_time=watching_time,
        overrides=shared.overrides,
        create_epoch=create_epoch,
        create_time=create_time,
        reset_version=reset_version,
        retired=_retired(retired),
    )
