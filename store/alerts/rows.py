"""Alert definitions as rows of the table `alert`."""

from collections.abc import Mapping
from typing import Any

from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definition_json import (
    condition_from_json,
    condition_json,
    retired_from_json,
    retired_json,
    thresholds_from_json,
    thresholds_json,
)
from evaluator.definitions import AlertDefinition, DefinitionState


def definition_of(row: Mapping[Any, Any]) -> AlertDefinition:
    """The definition in a row with all columns."""
    return AlertDefinition(
        alert_id=row["alert_id"],
        display_name=row["name"],
        state=DefinitionState(row["state"]),
        scope=Scope(ScopeKind(row["scope"]), row["plan_id"], row["customer_id"], row["subscription_id"]),
        condition=condition_from_json(ConditionType(row["condition_type"]), row["condition"]),
        thresholds=thresholds_from_json(row["thresholds"]),
        uniqueness_key=row["uniqueness_key"],
        uniqueness_key_held=row["uniqueness_key_held"],
        natural_key=row["natural_key"],
        evaluate_on_create=row["evaluate_on_create"],
        version=row["version"],
        changed_epoch=row["changed_epoch"],
        watching_epoch=row["watching_epoch"],
        watching_time=row["watching_time"],
        backfill_after=row["visit_after"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        archive_time=row["archive_time"],
        create_epoch=row["create_epoch"],
        reset_version=row["reset_version"],
        retired=retired_from_json(row["retired"]),
        labels=row["labels"],
    )


def columns_of(definition: AlertDefinition) -> dict[str, Any]:
    """The values of all columns except organization_id."""
    scope = definition.scope
    return {
        "alert_id": definition.alert_id,
        "name": definition.display_name,
        "state": definition.state,
        "scope": scope.kind,
        "plan_id": scope.plan_id,
        "customer_id": scope.customer_id,
        "subscription_id": scope.subscription_id,
        "condition_type": definition.condition.condition_type,
        "condition": condition_json(definition.condition),
        "thresholds": thresholds_json(definition.thresholds),
        "uniqueness_key": definition.uniqueness_key,
        "uniqueness_key_held": definition.uniqueness_key_held,
        "natural_key": definition.natural_key,
        "evaluate_on_create": definition.evaluate_on_create,
        "version": definition.version,
        "changed_epoch": definition.changed_epoch,
        "watching_epoch": definition.watching_epoch,
        "watching_time": definition.watching_time,
        "visit_after": definition.backfill_after,
        "create_time": definition.create_time,
        "update_time": definition.update_time,
        "archive_time": definition.archive_time,
        "create_epoch": definition.create_epoch,
        "reset_version": definition.reset_version,
        "retired": retired_json(definition.retired),
        "labels": dict(definition.labels),
    }
