"""The reader of PromQL finds the series of an expression, and refuses what it cannot read."""

import pytest

from tests.support.monitoring.promql import NotPromQL, read


@pytest.mark.parametrize(
    ("expression", "names", "labels", "grouped"),
    [
        ("up", ["up"], [[]], []),
        ("sum by (job, instance) (rate(a_total[5m])) > 0.5", ["a_total"], [[]], ["job", "instance"]),
        ('a{job="x", code!~"4..|\\"5"} / on (job) group_left (v) b', ["a", "b"], [["job", "code"], []], ["job", "v"]),
        ("histogram_quantile(0.99, sum by (le) (rate(d_bucket[$__rate_interval])))", ["d_bucket"], [[]], ["le"]),
        ("max(a) without (job) unless b offset 1h30m and c > bool 1e3", ["a", "b", "c"], [[], [], []], ["job"]),
        ("a[5m:1m] # comment\n + -2 * b", ["a", "b"], [[], []], []),
        ("sum(rate(by_total[1m])) or vector(0)", ["by_total"], [[]], []),
    ],
)
def test_series_and_labels_of_an_expression_are_found(
    expression: str, names: list[str], labels: list[list[str]], grouped: list[str]
) -> None:
    found = read(expression)
    assert [one.name for one in found.selectors] == names
    assert [one.labels for one in found.selectors] == labels
    assert list(found.grouped_by) == grouped


@pytest.mark.parametrize(
    "expression",
    ["", "1 + 2", "sum(a", "a)", "a{b}", "a{b=c}", "rates(a[5m])", "sum + a", 'a{b="c}', "a ? b", "(a]"],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(NotPromQL):
        read(expression)
