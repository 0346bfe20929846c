"""Files and options as messages: exact numbers, short names, and mistakes with their place."""

import pytest

from cli.resources import documents
from cli.resources.contract import new
from cli.resources.documents import BadDocument, fill, nodes_of, read_short, strip, tree_of
from cli.resources.values import BadValue, duration_of, timestamp_of
from cli.yaml_text import yaml_of
from generated.tidemark.v1.alert_pb2 import Alert
from generated.tidemark.v1.balance_pb2 import Balance
from generated.tidemark.v1.customer_pb2 import Customer
from generated.tidemark.v1.recharge_pb2 import RechargePolicy
from generated.tidemark.v1.threshold_pb2 import (
    SEVERITY_CRITICAL,
    TRANSITION_KIND_REACHED,
    TRANSITION_KIND_RESOLVED,
    Threshold,
)

ALERT = """
alert_id: alt_1
display_name: 'null'
scope: {customer: {customer_id: 007}}
usage_threshold_reached:
  metric_id: true
  group_values: [{key: region}, {key: plan, value: "pro"}]
thresholds:
  - {value: 0.10, severity: critical, notify_on: [reached, TRANSITION_KIND_RESOLVED]}
  - value: 100000000000000000000.5
uniqueness_key: ~
labels: {team: yes, "tier": 1}
countsHeld: true
create_time: 2026-03-15T12:00:00+01:00
"""


def read(text: str, message: object) -> None:
    [node] = nodes_of(text)
    fill(message, node)


def test_values_of_a_file_keep_their_digits_and_never_become_floats() -> None:
    alert = Alert()
    read(ALERT, alert)
    assert [one.value for one in alert.thresholds] == ["0.10", "100000000000000000000.5"]
    assert (alert.display_name, alert.scope.customer.customer_id) == ("null", "007")
    assert (alert.usage_threshold_reached.metric_id, dict(alert.labels)) == ("true", {"team": "yes", "tier": "1"})
    assert (alert.uniqueness_key, alert.counts_held) == ("", True)
    assert list(alert.thresholds[0].notify_on) == [1, 2]
    assert alert.create_time.ToJsonString() == "2026-03-15T11:00:00Z"


@pytest.mark.parametrize("json_names", [True, False])
def test_what_is_written_is_read_again(json_names: bool) -> None:
    alert = Alert()
    read(ALERT, alert)
    again = Alert()
    read(yaml_of(tree_of(alert, json_names=json_names)), again)
    assert again == alert
    policy = RechargePolicy(customer_id="a", below="1", max_count_per_period=3)
    policy.cooldown.FromSeconds(5400)
    policy.fixed.amount = "0.000000000000000001"
    other = RechargePolicy()
    read(yaml_of(tree_of(policy, json_names=json_names)), other)
    assert other == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "display_name: a\nthresholds:\n- vlaue: 1",
            "line 3: thresholds[0].vlaue: Threshold has no such field; did you",
        ),
        ("thresholds:\n- severity: loud", "line 2: thresholds[0].severity: 'loud' is no value of severity"),
        ("thresholds: {value: 1}", "line 1: thresholds: write a list"),
        ("scope: all", "line 1: scope: write the fields of AlertScope"),
        ("labels: [a]", "line 1: labels: write pairs"),
        ("display_name: [a]", "line 1: display_name: write one value"),
        ("display_name: a\ndisplay_name: b", "line 2: display_name is given twice"),
        ("counts_held: 1", "line 1: counts_held: '1' is neither true nor false"),
        ("version: many", "'many' is no whole number"),
        ("version: 9223372036854775808", "is too large"),
        ("- a", "line 1: write the fields of Alert"),
        ("a: &x [*x]", "contains itself"),
        ("a: {", "line 2: did not find expected node content"),
        ("? [a]\n: b", "a name is a text"),
        ("a: \x07", "control characters are not allowed"),
        ("create_time: soon", "is not a time"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_path(text: str, words: str) -> None:
    with pytest.raises(BadDocument) as raised:
        read(text, Alert())
    assert words in str(raised.value)


def test_aliases_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_NODES", 20_000)  # each level has ten times as many
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(BadDocument, match="has more than"):
        list(nodes_of("\n".join(lines)))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BadDocument, match="maximum nesting depth"):
        list(nodes_of("[" * 100_000))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("value=100,severity=critical", Threshold(value="100", severity=SEVERITY_CRITICAL)),
        ("{value: 0.10, notify_on: [reached]}", Threshold(value="0.10", notify_on=[TRANSITION_KIND_REACHED])),
        (
            "value=1,notify_on=reached,notify_on=resolved",
            Threshold(value="1", notify_on=[TRANSITION_KIND_REACHED, TRANSITION_KIND_RESOLVED]),
        ),
    ],
)
def test_options_take_messages_in_two_forms(text: str, expected: Threshold) -> None:
    found = Threshold()
    read_short(text, found)
    assert found == expected


@pytest.mark.parametrize("text", ["100", "valu=1", "{valu: 1}", "severity=loud", "value=1,,", "code.x=1"])
def test_options_refuse_what_is_no_message(text: str) -> None:
    with pytest.raises(BadValue):
        read_short(text, Threshold())


def test_only_what_the_server_sets_is_stripped() -> None:
    balance = Balance(balance_id="b", remaining="5", held="1")
    balance.segments.add(amount="5", drawn="2", segment_number=1)
    strip(balance)
    assert balance.remaining == balance.held == balance.segments[0].drawn == ""
    assert (balance.balance_id, balance.segments[0].amount, balance.segments[0].segment_number) == ("b", "5", 0)
    alert = Alert(alert_id="alt_1", etag="3", version=3)
    strip(alert, ("alert_id", "etag"))
    assert (alert.alert_id, alert.etag, alert.version) == ("alt_1", "3", 0)
    assert new(Customer.DESCRIPTOR) == Customer()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800), ("1w", 604_800), ("90", 90), ("0s", 0)],
)
def test_durations_have_units(text: str, seconds: int) -> None:
    assert duration_of(text).ToSeconds() == seconds
    assert duration_of("1.5s").ToMilliseconds() == duration_of("1500ms").ToMilliseconds() == 1500


@pytest.mark.parametrize("text", ["", "h", "1y", "-5s", "1.s", "99999999999999999999w", "1h 30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        duration_of(text)


def test_times_are_absolute_or_relative_to_now() -> None:
    assert timestamp_of("2026-03-15").ToJsonString() == "2026-03-15T00:00:00Z"
    assert timestamp_of("2026-03-15T12:00:00.5+02:00").ToJsonString() == "2026-03-15T10:00:00.500Z"
    later, now, earlier = (timestamp_of(text).ToDatetime() for text in ("+1h", "now", "-1h30m"))
    assert 3590 < (later - now).total_seconds() < 3610
    assert 5390 < (now - earlier).total_seconds() < 5410
    for text in ("yesterday", "-9999999w", "2026-02-30", "24h"):
        with pytest.raises(BadValue):
            timestamp_of(text)
