"""The limits of a story compared: in a read, and in the meters that commits store."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import orjson

from engine.enforcement.requests import Release, Request, Reserve
from evaluator.enforcement.decisions import Decision, OveragePolicy
from evaluator.enforcement.usage import Usage
from tests.reference.enforced_limits import MONTH, Meter
from tests.reference.holds import OVERFLOW, HoldModel
from tests.support.enforcement.gateway import Gateway
from tests.support.enforcement.hold_story import ANN, BOB, CALL_METRIC, CUSTOMERS, MAIN, REGIONS, REQUEST_METRIC, Use
from tests.support.enforcement.hold_usage import event_of, shown, usage_of
from tests.support.usage.caller import Caller

HUGE = Fraction(10**9)
_PROBES = itertools.count(1)
USES = [
    *(
        Use(customer, HUGE, HUGE, region, None, metric)
        for customer in CUSTOMERS
        for region in (None, *REGIONS)
        for metric in (CALL_METRIC, REQUEST_METRIC)
    ),
    *(
        Use(customer, HUGE, HUGE, None, None, metric, MAIN)
        for customer in (ANN, BOB)
        for metric in (CALL_METRIC, REQUEST_METRIC)
    ),
]


async def compare(model: HoldModel, gateway: Gateway, caller: Caller) -> None:
    """Every limit shows what the model counts and holds."""
    usages = [usage_of(use, model.now) for use in USES]
    events = [event_of("", use, model.now) for use in USES]
    expected = [model.check(event, OVERFLOW) for event in events]
    read = await gateway.checks.check(gateway.organization, usages, OveragePolicy.OVERFLOW)
    for use, wanted, one in zip(USES, expected, read, strict=True):
        assert isinstance(one, Decision)
        assert frozenset(map(shown, one.over)) == wanted.over, use
    await _store(gateway, usages)
    stored = await _stored(caller)
    for meter in {met.meter for event in events for met in model.limits.met(event)}:
        expected_of_meter = model.counted(meter), model.held(meter)
        assert stored.get(_key(meter), (0, 0)) == expected_of_meter, meter
    assert sum(held for _, held in stored.values()) == sum(amount for _, amount in model.open_charges())


async def _store(gateway: Gateway, usages: Sequence[Usage]) -> None:
    """Lets a commit count and store all meters: it reserves nothing of each, and gives that back."""
    probes: list[Request] = []
    for usage in usages:
        name, cost = f"probe-{next(_PROBES)}", None if usage.cost is None else Decimal(0)
        nothing = replace(usage, quantity=Decimal(0), cost=cost)
        probes += [Reserve(name, nothing, OveragePolicy.OVERFLOW), Release(usage.customer_id, name)]
    await gateway.ask(*probes)


async def _stored(caller: Caller) -> dict[str, tuple[Fraction, Fraction]]:
    rows = await caller.rows(
        "SELECT customer_id, subscription_id, unit, group_values, window_kind, window_start, counted, held FROM meter"
        " WHERE organization_id = %(organization_id)s"
    )
    found: dict[str, tuple[Fraction, Fraction]] = {}
    for *names, counted, held in rows:
        key = orjson.dumps(names).decode()
        assert key not in found
        found[key] = Fraction(counted), Fraction(held)
    return found


def _key(meter: Meter) -> str:
    kind = "BILLING_PERIOD" if meter.window == MONTH else meter.window
    start = None if meter.span is None else meter.span[0]
    return orjson.dumps(
        [meter.customer, meter.subscription, "/".join(meter.unit), dict(meter.group), kind, start]
    ).decode()
