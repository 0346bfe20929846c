"""The report at the end of the demo: expected beside received for each alert, and everything that differs."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo.comparison import Comparison, Difference, sequence_faults
from demo.definitions import AlertDefinition
from demo.expectation import ACCEPTED, DUPLICATE
from demo.latency import RATE, Probe, percentile
from demo.receiver import VerifiedWebhooks
from demo.transitions import TransitionKey
from generated.tidemark.v1 import alert_pb2

SHOWN_DIFFERENCES = 15
WIDE = 130  # characters from which the conditions are shown
NUMBERS_WIDTH = 38  # characters of the columns that are no texts, and of the gaps

# Every condition that the contract has.
CONDITIONS = tuple(field.name for field in alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields)

_RIGHT = "[good]✓[/]"
_WRONG = "[bad]✗[/]"


def alerts_table(
    alerts: Sequence[AlertDefinition], comparison: Comparison, webhooks: VerifiedWebhooks, width: int
) -> Table:
    """Each alert with the numbers of transitions that had to be notified, of which answers said so, and that arrived.

    width: of the console, in characters.
    """
    expected = Counter(transition.alert for transition in comparison.expectation.notified)
    promised = Counter(transition.alert for transition in comparison.promised.elements())
    received = Counter(
        transition.alert for received in webhooks.received.values() for transition in received.transitions
    )
    wrong = {transition.alert for transition in _all(comparison.webhook_difference(webhooks))}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    wide = width >= WIDE
    texts = ("alert", "condition", "covers") if wide else ("alert", "covers")
    for name in texts:
        # Where there is little room, the texts share what the numbers leave.
        table.add_column(name, no_wrap=True, max_width=(width - NUMBERS_WIDTH) // len(texts))
    for name in ("expected", "answers", "received"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("", min_width=1)
    for alert in alerts:
        groups = ", ".join(f"each {key}" if value is None else f"{key}={value}" for key, value in alert.groups)
        table.add_row(
            escape(alert.name),
            *([f"[name]{alert.condition}[/]"] if wide else []),
            escape(f"{alert.scope}, {groups}" if groups else alert.scope),
            f"{expected[alert.name]:,}",
            f"{promised[alert.name]:,}",
            f"{received[alert.name]:,}",
            _WRONG if alert.name in wrong else _RIGHT,
        )
    table.add_section()
    totals = (f"{sum(counts.values()):,}" for counts in (expected, promised, received))
    table.add_row(
        "[bold]all[/]",
        "",
        *([""] if wide else []),
        *(f"[bold]{total}[/]" for total in totals),
        _WRONG if wrong else _RIGHT,
    )
    return table


def conditions_table(alerts: Sequence[AlertDefinition], comparison: Comparison, webhooks: VerifiedWebhooks) -> Table:
    """Each condition of the contract with the numbers of transitions that had to be notified, and that arrived."""
    condition_of = {alert.name: alert.condition for alert in alerts}
    expected = Counter(condition_of[transition.alert] for transition in comparison.expectation.notified)
    received = Counter(
        condition_of.get(transition.alert) for one in webhooks.received.values() for transition in one.transitions
    )
    wrong = {condition_of.get(transition.alert) for transition in _all(comparison.webhook_difference(webhooks))}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column("condition", no_wrap=True)
    for name in ("expected", "received"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", min_width=1)
    for condition in CONDITIONS:
        right = condition not in wrong and expected[condition]
        table.add_row(
            f"[name]{condition}[/]",
            f"{expected[condition]:,}",
            f"{received[condition]:,}",
            _RIGHT if right else _WRONG,
        )
    return table


def all_conditions(alerts: Sequence[AlertDefinition], comparison: Comparison) -> tuple[str, str]:
    """A check for `print_checks`: each condition of the contract had to notify."""
    condition_of = {alert.name: alert.condition for alert in alerts}
    notified = {condition_of[transition.alert] for transition in comparison.expectation.notified}
    missing = [condition for condition in CONDITIONS if condition not in notified]
    return f"all {len(CONDITIONS)} conditions of the contract had something to notify", ", ".join(missing)


def events_table(comparison: Comparison) -> Table:
    """The numbers of events by verdict, expected and answered."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column("events", no_wrap=True)
    table.add_column("expected", justify="right")
    table.add_column("answered", justify="right")
    table.add_column("")
    order = (ACCEPTED, DUPLICATE)
    reasons = sorted((set(comparison.expected) | set(comparison.answered)) - set(order))
    for what in (*order, *reasons):
        words = what if what in order else f"rejected: [name]{what}[/]"
        right = comparison.expected[what] == comparison.answered[what]
        table.add_row(
            words, f"{comparison.expected[what]:,}", f"{comparison.answered[what]:,}", _RIGHT if right else _WRONG
        )
    return table


def print_report(
    console: Console,
    alerts: Sequence[AlertDefinition],
    comparison: Comparison,
    webhooks: VerifiedWebhooks,
    more: Iterable[tuple[str, str]] = (),
) -> bool:
    """Prints the whole report; True when everything was as expected. more: as for `print_checks`."""
    console.print()
    console.print(alerts_table(alerts, comparison, webhooks, console.width))
    if any(not transition.event_id for transition in comparison.expectation.notified):
        console.print("[quiet]no answer contains what an alert found when it was created: no event led to it[/]")
    console.print()
    console.print(events_table(comparison))
    console.print()
    return print_checks(console, comparison, webhooks, more)


def print_checks(
    console: Console, comparison: Comparison, webhooks: VerifiedWebhooks, more: Iterable[tuple[str, str]] = ()
) -> bool:
    """Prints what was checked and whether it held; True when everything did.

    more: further checks, each a sentence on what was checked and one on what failed, empty when nothing did.
    """
    checks = [
        ("every event got the expected answer", "see the events above" if comparison.answers_differ() else ""),
        ("every transition is in the answer to its event", _differs(comparison.acknowledgement_difference())),
        ("the answers say which transitions are notified", _differs(comparison.promise_difference())),
        ("the webhooks contain exactly the expected transitions", _differs(comparison.webhook_difference(webhooks))),
        (
            f"{len(webhooks.received):,} notifications, each signed, verified and with one content"
            + (f" ({webhooks.repeated} came more than once)" if webhooks.repeated else ""),
            "; ".join(webhooks.faults[:3]),
        ),
        ("the notifications of each gauge are numbered without a gap", "; ".join(sequence_faults(webhooks)[:3])),
        *more,
    ]
    for words, fault in checks:
        console.print(f"{_WRONG if fault else _RIGHT} {words}" + (f": [bad]{escape(fault)}[/]" if fault else ""))
    for title, difference in (
        ("in the answers", comparison.acknowledgement_difference()),
        ("in the webhooks", comparison.webhook_difference(webhooks)),
    ):
        _show(console, f"expected, but not {title}", difference.missing)
        _show(console, f"{title}, but not expected", difference.surplus)
    return not any(fault for _, fault in checks)


def latency_line(probe: Probe) -> str:
    """The measured percentiles, in milliseconds."""
    if not probe.webhooks or not probe.acknowledgements:
        return "[warn]no latency was measured[/]"

    def words(values: Sequence[float]) -> str:
        p50, p99 = (1000 * percentile(values, share) for share in (0.5, 0.99))
        return f"p50 [number]{p50:.1f} ms[/]  p99 [number]{p99:.1f} ms[/]  [quiet]of {len(values):,}[/]"

    return (
        f"latency at {RATE} events/s, from a usage event's send\n"
        f"  to its acknowledgement   {words(probe.acknowledgements)}\n"
        f"  to its webhook's arrival {words(probe.webhooks)}"
    )


def _all(difference: Difference) -> list[TransitionKey]:
    return difference.missing + difference.surplus


def _differs(difference: Difference) -> str:
    return f"{len(difference.missing)} missing, {len(difference.surplus)} not expected" if difference else ""


def _show(console: Console, title: str, transitions: Sequence[TransitionKey]) -> None:
    if not transitions:
        return
    table = Table("alert", "customer", "gauge", "period from", "kind", "level", "event", title=title)
    for transition in transitions[:SHOWN_DIFFERENCES]:
        table.add_row(
            escape(transition.alert),
            f"{transition.customer} {transition.subscription}".rstrip(),
            " ".join([transition.measured, *(f"{key}={value}" for key, value in transition.group)]),
            f"{transition.period_start:%Y-%m-%d %H:%M}",
            transition.kind,
            transition.level,
            transition.event_id,
        )
    if len(transitions) > SHOWN_DIFFERENCES:
        table.add_row(f"and {len(transitions) - SHOWN_DIFFERENCES} more")
    console.print(table)
