"""The reference model of what reservations hold of balances."""

from dataclasses import dataclass, field
from fractions import Fraction

from tests.reference.balances import ZERO, Segment, Unit, Wallet
from tests.reference.gauges import Event


@dataclass
class Draws:
    """What a reservation took of balances in one unit: of what was given back before, of segments, and beyond."""

    unit: Unit
    amount: Fraction
    credit: Fraction = ZERO
    parts: list[tuple[Segment, Fraction]] = field(default_factory=list)


def available(wallet: Wallet, usage: Event, unit: Unit) -> Fraction | None:
    """What balances can give; None: they need not, or can be overdrawn."""
    if not wallet.covers(unit, usage):
        return None
    order = wallet.order(unit, usage)
    if any(overdraws for _, overdraws in order):
        return None
    return wallet.credit(unit) + sum((max(ZERO, segment.remaining) for segment, _ in order), ZERO)


def hold(wallet: Wallet, usage: Event) -> list[Draws]:
    """Holds what usage takes."""
    found = []
    for unit, amount in wanted(usage):
        if not wallet.covers(unit, usage):
            continue
        draws = Draws(unit, amount, credit=min(amount, wallet.credit(unit)))
        wallet.held_credit[unit] = wallet.held_credit.get(unit, ZERO) + draws.credit
        rest = amount - draws.credit
        order = wallet.order(unit, usage)
        for segment, _ in order:
            part = max(ZERO, min(rest, segment.remaining))
            rest -= part
            if part:
                draws.parts.append((segment, part))
            segment.held += part
        beyond = [segment for segment, overdraws in order if overdraws]
        if beyond and rest:
            beyond[0].held += rest
            draws.parts.append((beyond[0], rest))
        found.append(draws)
    return found


def draw_held(wallet: Wallet, draws: Draws, amount: Fraction) -> Fraction:
    """Draws what is held, and gives the rest back; returns what was drawn."""
    give_back(wallet, draws, max(draws.amount - max(amount, ZERO), ZERO))
    drawn = draws.credit
    wallet.held_credit[draws.unit] = wallet.held_credit.get(draws.unit, ZERO) - draws.credit
    wallet.overage[draws.unit] = wallet.overage.get(draws.unit, ZERO) + draws.credit
    for segment, part in draws.parts:
        segment.held -= part
        segment.drawn += part
        drawn += part
    return drawn


def give_back(wallet: Wallet, draws: Draws, amount: Fraction) -> None:
    """Gives a part of a hold back: what no segment gave, then of the segments, the last one first."""
    beyond = draws.amount - draws.credit - sum((part for _, part in draws.parts), ZERO)
    draws.amount -= amount
    amount -= min(amount, beyond)
    kept = []
    for segment, part in reversed(draws.parts):
        back = min(amount, part)
        amount -= back
        segment.held -= back
        if part > back:
            kept.append((segment, part - back))
    draws.parts = kept[::-1]
    draws.credit -= amount
    wallet.held_credit[draws.unit] = wallet.held_credit.get(draws.unit, ZERO) - amount


def wanted(usage: Event) -> list[tuple[Unit, Fraction]]:
    """What usage takes of balances by unit, without what is 0."""
    units: list[Unit] = [("usage", usage.metric), ("cost", usage.currency or "")]
    return [(unit, amount) for unit in units if (amount := amount_in(usage, unit))]


def amount_in(usage: Event, unit: Unit) -> Fraction:
    """What usage takes of balances in a unit; its quantity also where its metric counts events."""
    return usage.quantity if unit[0] == "usage" else usage.cost or ZERO
