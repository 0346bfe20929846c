"""Definitions of alerts, with the fields that most tests do not choose filled in."""

from datetime import UTC, datetime

from evaluator.alerts import Scope, ScopeKind
from evaluator.definitions import AlertDefinition, Condition, DefinitionState, natural_key
from evaluator.thresholds import Threshold

NOW = datetime(2026, 3, 15, tzinfo=UTC)


def definition(
    condition: Condition,
    *thresholds: Threshold,
    scope: Scope | None = None,
    state: DefinitionState = DefinitionState.ACTIVE,
) -> AlertDefinition:
    """A definition, by default active and of all customers."""
    scope = scope or Scope(ScopeKind.ALL_CUSTOMERS)
    return AlertDefinition(
        alert_id="alt_1",
        display_name="spend",
        state=state,
        scope=scope,
        condition=condition,
        thresholds=thresholds,
        uniqueness_key=None,
        uniqueness_key_held=False,
        natural_key=natural_key(scope, condition),
        evaluate_on_create=True,
        version=3,
        changed_epoch=7,
        watching_epoch=5,
        watching_time=NOW,
        backfill_after=None,
        create_time=NOW,
        update_time=NOW,
    )
