"""CreateAlertRequest to the requested alert, or to all its violations."""

from decimal import Decimal

import pytest
from google.protobuf import text_format

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.thresholds import Severity, Threshold, TransitionKind
from generated.tidemark.v1 import alert_pb2, alert_service_pb2, condition_pb2, threshold_pb2
from server.calls.errors import InvalidArgument
from server.calls.validation import Violations
from server.mapping.alerts import read_condition_types, read_new_alert, read_states
from server.mapping.thresholds import read_thresholds

ALL = 'display_name: "n" scope { all_customers {} } '
PLAN = 'display_name: "n" scope { plan { plan_id: "gold" } } '
SPEND = "spend_threshold_reached {} "
THRESHOLD = 'thresholds { value: "10" } '

EVALUATED = {kind.value for kind in ConditionType}
CASES = [field.name for field in alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields]


def request(alert: str, evaluate_on_create: bool | None = None) -> alert_service_pb2.CreateAlertRequest:
    """A request whose alert is written in protobuf's text format."""
    made = alert_service_pb2.CreateAlertRequest(alert=text_format.Parse(alert, alert_pb2.Alert()))
    if evaluate_on_create is not None:
        made.evaluate_on_create = evaluate_on_create
    return made


def read(alert: str) -> NewAlert:
    return read_new_alert(Violations(), request(alert))


def bound(**values: str) -> str:
    """The group_values of an override."""
    return " ".join(f'group_values {{ key: "{key}" value: "{value}" }}' for key, value in values.items())


def refused(alert: str) -> list[str]:
    """The paths of all violations of an alert."""
    with pytest.raises(InvalidArgument) as error:
        read(alert)
    return [violation.path for violation in error.value.violations]


def test_every_field_of_an_alert_is_read() -> None:
    wanted = read(
        """
        display_name: "spend"  uniqueness_key: "key"
        scope { customer { customer_id: "acme" } }
        spend_threshold_reached {
            currency: "EUR" group_values { key: "zone" } group_values { key: "model" value: "large" }
        }
        thresholds { value: "10.50" code: "low" severity: SEVERITY_WARNING resolve_value: "8"
                     notify_on: TRANSITION_KIND_RESOLVED notify_on: TRANSITION_KIND_REACHED }
        thresholds { recurring_step: "0.5" notify_on: TRANSITION_KIND_RESOLVED }
        """
    )
    assert (wanted.display_name, wanted.uniqueness_key, wanted.evaluate_on_create) == ("spend", "key", True)
    assert wanted.scope == Scope(ScopeKind.CUSTOMER, customer_id="acme")
    assert wanted.condition.currency == "EUR"
    assert wanted.condition.groups == (GroupSelector("zone"), GroupSelector("model", "large"))
    assert wanted.thresholds == (
        Threshold(
            Decimal("10.50"),
            "low",
            Severity.WARNING,
            None,
            Decimal(8),
            frozenset({TransitionKind.REACHED, TransitionKind.RESOLVED}),
        ),
        Threshold(recurring_step=Decimal("0.5"), notify_on=frozenset({TransitionKind.RESOLVED})),
    )


def test_an_unset_field_gets_its_default() -> None:
    wanted = read(ALL + SPEND + THRESHOLD)
    assert wanted.condition.currency == "USD"
    assert wanted.uniqueness_key is None
    assert wanted.thresholds[0].notify_on == {TransitionKind.REACHED}


@pytest.mark.parametrize(("sent", "read_as"), [(None, True), (True, True), (False, False)])
def test_evaluate_on_create_is_on_by_default(sent: bool | None, read_as: bool) -> None:
    made = request(ALL + SPEND + THRESHOLD, evaluate_on_create=sent)
    assert read_new_alert(Violations(), made).evaluate_on_create is read_as


def test_the_currency_of_a_cost_alert_stays_open() -> None:
    assert read(PLAN + "cost_exceeded {} " + THRESHOLD).condition.currency is None


def test_output_only_fields_are_ignored() -> None:
    plain = read(ALL + SPEND + THRESHOLD)
    noisy = (
        'alert_id: "alt_x" state: ALERT_STATE_ARCHIVED version: 9 etag: "9" uniqueness_key_released: true'
        " evaluation_status: EVALUATION_STATUS_DONE archive_time { seconds: -99999999999 } "
    )
    assert read(noisy + ALL + SPEND + THRESHOLD) == plain


def test_all_violations_are_answered_at_once() -> None:
    assert refused(
        """
        display_name: "a\\tb" uniqueness_key: "\\n"
        scope { subscription { customer_id: " acme" } }
        usage_threshold_reached { group_values { key: "a" } group_values { key: "a" } group_values {} }
        thresholds { value: "1e999" } thresholds { value: "NaN" severity: SEVERITY_INFO }
        thresholds { value: "1" code: "c" } thresholds { value: "1.00" code: "c" }
        thresholds { recurring_step: "0" }
        """
    ) == [
        "alert.display_name",
        "alert.usage_threshold_reached.metric_id",
        "alert.usage_threshold_reached.group_values[1].key",
        "alert.usage_threshold_reached.group_values[2].key",
        "alert.scope.subscription.customer_id",
        "alert.scope.subscription.subscription_id",
        "alert.scope",
        "alert.thresholds[0].value",
        "alert.thresholds[1].value",
        "alert.thresholds[3].code",
        "alert.thresholds[3].value",
        "alert.thresholds[4].recurring_step",
        "alert.uniqueness_key",
    ]


def test_an_empty_request_is_refused_for_its_missing_alert() -> None:
    with pytest.raises(InvalidArgument) as error:
        read_new_alert(Violations(), alert_service_pb2.CreateAlertRequest())
    assert [violation.path for violation in error.value.violations] == ["alert"]


def test_an_empty_alert_is_refused_with_every_missing_field() -> None:
    assert refused("") == ["alert.display_name", "alert.condition", "alert.scope", "alert.thresholds"]


@pytest.mark.parametrize(
    ("thresholds", "paths"),
    [
        (THRESHOLD * 21, ["alert.thresholds"]),
        ('thresholds { value: "" }', ["alert.thresholds[0].value"]),
        ('thresholds { value: "' + "9" * 60 + '" }', ["alert.thresholds[0].value"]),
        ('thresholds { value: "0.1234567890123456789" }', ["alert.thresholds[0].value"]),
        ('thresholds { value: " 1" }', ["alert.thresholds[0].value"]),
        ('thresholds { value: "1" resolve_value: "1.0" }', ["alert.thresholds[0].resolve_value"]),
        ('thresholds { value: "-1" resolve_value: "0" }', ["alert.thresholds[0].resolve_value"]),
        ('thresholds { value: "1" resolve_value: "x" }', ["alert.thresholds[0].resolve_value"]),
        ('thresholds { value: "1" severity: 9 }', ["alert.thresholds[0].severity"]),
        ('thresholds { value: "1" notify_on: 0 }', ["alert.thresholds[0].notify_on[0]"]),
        ('thresholds { value: "1" notify_on: [1, 3, 1] }', [
            "alert.thresholds[0].notify_on[1]", "alert.thresholds[0].notify_on[2]"
        ]),
        ('thresholds { value: "1" code: "' + "c" * 129 + '" }', ["alert.thresholds[0].code"]),
        ('thresholds { recurring_step: "-1" }', ["alert.thresholds[0].recurring_step"]),
        ('thresholds { recurring_step: "5" value: "5" resolve_value: "4" }', [
            "alert.thresholds[0].value", "alert.thresholds[0].resolve_value"
        ]),
        ('thresholds { recurring_step: "5" } thresholds { recurring_step: "6" }', [
            "alert.thresholds[1].recurring_step"
        ]),
    ],
)  # fmt: skip
def test_invalid_thresholds_are_named(thresholds: str, paths: list[str]) -> None:
    assert refused(ALL + SPEND + thresholds) == paths


@pytest.mark.parametrize(
    "thresholds",
    [
        'thresholds { value: "0" }',
        'thresholds { value: "-0.000000000000000001" resolve_value: "-1" }',
        'thresholds { recurring_step: "5" }',
        "".join(f'thresholds {{ value: "{value}" }}' for value in range(20)),
        # Not duplicates of each other: the codes are unset.
        'thresholds { value: "1" } thresholds { value: "2" }',
    ],
)
def test_valid_thresholds_are_accepted(thresholds: str) -> None:
    assert read(ALL + SPEND + thresholds).thresholds


@pytest.mark.parametrize(
    ("alert", "paths"),
    [
        (ALL.replace("all_customers {}", "plan {}") + SPEND, ["alert.scope.plan.plan_id"]),
        (
            ALL.replace("all_customers {}", "customer_plan {}") + SPEND,
            ["alert.scope.customer_plan.plan_id", "alert.scope.customer_plan.customer_id"],
        ),
        ('display_name: "n" scope {} ' + SPEND, ["alert.scope"]),
        ('display_name: "' + "n" * 257 + '" scope { all_customers {} } ' + SPEND, ["alert.display_name"]),
        (ALL + 'uniqueness_key: "' + "k" * 129 + '" ' + SPEND, ["alert.uniqueness_key"]),
        (ALL + 'spend_threshold_reached { currency: "usd" } ', ["alert.spend_threshold_reached.currency"]),
        (ALL + 'spend_threshold_reached { currency: "$" } ', ["alert.spend_threshold_reached.currency"]),
        (PLAN + "spend_exceeded {} ", ["alert.spend_exceeded.currency"]),
        (PLAN + 'cost_exceeded { grouping_keys: "a" } ', ["alert.cost_exceeded.currency"]),
        (
            PLAN + 'cost_exceeded { currency: "USD" grouping_keys: ["a", "a"] } ',
            ["alert.cost_exceeded.grouping_keys[1]"],
        ),
        (
            PLAN + 'cost_exceeded { currency: "USD" grouping_keys: ["a", "b", "c", "d"] } ',
            ["alert.cost_exceeded.grouping_keys"],
        ),
        (PLAN + 'usage_exceeded { metric_id: "a\\000" } ', ["alert.usage_exceeded.metric_id"]),
        (
            ALL + 'spend_threshold_reached { group_values { key: "a" value: "' + "v" * 257 + '" } } ',
            ["alert.spend_threshold_reached.group_values[0].value"],
        ),
    ],
)
def test_invalid_fields_are_named(alert: str, paths: list[str]) -> None:
    assert refused(alert + THRESHOLD) == paths


def test_an_empty_group_value_is_a_value() -> None:
    wanted = read(ALL + 'spend_threshold_reached { group_values { key: "a" value: "" } } ' + THRESHOLD)
    assert wanted.condition.groups == (GroupSelector("a", ""),)


SCOPES = {
    "all_customers": "all_customers {}",
    "plan": 'plan { plan_id: "p" }',
    "customer": 'customer { customer_id: "c" }',
    "subscription": 'subscription { customer_id: "c" subscription_id: "s" }',
    "customer_plan": 'customer_plan { customer_id: "c" plan_id: "p" }',
}
FIELDS = {
    "usage_threshold_reached": 'metric_id: "m"',
    "usage_exceeded": 'metric_id: "m"',
    "spend_exceeded": 'currency: "USD"',
    "low_remaining_seat_balance_reached": 'seat_filter { seat_group_key: "user" }',
    "license_balance_threshold_reached": 'license_type: "pro"',
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", list(ConditionType))
def test_each_family_of_conditions_accepts_only_its_scopes(scope: str, kind: ConditionType) -> None:
    threshold = THRESHOLD if kind.own_threshold is None else ""
    alert = f'display_name: "n" scope {{ {SCOPES[scope]} }} {kind} {{ {FIELDS.get(kind, "")} }} {threshold}'
    fits = scope in ("plan", "customer_plan") or (scope == "subscription") is kind.per_subscription
    if kind.of_one_customer:
        fits = scope in ("customer", "customer_plan")
    if fits:
        assert read(alert).condition.condition_type is kind
    else:
        assert refused(alert) == ["alert.scope"]


def test_each_of_the_23_conditions_of_the_contract_is_evaluated() -> None:
    assert len(CASES) == 23
    assert set(CASES) == set(ConditionType)


def test_thresholds_in_percent_of_a_limit_are_read() -> None:
    thresholds = 'thresholds { percent_of_limit: "80.50" resolve_value: "70" } thresholds { percent_of_limit: "150" }'
    expected = (
        Threshold(percent_of_limit=Decimal("80.5"), resolve_percent=Decimal(70)),
        Threshold(percent_of_limit=Decimal(150)),
    )
    assert read(ALL + SPEND + thresholds).thresholds == expected
    assert read(PLAN + 'usage_exceeded { metric_id: "m" } ' + thresholds).thresholds == expected
    assert read(ALL + "monthly_invoice_total_spend_threshold_reached {} " + thresholds).thresholds == expected
    # A value can be the same number: it is another threshold.
    several = read(ALL + SPEND + thresholds + ' thresholds { value: "150" } thresholds { recurring_step: "1" }')
    assert len(several.thresholds) == 4
    override = f'cost_exceeded {{ grouping_keys: "a" currency: "USD" threshold_overrides {{ {bound(a="x")} '
    [read_override] = read(PLAN + override + thresholds + "} } " + THRESHOLD).condition.overrides
    assert read_override.thresholds == expected


@pytest.mark.parametrize(
    ("threshold", "field"),
    [
        ('percent_of_limit: "80" value: "1"', "value"),
        ('percent_of_limit: "80" recurring_step: "1"', "percent_of_limit"),
        ('percent_of_limit: "80%"', "percent_of_limit"),
        ('percent_of_limit: "-0.01"', "percent_of_limit"),
        ('percent_of_limit: "80" resolve_value: "80"', "resolve_value"),
        ('percent_of_limit: "80" resolve_value: "x"', "resolve_value"),
        ('percent_of_limit: "50.0"', "percent_of_limit"),
    ],
)
def test_invalid_percentages_of_a_limit_are_named(threshold: str, field: str) -> None:
    alert = ALL + SPEND + f'thresholds {{ percent_of_limit: "50" }} thresholds {{ {threshold} }}'
    assert refused(alert) == [f"alert.thresholds[1].{field}"]


@pytest.mark.parametrize("kind", [kind for kind in ConditionType if kind.own_threshold is None])
def test_a_condition_without_a_limit_refuses_percentages(kind: ConditionType) -> None:
    taking = {
        "spend_threshold_reached",
        "usage_threshold_reached",
        "monthly_invoice_total_spend_threshold_reached",
        "usage_exceeded",
        "cost_exceeded",
        "spend_exceeded",
    }
    violations = Violations()
    sent = [threshold_pb2.Threshold(percent_of_limit="80")]
    read_thresholds(violations, "thresholds", sent, kind)
    expected = [] if kind in taking else ["thresholds[0].percent_of_limit"]
    assert [violation.path for violation in violations.found] == expected


@pytest.mark.parametrize(
    ("overrides", "paths"),
    [
        ("{ }", ["[0].group_values"]),
        ('{ group_values { value: "x" } }', ["[0].group_values[0].key"]),
        ('{ group_values { key: "a" } }', ["[0].group_values[0].value"]),
        (f"{{ {bound(a='x', c='y')} }}", ["[0].group_values[1].key"]),
        (f"{{ {bound(a='x')} {bound(a='y')} }}", ["[0].group_values[1].key"]),
        (f"{{ {bound(b=chr(92) + 'n')} }}", ["[0].group_values[0].value"]),
        (
            f"{{ {bound(b='y', a='x')} }}, {{ {bound(a='x')} }}, {{ {bound(a='x', b='y')} }}",
            ["[2].group_values"],
        ),
        (
            f'{{ {bound(a="x")} thresholds {{ value: "1" code: "c" }} thresholds {{ value: "1.0" code: "c" }} }},'
            f' {{ {bound(b="x")} thresholds {{ value: "x" }} }}',
            ["[0].thresholds[1].code", "[0].thresholds[1].value", "[1].thresholds[0].value"],
        ),
    ],
)
def test_invalid_overrides_are_named_by_their_path(overrides: str, paths: list[str]) -> None:
    condition = f'cost_exceeded {{ grouping_keys: ["a", "b"] currency: "USD" threshold_overrides: [{overrides}] }} '
    assert refused(PLAN + condition + THRESHOLD) == [
        f"alert.cost_exceeded.threshold_overrides{path}" for path in paths
    ]


ID_IS = "price_filters { field: PRICE_FIELD_PRICE_ID operator: FILTER_OPERATOR_INCLUDES "
ID_IS_NOT = "price_filters { field: PRICE_FIELD_PRICE_ID operator: FILTER_OPERATOR_EXCLUDES "


@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        ("price_filters {}", ["[0].field", "[0].operator", "[0].values"]),
        (ID_IS + "}", ["[0].values"]),
        (ID_IS + 'values: "a" values: "" values: "\\n" }', ["[0].values[1]", "[0].values[2]"]),
        (ID_IS + f'values: "{"a" * 257}" }}', ["[0].values[0]"]),
        (ID_IS + 'values: "a" }' + ID_IS + 'values: "b" }', [""]),
        (ID_IS + 'values: "a" }' + ID_IS_NOT + 'values: "a" }', [""]),
        ((ID_IS_NOT + 'values: "a" }') * 11, [""]),
        (ID_IS_NOT + 'values: "a" ' * 51 + "}", [""]),
        (ID_IS_NOT + f'values: "{"é" * 100}" ' * 31 + "}", [""]),
    ],
)
def test_invalid_price_filters_are_named_by_their_path(filters: str, paths: list[str]) -> None:
    condition = f'spend_exceeded {{ currency: "USD" {filters} }} '
    assert refused(PLAN + condition + THRESHOLD) == [f"alert.spend_exceeded.price_filters{path}" for path in paths]


def test_price_filters_are_merged() -> None:
    type_is_not = "price_filters { field: PRICE_FIELD_PRICE_TYPE operator: FILTER_OPERATOR_EXCLUDES "
    filters = [ID_IS + 'values: ["c", "a", "b"] }', type_is_not + 'values: "y" }', ID_IS_NOT + 'values: "b" }']
    filters += [type_is_not + 'values: ["x", "y"] }']
    merged = read(PLAN + f'spend_exceeded {{ currency: "USD" {" ".join(filters)} }} ' + THRESHOLD).condition.prices
    assert merged == (
        PriceFilter(PriceField.PRICE_ID, FilterOperator.INCLUDES, ("a", "c")),
        PriceFilter(PriceField.PRICE_TYPE, FilterOperator.EXCLUDES, ("x", "y")),
    )
    assert read(PLAN + f'spend_exceeded {{ currency: "USD" {" ".join(reversed(filters))} }} ' + THRESHOLD) == read(
        PLAN + f'spend_exceeded {{ currency: "USD" {" ".join(filters)} }} ' + THRESHOLD
    )


def test_overrides_without_group_keys_are_refused() -> None:
    condition = 'cost_exceeded { threshold_overrides { group_values { key: "a" value: "x" } } } '
    assert refused(PLAN + condition + THRESHOLD) == ["alert.cost_exceeded.threshold_overrides"]


def test_a_list_filter_refuses_unknown_states_and_types() -> None:
    violations = Violations()
    read_states(violations, "states", [alert_pb2.ALERT_STATE_ACTIVE, alert_pb2.ALERT_STATE_UNSPECIFIED])
    types = [condition_pb2.CONDITION_TYPE_UNSPECIFIED, condition_pb2.CONDITION_TYPE_USAGE_EXCEEDED]
    read_condition_types(violations, "condition_types", types)
    assert [violation.path for violation in violations.found] == ["states[1]", "condition_types[0]"]


def test_a_list_filter_by_an_unevaluated_type_finds_nothing() -> None:
    violations = Violations()
    types = [condition_pb2.CONDITION_TYPE_INVOICE_TOTAL_REACHED]
    assert read_condition_types(violations, "condition_types", types) == ("invoice_total_reached",)
    assert not violations.found
