"""JSON of alert definitions, as the store keeps it: conditions, thresholds, and versions in the history.

Decimals are strings. Unset fields are left out. Stored documents are never rewritten, so every document that a former
version wrote must be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.alerts import ConditionType, GroupSelector
from evaluator.amounts import format_decimal
from evaluator.definitions import AlertDefinition, Condition, DefinitionState
from evaluator.gauges import Group, InvoiceSelection
from evaluator.overrides import Override, RetiredThreshold
from evaluator.selection_json import balances_from_json, balances_json, prices_from_json, prices_json
from evaluator.thresholds import Severity, Threshold, TransitionKind


def condition_json(condition: Condition) -> dict[str, Any]:
    """The fields of a condition, without its type."""
    shown: dict[str, Any] = {}
    if condition.metric_id is not None:
        shown["metric_id"] = condition.metric_id
    if condition.currency is not None:
        shown["currency"] = condition.currency
    if condition.groups:
        shown["groups"] = [_selector_json(selector) for selector in condition.groups]
    if condition.invoices is not None:
        shown["invoices"] = _invoices_json(condition.invoices)
    if condition.overrides:
        shown["overrides"] = [_override_json(override) for override in condition.overrides]
    if condition.prices:
        shown["prices"] = prices_json(condition.prices)
    if condition.balances is not None:
        shown["balances"] = balances_json(condition.balances)
    if condition.contract_fields:
        shown["contract_fields"] = _pairs_json(condition.contract_fields)
    if condition.counts_held:
        shown["counts_held"] = True
    return shown


def condition_from_json(condition_type: ConditionType, stored: Mapping[str, Any]) -> Condition:
    """The inverse of `condition_json`."""
    return Condition(
        condition_type=condition_type,
        metric_id=stored.get("metric_id"),
        currency=stored.get("currency"),
        groups=tuple(GroupSelector(group["key"], group.get("value")) for group in stored.get("groups", ())),
        invoices=_invoices_from_json(stored["invoices"]) if "invoices" in stored else None,
        overrides=tuple(_override_from_json(item) for item in stored.get("overrides", ())),
        prices=prices_from_json(stored.get("prices", ())),
        balances=balances_from_json(stored["balances"]) if "balances" in stored else None,
        contract_fields=_pairs_from_json(stored.get("contract_fields", ())),
        counts_held=stored.get("counts_held", False),
    )


def thresholds_json(thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """Thresholds in the given order."""
    return [_threshold_json(threshold) for threshold in thresholds]


def thresholds_from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[Threshold, ...]:
    """The inverse of `thresholds_json`."""
    return tuple(_threshold_from_json(item) for item in stored)


def retired_json(retired: Sequence[RetiredThreshold]) -> list[dict[str, Any]]:
    """Thresholds of former versions."""
    return [
        _threshold_json(one.threshold) | ({"bound": _pairs_json(one.bound)} if one.bound else {}) for one in retired
    ]


def retired_from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[RetiredThreshold, ...]:
    """The inverse of `retired_json`. Former versions stored the thresholds of overrides without `bound`."""
    return tuple(
        RetiredThreshold(_threshold_from_json(one), _pairs_from_json(one.get("bound", ()))) for one in stored
    )


def version_json(definition: AlertDefinition) -> dict[str, Any]:
    """What changes between the versions of one alert, for its history."""
    return {
        "name": definition.display_name,
        "labels": dict(definition.labels),
        "state": definition.state.value,
        "condition": condition_json(definition.condition),
        "thresholds": thresholds_json(definition.thresholds),
        "uniqueness_key_held": definition.uniqueness_key_held,
        "archived": definition.archive_time is not None,
    }


def version_from_json(
    current: AlertDefinition, stored: Mapping[str, Any], version: int, change_time: datetime
) -> AlertDefinition:
    """A former version of the alert `current`, of which `version_json` made `stored`; it shows no backfill."""
    return replace(
        current,
        display_name=stored["name"],
        labels=stored.get("labels", {}),  # a version that was stored before alerts had labels has none
        state=DefinitionState(stored["state"]),
        condition=condition_from_json(current.condition.condition_type, stored["condition"]),
        thresholds=thresholds_from_json(stored["thresholds"]),
        uniqueness_key_held=stored["uniqueness_key_held"],
        version=version,
        update_time=change_time,
        archive_time=current.archive_time if stored["archived"] else None,
        backfill_after=None,
    )


def _selector_json(selector: GroupSelector) -> dict[str, str]:
    if selector.value is None:
        return {"key": selector.key}
    return {"key": selector.key, "value": selector.value}


def _invoices_json(selection: InvoiceSelection) -> dict[str, Any]:
    return {
        "monthly": selection.monthly,
        "types": list(selection.types),
        "contract_fields": _pairs_json(selection.contract_fields),
    }


def _invoices_from_json(stored: Mapping[str, Any]) -> InvoiceSelection:
    return InvoiceSelection(stored["monthly"], tuple(stored["types"]), _pairs_from_json(stored["contract_fields"]))


def _override_json(override: Override) -> dict[str, Any]:
    return {"bound": _pairs_json(override.bound), "thresholds": thresholds_json(override.thresholds)}


def _override_from_json(stored: Mapping[str, Any]) -> Override:
    return Override(_pairs_from_json(stored["bound"]), thresholds_from_json(stored["thresholds"]))


def _pairs_json(pairs: Group) -> list[list[str]]:
    return [list(pair) for pair in pairs]


def _pairs_from_json(stored: Sequence[Sequence[str]]) -> Group:
    return tuple((key, value) for key, value in stored)


def _threshold_json(threshold: Threshold) -> dict[str, Any]:
    shown: dict[str, Any] = {"notify_on": sorted(kind.value for kind in threshold.notify_on)}
    if threshold.code:
        shown["code"] = threshold.code
    if threshold.severity is not None:
        shown["severity"] = threshold.severity.value
    name, number = threshold.defined_by
    shown[name] = format_decimal(number)
    if (resolve_value := threshold.defined_resolve_value) is not None:
        shown["resolve_value"] = format_decimal(resolve_value)
    return shown


def _threshold_from_json(stored: Mapping[str, Any]) -> Threshold:
    percent, resolve_value = _decimal(stored, "percent_of_limit"), _decimal(stored, "resolve_value")
    return Threshold(
        value=Decimal(stored.get("value", "0")),
        code=stored.get("code", ""),
        severity=Severity(stored["severity"]) if "severity" in stored else None,
        recurring_step=_decimal(stored, "recurring_step"),
        resolve_value=resolve_value if percent is None else None,
        notify_on=frozenset(TransitionKind(kind) for kind in stored["notify_on"]),
        percent_of_limit=percent,
        resolve_percent=None if percent is None else resolve_value,
    )


def _decimal(stored: Mapping[str, Any], name: str) -> Decimal | None:
    return Decimal(stored[name]) if name in stored else None
