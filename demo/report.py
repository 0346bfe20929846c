"""The demo's last page: expected beside received, alert by alert, and everything that differs."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo.expectation import ACCEPTED, DUPLICATE
from demo.latency import RATE, Probe, percentile
from demo.ledger import Difference, Ledger, sequence_faults
from demo.receiver import Receiver
from demo.world import AlertPlan, Crossing
from generated.tidemark.v1 import alert_pb2

SHOWN_DIFFERENCES = 15
WIDE = 130  # characters from which the conditions are shown
NUMBERS_WIDTH = 38  # characters of the columns that are no texts, and of the gaps

# Every condition that the contract has.
CONDITIONS = tuple(field.name for field in alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields)

_RIGHT = "[good]✓[/]"
_WRONG = "[bad]✗[/]"


def alerts_table(plans: Sequence[AlertPlan], ledger: Ledger, receiver: Receiver, width: int) -> Table:
    """Each alert with the crossings that had to be sent on, that answers named, that webhooks brought.

    width: of the console, in characters.
    """
    expected = Counter(crossing.alert for crossing in ledger.expectation.told)
    promised = Counter(crossing.alert for crossing in ledger.told.elements())
    received = Counter(crossing.alert for received in receiver.received.values() for crossing in received.crossings)
    wrong = {crossing.alert for crossing in _all(ledger.webhook_difference(receiver))}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    wide = width >= WIDE
    texts = ("alert", "condition", "covers") if wide else ("alert", "covers")
    for name in texts:
        # Where there is little room, the texts share what the numbers leave.
        table.add_column(name, no_wrap=True, max_width=(width - NUMBERS_WIDTH) // len(texts))
    for name in ("expected", "answers", "received"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("", min_width=1)
    for plan in plans:
        groups = ", ".join(f"each {key}" if value is None else f"{key}={value}" for key, value in plan.groups)
        table.add_row(
            escape(plan.name),
            *([f"[name]{plan.condition}[/]"] if wide else []),
            escape(f"{plan.scope}, {groups}" if groups else plan.scope),
            f"{expected[plan.name]:,}",
            f"{promised[plan.name]:,}",
            f"{received[plan.name]:,}",
            _WRONG if plan.name in wrong else _RIGHT,
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


def conditions_table(plans: Sequence[AlertPlan], ledger: Ledger, receiver: Receiver) -> Table:
    """Each condition of the contract with the crossings that had to be sent on, and that webhooks brought."""
    condition_of = {plan.name: plan.condition for plan in plans}
    expected = Counter(condition_of[crossing.alert] for crossing in ledger.expectation.told)
    received = Counter(
        condition_of.get(crossing.alert) for one in receiver.received.values() for crossing in one.crossings
    )
    wrong = {condition_of.get(crossing.alert) for crossing in _all(ledger.webhook_difference(receiver))}
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


def all_conditions(plans: Sequence[AlertPlan], ledger: Ledger) -> tuple[str, str]:
    """A check for `conclude`: no condition of the contract was left out."""
    condition_of = {plan.name: plan.condition for plan in plans}
    told = {condition_of[crossing.alert] for crossing in ledger.expectation.told}
    missing = [condition for condition in CONDITIONS if condition not in told]
    return f"all {len(CONDITIONS)} conditions of the contract had something to tell", ", ".join(missing)


def events_table(ledger: Ledger) -> Table:
    """What became of the events, beside what had to."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column("events", no_wrap=True)
    table.add_column("expected", justify="right")
    table.add_column("answered", justify="right")
    table.add_column("")
    order = (ACCEPTED, DUPLICATE)
    reasons = sorted((set(ledger.expected) | set(ledger.answered)) - set(order))
    for what in (*order, *reasons):
        words = what if what in order else f"rejected: [name]{what}[/]"
        right = ledger.expected[what] == ledger.answered[what]
        table.add_row(words, f"{ledger.expected[what]:,}", f"{ledger.answered[what]:,}", _RIGHT if right else _WRONG)
    return table


def reckon(
    console: Console,
    plans: Sequence[AlertPlan],
    ledger: Ledger,
    receiver: Receiver,
    more: Iterable[tuple[str, str]] = (),
) -> bool:
    """Prints the whole page; True when everything was as it has to be. more: as for `conclude`."""
    console.print()
    console.print(alerts_table(plans, ledger, receiver, console.width))
    if any(not crossing.event_id for crossing in ledger.expectation.told):
        console.print("[quiet]what an alert found when it was created comes with no event, so in no answer[/]")
    console.print()
    console.print(events_table(ledger))
    console.print()
    return conclude(console, ledger, receiver, more)


def conclude(console: Console, ledger: Ledger, receiver: Receiver, more: Iterable[tuple[str, str]] = ()) -> bool:
    """Prints what was checked and whether it held; True when everything did.

    more: further checks, each a sentence on what was checked and one on what failed, empty when nothing did.
    """
    checks = [
        ("every event was answered as it has to be", "see the events above" if ledger.answers_differ() else ""),
        ("every crossing is in the answer to its event", _differs(ledger.acknowledgement_difference())),
        ("the answers say which are sent on", _differs(ledger.promise_difference())),
        ("the webhooks told exactly these crossings", _differs(ledger.webhook_difference(receiver))),
        (
            f"{len(receiver.received):,} notifications, each signed, verified and of one content"
            + (f" ({receiver.repeated} came more than once)" if receiver.repeated else ""),
            "; ".join(receiver.faults[:3]),
        ),
        ("the notifications of each gauge are numbered without a gap", "; ".join(sequence_faults(receiver)[:3])),
        *more,
    ]
    for words, fault in checks:
        console.print(f"{_WRONG if fault else _RIGHT} {words}" + (f": [bad]{escape(fault)}[/]" if fault else ""))
    for title, difference in (
        ("in the answers", ledger.acknowledgement_difference()),
        ("in the webhooks", ledger.webhook_difference(receiver)),
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


def _all(difference: Difference) -> list[Crossing]:
    return difference.missing + difference.surplus


def _differs(difference: Difference) -> str:
    return f"{len(difference.missing)} missing, {len(difference.surplus)} not expected" if difference else ""


def _show(console: Console, title: str, crossings: Sequence[Crossing]) -> None:
    if not crossings:
        return
    table = Table("alert", "customer", "gauge", "period from", "kind", "level", "event", title=title)
    for crossing in crossings[:SHOWN_DIFFERENCES]:
        table.add_row(
            escape(crossing.alert),
            f"{crossing.customer} {crossing.subscription}".rstrip(),
            " ".join([crossing.measured, *(f"{key}={value}" for key, value in crossing.group)]),
            f"{crossing.period_start:%Y-%m-%d %H:%M}",
            crossing.kind,
            crossing.level,
            crossing.event_id,
        )
    if len(crossings) > SHOWN_DIFFERENCES:
        table.add_row(f"and {len(crossings) - SHOWN_DIFFERENCES} more")
    console.print(table)
