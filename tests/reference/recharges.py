"""Recharges, as the documents describe them: one policy of one balance, in plain Python without any optimisation.

Amounts are fractions. A policy looks at its balance after each change, and again whenever time has passed.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

REQUESTED, PAID, FAILED, EXPIRED, CANCELED = "REQUESTED", "PAID", "FAILED", "EXPIRED", "CANCELED"
ENABLED, DISABLED = "ENABLED", "DISABLED"
COOLDOWN, MAX_COUNT, MAX_AMOUNT = "COOLDOWN", "MAX_COUNT", "MAX_AMOUNT"
ZERO = Fraction(0)


class Refused(Exception):
    """The call is refused; the reason."""


@dataclass(frozen=True)
class Terms:
    """What a policy says. Exactly one of level and fixed is set."""

    below: Fraction
    level: Fraction | None = None
    fixed: Fraction | None = None
    min_amount: Fraction = ZERO
    max_amount: Fraction | None = None
    max_count: int | None = None
    cooldown: timedelta = timedelta()
    failure_cooldown: timedelta = timedelta(hours=1)
    max_attempts: int = 3
    report_timeout: timedelta = timedelta(days=7)


@dataclass
class Recharge:
    """A recharge. number: in its policy, from 1. reported: what was reported, once something was."""

    number: int
    attempt: int
    amount: Fraction
    remaining: Fraction
    create_time: datetime
    expire_time: datetime
    policy: int
    state: str = REQUESTED
    reported: tuple[str, Fraction | None, bool] | None = None
    added: Fraction = ZERO


@dataclass
class RechargeModel:
    """A balance with one segment that never ends, of a customer whose periods are the months of UTC.

    policies: how many there were. failures: in a row. ended: when the last recharge of the policy ended, and how.
    """

    now: datetime
    remaining: Fraction
    terms: Terms | None = None
    policies: int = 0
    state: str = ENABLED
    reason: str = ""
    failures: int = 0
    permanent: bool = False
    numbers: int = 0
    ended: tuple[datetime, str] | None = None
    waits: tuple[str, datetime] | None = None
    recharges: list[Recharge] = field(default_factory=list)
    notified: list[tuple[str, int]] = field(default_factory=list)  # the kind, and the index of the recharge

    @property
    def open(self) -> Recharge | None:
        """The recharge of the present policy that waits for a report."""
        found = [one for one in self.recharges if one.state == REQUESTED and one.policy == self.policies]
        return found[0] if found else None

    def move(self, amount: Fraction) -> None:
        """Usage, or an adjustment."""
        self.remaining += amount
        self.look()

    def put(self, terms: Terms) -> None:
        """Puts a policy, or changes its terms: whether it is enabled, and what is open, stays."""
        if self.terms is None:
            self.policies += 1
            self.state, self.reason, self.failures, self.permanent = ENABLED, "", 0, False
            self.numbers, self.ended, self.waits = 0, None, None
        self.terms = terms
        self.look()

    def delete(self) -> None:
        """Deletes the policy, and cancels what is open."""
        if (one := self.open) is not None:
            one.state = CANCELED
            self.notified.append(("canceled", self.recharges.index(one)))
        self.terms = None

    def enable(self) -> None:
        """Switches the policy on again, as if nothing had failed."""
        if self.state == DISABLED:
            self.state, self.reason, self.failures, self.permanent, self.ended = ENABLED, "", 0, False, None
        self.look()

    def report(self, index: int, kind: str, amount: Fraction | None = None, *, permanent: bool = False) -> bool:
        """Reports what became of a recharge; returns whether the same was reported before."""
        one, report = self.recharges[index], (kind, amount, permanent)
        if one.reported is not None:
            if one.reported != report:
                raise Refused("RECHARGE_ENDED")
            return True
        is_present = self.terms is not None and one.policy == self.policies
        was_open = one is self.open if is_present else False
        one.reported, one.state = report, kind
        if kind == PAID:
            one.added = one.amount if amount is None else amount
            self.remaining += one.added
        if is_present:
            if kind == PAID:
                self.failures = 0
            if was_open:
                self.ended = self.now, kind
                self.failures += kind == FAILED
                self.permanent = permanent
            elif permanent and self.open is None:  # that is known now: another attempt would fail, too
                self.permanent = True
                self.ended = None if self.ended is None else (self.ended[0], FAILED)
        self.look()
        return False

    def wait(self, time: timedelta) -> None:
        """Time passes."""
        self.now += time
        self.look()

    def look(self) -> None:
        """The policy looks at its balance, until nothing changes any more."""
        terms = self.terms
        if terms is None:
            return
        one = self.open
        if one is not None and one.expire_time <= self.now:
            one.state = EXPIRED
            self.notified.append(("expired", self.recharges.index(one)))
            self.failures, self.ended, self.permanent = self.failures + 1, (self.now, FAILED), False
        if self.open is not None:
            return
        self.waits = None
        if self.state == ENABLED and (self.permanent or self.failures >= terms.max_attempts):
            self.state = DISABLED
            self.reason = "PERMANENT_FAILURE" if self.permanent else "ATTEMPTS_FAILED"
            self.notified.append(("policy_disabled", -1))
        if self.state == DISABLED or self.remaining >= terms.below:
            return
        if self.ended is not None:
            time, kind = self.ended
            cooled = time + (terms.cooldown if kind == PAID else terms.failure_cooldown)
            if cooled > self.now:
                self.waits = COOLDOWN, cooled
                return
        amount = terms.fixed if terms.level is None else terms.level - self.remaining
        assert amount is not None
        start, end = month_of(self.now)
        counting = [each for each in self.recharges if each.state in (PAID, REQUESTED) and each.create_time >= start]
        if terms.max_count is not None and len(counting) >= terms.max_count:
            self.waits = MAX_COUNT, end
            return
        if terms.max_amount is not None:
            left = terms.max_amount - sum(each.added if each.state == PAID else each.amount for each in counting)
            if amount > left:
                if terms.fixed is not None or left <= 0 or left < terms.min_amount:
                    self.waits = MAX_AMOUNT, end
                    return
                amount = left
        self.numbers += 1
        new = Recharge(
            self.numbers,
            self.failures + 1,
            amount,
            self.remaining,
            self.now,
            self.now + terms.report_timeout,
            self.policies,
        )
        self.recharges.append(new)
        self.notified.append(("requested", len(self.recharges) - 1))

    def copy(self) -> "RechargeModel":
        """Another one with the same content."""
        return replace(self, recharges=[replace(one) for one in self.recharges], notified=list(self.notified))


def month_of(time: datetime) -> tuple[datetime, datetime]:
    """The month of a time, in UTC."""
    start = datetime(time.year, time.month, 1, tzinfo=UTC)
    return start, datetime(time.year + time.month // 12, time.month % 12 + 1, 1, tzinfo=UTC)
