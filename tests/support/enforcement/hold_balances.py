"""The balances of a story's one customer that has any: put by calls, noted in the reference model, and compared."""

from datetime import datetime, timedelta
from fractions import Fraction

from tests.reference.balances import ZERO, Terms, Wallet
from tests.reference.gauges import Event
from tests.reference.held_balances import wanted
from tests.support.balances.holder import COMMIT, Holder
from tests.support.databases import NOON
from tests.support.enforcement.hold_story import Adjust, PutBalance
from tests.support.enforcement.hold_usage import text


class Balances:
    """The balances of one customer, and its wallet in the model."""

    def __init__(self, holder: Holder, wallet: Wallet, start: datetime) -> None:
        self._holder = holder
        self._wallet = wallet
        self._start = start
        self._put: dict[str, PutBalance] = {}

    async def put(self, put: PutBalance) -> None:
        """Puts a balance. The unit of a balance never changes."""
        known = self._put.setdefault(put.name, put)
        first, second = put.amounts
        later = self._start + known.ends
        spans: list[tuple[Fraction, datetime, datetime | None]] = [
            (first, NOON - timedelta(days=2), None),
            (second, NOON - timedelta(days=2), later),
        ]
        self._wallet.put(Terms(put.name, "COMMIT", known.unit, known.priority, known.overdraws), spans)
        await self._holder.put(
            put.name,
            kind=COMMIT,
            spans=[(text(amount), start, end) for amount, start, end in spans],
            currency=known.unit[1] if known.unit[0] == "cost" else "",
            metric=known.unit[1] if known.unit[0] == "usage" else "",
            priority=known.priority,
            allow_overage=known.overdraws,
        )

    async def adjust(self, adjust: Adjust, adjustment_id: str, now: datetime) -> None:
        """Adjusts a balance, if it exists."""
        known = adjust.name in self._put and adjust.amount != 0
        if known and self._wallet.adjust(adjust.name, adjust.amount, 1, now):
            await self._holder.adjust(adjust.name, text(adjust.amount), adjustment_id, 1)

    async def drawn(self) -> dict[str, Fraction]:
        """What usage took of them, by unit: of segments, and as overage."""
        found: dict[str, Fraction] = {}
        for (balance_id, _), segment in (await self._holder.segments()).items():
            unit = self._put[balance_id].unit[1]
            found[unit] = found.get(unit, ZERO) + Fraction(segment.drawn or "0")
        for unit, amount in (await self._holder.overage()).items():
            found[unit] = found.get(unit, ZERO) + Fraction(amount)
        return found

    async def take_over_drawn(self, voided: Event, before: dict[str, Fraction]) -> None:
        """Which segments get back what a void gives back depends on all usage of the customer, so that is taken over.

        It is all that the event drew, or nothing of what came before there was a balance. What is held stays.
        """
        after, amounts = await self.drawn(), {unit[1]: amount for unit, amount in wanted(voided)}
        for unit, amount in before.items():
            assert amount - after[unit] in (ZERO, amounts.get(unit, ZERO)), voided
        for (balance_id, number), stored in (await self._holder.segments()).items():
            self._wallet.balances[balance_id].segments[number].drawn = Fraction(stored.drawn or "0")
        overage = await self._holder.overage()
        for key in {put.unit for put in self._put.values()} | self._wallet.overage.keys():
            self._wallet.overage[key] = Fraction(overage.get(key[1], 0))

    async def compare(self) -> None:
        """Every segment has what the model says, and so has the overage."""
        expected = {
            (balance_id, number): (segment.remaining, segment.held, segment.drawn)
            for balance_id, balance in self._wallet.balances.items()
            for number, segment in balance.segments.items()
        }
        stored = await self._holder.segments()
        assert expected == {
            one: tuple(Fraction(amount or "0") for amount in (segment.remaining, segment.held, segment.drawn))
            for one, segment in stored.items()
        }
        overage = {name: Fraction(amount) for name, amount in (await self._holder.overage()).items() if amount}
        assert overage == {unit[1]: amount for unit, amount in self._wallet.overage.items() if amount}
