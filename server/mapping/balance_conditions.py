"""Conditions on balances: read from requests, with every violation, and written to answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluator.alerts import ConditionType, GroupSelector
from evaluator.balances import (
    BalanceKind,
    BalanceReading,
    BalanceSelection,
    FieldEntity,
    FieldFilter,
    Specifier,
)
from evaluator.definitions import DEFAULT_CURRENCY, Condition
from generated.tidemark.v1 import (
    access_pb2,
    filter_pb2,
)
from server.calls.validation import Violations
from server.mapping.balances import MAX_SEAT_LENGTH
from server.mapping.fact_conditions import MAX_CUSTOM_FIELD_FILTERS, MAX_CUSTOM_FIELD_VALUE_LENGTH

MAX_SPECIFIERS = 20  # of one alert
MAX_EXCLUSIONS = 20  # of one specifier
MAX_GRANT_TYPES = 50  # of one alert

_ENTITIES: Mapping[FieldEntity, filter_pb2.CustomFieldEntity.ValueType] = {
    entity: filter_pb2.CustomFieldEntity.Value(f"CUSTOM_FIELD_ENTITY_{entity}") for entity in FieldEntity
}
_ENTITY_OF = {number: entity for entity, number in _ENTITIES.items()}

_COMMITS = (BalanceKind.COMMIT,)
_CREDITS = (BalanceKind.CONTRACT_CREDIT,)
_BOTH = (BalanceKind.COMMIT, BalanceKind.CONTRACT_CREDIT)
_GRANTS = (BalanceKind.CREDIT_GRANT,)

# The kinds of balances that each type selects, and what it measures of them.
_SELECTED: Mapping[ConditionType, tuple[tuple[BalanceKind, ...], BalanceReading]] = {
    ConditionType.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED: (_COMMITS, BalanceReading.DAYS_LEFT),
    ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED: (_COMMITS, BalanceReading.REMAINING),
    ConditionType.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED: (_COMMITS, BalanceReading.REMAINING_PERCENT),
    ConditionType.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED: (_CREDITS, BalanceReading.DAYS_LEFT),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED: (_CREDITS, BalanceReading.REMAINING),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED: (_CREDITS, BalanceReading.REMAINING_PERCENT),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED: (_BOTH, BalanceReading.REMAINING),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED: (
        _BOTH,
        BalanceReading.REMAINING_PERCENT,
    ),
    ConditionType.LOW_REMAINING_SEAT_BALANCE_REACHED: ((BalanceKind.SEAT_CREDIT,), BalanceReading.REMAINING),
    ConditionType.LOW_CREDIT_BALANCE_REACHED: (_GRANTS, BalanceReading.REMAINING),
    ConditionType.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED: (_GRANTS, BalanceReading.REMAINING_PERCENT),
    ConditionType.CREDIT_BALANCE_DEPLETED: (_GRANTS, BalanceReading.REMAINING),
    ConditionType.CREDIT_BALANCE_DROPPED: (_GRANTS, BalanceReading.REMAINING),
    ConditionType.CREDIT_BALANCE_RECOVERED: (_GRANTS, BalanceReading.REMAINING),
    ConditionType.LICENSE_BALANCE_THRESHOLD_REACHED: (
        (BalanceKind.LICENSE_ALLOTMENT,),
        BalanceReading.USED_PERCENT,
    ),
}

BALANCE_TYPES = frozenset(_SELECTED)


def read_balance_condition(condition_type: ConditionType) -> Callable[[Violations, str, Any], Condition]:
    """A reader of the conditions of one of the types on balances."""

    def read(violations: Violations, at: str, sent: Any) -> Condition:
        currency, metric_id = _unit(violations, at, sent)
        groups: tuple[GroupSelector, ...] = ()
        if _has_field(sent, "seat_filter"):
            groups = _seats(violations, f"{at}.seat_filter", sent)
        return Condition(
            condition_type,
            metric_id=metric_id,
            currency=currency,
            groups=groups,
            balances=_selection(violations, at, sent, condition_type, groups[0].key if groups else None),
        )

    return read


def _selection(
    violations: Violations, at: str, sent: Any, condition_type: ConditionType, seat_key: str | None
) -> BalanceSelection:
    kinds, reading = _SELECTED[condition_type]
    any_metric = _has_field(sent, "quantity") and sent.HasField("quantity") and not sent.quantity.metric_id
    selection = BalanceSelection(kinds, reading, seat_key=seat_key, any_metric=any_metric)
    if _has_field(sent, "custom_field_filters"):
        filters = _filters(violations, f"{at}.custom_field_filters", sent.custom_field_filters, kinds)
        selection = replace(selection, filters=filters)
    if _has_field(sent, "alert_specifiers"):
        specifiers = _specifiers(violations, f"{at}.alert_specifiers", sent.alert_specifiers, kinds)
        selection = replace(selection, specifiers=specifiers)
    if _has_field(sent, "credit_grant_type_filters"):
        grant_types = _grant_types(violations, f"{at}.credit_grant_type_filters", sent)
        selection = replace(selection, grant_types=grant_types)
    if _has_field(sent, "license_type"):
        license_type = violations.identifier(f"{at}.license_type", sent.license_type)
        selection = replace(selection, license_type=license_type)
    return selection


def _has_field(condition: Any, name: str) -> bool:
    """Whether the type of a condition has a field of that name, set or not."""
    return name in type(condition).DESCRIPTOR.fields_by_name


def write_balance_condition(condition: Condition, shown: Any) -> None:
    """Writes the condition of an alert on balances to an answer."""
    selection = condition.balances
    assert selection is not None
    shown.SetInParent()
    if _has_field(shown, "currency") and condition.currency is not None:
        shown.currency = condition.currency
    if _has_field(shown, "spend"):
        if condition.metric_id is not None or selection.any_metric:
            shown.quantity.CopyFrom(access_pb2.QuantityAccess(metric_id=condition.metric_id or ""))
        else:
            shown.spend.currency = condition.currency or ""
    if _has_field(shown, "seat_filter"):
        selector = condition.groups[0]
        shown.seat_filter.seat_group_key = selector.key
        if selector.value is not None:
            shown.seat_filter.seat_group_value = selector.value
    if _has_field(shown, "custom_field_filters"):
        shown.custom_field_filters.extend(_filter_message(one) for one in selection.filters)
    if _has_field(shown, "alert_specifiers"):
        shown.alert_specifiers.extend(_specifier_message(one) for one in selection.specifiers)
    if _has_field(shown, "credit_grant_type_filters"):
        shown.credit_grant_type_filters.extend(selection.grant_types)
    if _has_field(shown, "license_type"):
        shown.license_type = selection.license_type or ""


def _unit(violations: Violations, at: str, sent: Any) -> tuple[str | None, str | None]:
    """The currency or the metric of the balances; neither where the condition takes several units."""
    if _has_field(sent, "currency"):
        return violations.currency(f"{at}.currency", sent.currency, default=DEFAULT_CURRENCY), None
    if not _has_field(sent, "spend"):
        return None, None
    match sent.WhichOneof("access"):
        case "quantity":
            if not sent.quantity.metric_id:
                return None, None
            return None, violations.identifier(f"{at}.quantity.metric_id", sent.quantity.metric_id)
        case "spend":
            if not sent.spend.currency:
                violations.add(f"{at}.spend.currency", "it is required: leave spend unset for USD")
            return violations.currency(f"{at}.spend.currency", sent.spend.currency, default=DEFAULT_CURRENCY), None
    return DEFAULT_CURRENCY, None


def _seats(violations: Violations, path: str, sent: Any) -> tuple[GroupSelector, ...]:
    if not sent.HasField("seat_filter"):
        violations.add(path, "it is required")
        return (GroupSelector(""),)
    key = violations.identifier(f"{path}.seat_group_key", sent.seat_filter.seat_group_key)
    if not sent.seat_filter.HasField("seat_group_value"):
        return (GroupSelector(key),)
    value = sent.seat_filter.seat_group_value
    if not value:
        violations.add(f"{path}.seat_group_value", "it is empty: leave it unset to watch every seat")
    return (GroupSelector(key, violations.text(f"{path}.seat_group_value", value, max_length=MAX_SEAT_LENGTH)),)


def _grant_types(violations: Violations, path: str, sent: Any) -> tuple[str, ...]:
    types = list(sent.credit_grant_type_filters)
    if len(types) > MAX_GRANT_TYPES:
        violations.add(path, f"it has {len(types)} types; give at most {MAX_GRANT_TYPES}")
        return ()
    for index, name in enumerate(types):
        violations.identifier(f"{path}[{index}]", name)
    return tuple(sorted(set(types)))


def _filters(
    violations: Violations,
    path: str,
    sent: Sequence[filter_pb2.CustomFieldFilter | filter_pb2.SpecifierFieldFilter],
    kinds: tuple[BalanceKind, ...],
) -> tuple[FieldFilter, ...]:
    """Filters by custom fields, sorted, each once."""
    if len(sent) > MAX_CUSTOM_FIELD_FILTERS:
        violations.add(path, f"it has {len(sent)} filters; give at most {MAX_CUSTOM_FIELD_FILTERS}")
        return ()
    found: dict[tuple[FieldEntity, str], FieldFilter] = {}
    for index, item in enumerate(sent):
        at = f"{path}[{index}]"
        entity = _ENTITY_OF.get(item.entity)
        if entity is None:
            violations.add(f"{at}.entity", "it is required: name the object that has the custom field")
        elif not _may_have(entity, kinds):
            names = " and ".join(one.lower() for one in kinds)
            violations.add(
                f"{at}.entity", f"the alert measures {names} balances, which have no custom fields of {entity}"
            )
        violations.identifier(f"{at}.key", item.key)
        value: str | None = item.value
        if isinstance(item, filter_pb2.SpecifierFieldFilter) and not item.HasField("value"):
            value = None
        violations.text(f"{at}.value", item.value, max_length=MAX_CUSTOM_FIELD_VALUE_LENGTH)
        one = FieldFilter(entity or FieldEntity.CONTRACT, item.key, value)
        if found.setdefault((one.entity, one.key), one) != one:
            violations.add(f"{at}.value", f"a balance cannot have two values of {item.key!r}")
    return tuple(sorted(found.values(), key=lambda one: (one.entity, one.key)))


def _may_have(entity: FieldEntity, kinds: tuple[BalanceKind, ...]) -> bool:
    match entity:
        case FieldEntity.COMMIT:
            return BalanceKind.COMMIT in kinds
        case FieldEntity.CONTRACT_CREDIT:
            return BalanceKind.CONTRACT_CREDIT in kinds or BalanceKind.SEAT_CREDIT in kinds
    return True


def _specifiers(
    violations: Violations,
    path: str,
    sent: Sequence[filter_pb2.AlertSpecifier],
    kinds: tuple[BalanceKind, ...],
) -> tuple[Specifier, ...]:
    if len(sent) > MAX_SPECIFIERS:
        violations.add(path, f"it has {len(sent)} specifiers; give at most {MAX_SPECIFIERS}")
        return ()
    found = []
    for index, item in enumerate(sent):
        at = f"{path}[{index}]"
        if not item.custom_field_filters and not item.exclude:
            violations.add(at, "it is empty: give custom_field_filters or exclude, or leave alert_specifiers empty")
        if len(item.exclude) > MAX_EXCLUSIONS:
            violations.add(f"{at}.exclude", f"it has {len(item.exclude)}; give at most {MAX_EXCLUSIONS}")
            continue
        excluded = []
        for number, exclusion in enumerate(item.exclude):
            where = f"{at}.exclude[{number}].custom_field_filters"
            if not exclusion.custom_field_filters:
                violations.add(where, "it is required: give at least one filter")
            excluded.append(_filters(violations, where, exclusion.custom_field_filters, kinds))
        filters = _filters(violations, f"{at}.custom_field_filters", item.custom_field_filters, kinds)
        found.append(Specifier(filters, tuple(excluded)))
    return tuple(found)


def _filter_message(one: FieldFilter) -> filter_pb2.CustomFieldFilter:
    return filter_pb2.CustomFieldFilter(entity=_ENTITIES[one.entity], key=one.key, value=one.value or "")


def _specifier_message(specifier: Specifier) -> filter_pb2.AlertSpecifier:
    return filter_pb2.AlertSpecifier(
        custom_field_filters=[
            filter_pb2.SpecifierFieldFilter(entity=_ENTITIES[one.entity], key=one.key, value=one.value)
            for one in specifier.filters
        ],
        exclude=[
            filter_pb2.SpecifierExclusion(custom_field_filters=map(_filter_message, together))
            for together in specifier.excluded
        ],
    )
