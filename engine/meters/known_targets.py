"""Known targets: the targets of the usage of one organization's customers, kept from one transaction to the next."""

from evaluator.aggregation import Aggregation
from evaluator.balances import Unit
from evaluator.enforced_limits import ALWAYS, NOTHING_ENFORCED, Since
from evaluator.enforcement.targets import Holder, Kept, UsageTargets
from evaluator.routing import Router
from evaluator.routing_facts import CustomerFacts

# Kinds of usage, with the values of group keys, that are kept for one organization: about 20 MB. Above it, all are
# found anew.
MOST_KINDS = 20_000

_Kind = tuple[str, str | None, str, str | None]  # customer, subscription, metric, currency


class KnownTargets:
    """The targets of usage as of one epoch of the organization."""

    def __init__(self) -> None:
        self._router: Router | None = None
        self._epoch = -1
        self._found: dict[_Kind, UsageTargets] = {}
        self._kept = Kept()

    def use(self, router: Router) -> None:
        """Forgets what was found with another router, or at another epoch of it."""
        if router is not self._router or router.epoch != self._epoch or self._kept.number > MOST_KINDS:
            self._router, self._epoch, self._found, self._kept = router, router.epoch, {}, Kept()

    def of(
        self, router: Router, customer_id: str, subscription_id: str | None, metric_id: str, currency: str | None
    ) -> UsageTargets:
        """The targets of one kind of usage. The router must know the customer, its subscription and its metric.

        currency: of its cost; None where it has none.
        """
        key = customer_id, subscription_id, metric_id, currency
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = _find(router, self._kept, *key)
            self._kept.number += 1
        return found


def _find(
    router: Router, kept: Kept, customer_id: str, subscription_id: str | None, metric_id: str, currency: str | None
) -> UsageTargets:
    metric = router.metric(metric_id)
    # A metric that was just registered adds quantities.
    aggregation = Aggregation.SUM if metric is None else metric.aggregation
    if not router.is_covered(customer_id):
        return UsageTargets(aggregation, (), (), kept)
    units = []
    if aggregation.additive:
        units.append(Unit(metric_id=metric_id))
    if currency is not None:
        units.append(Unit(currency=currency))
    raw_events = None if metric is None else metric.raw_events
    since = ALWAYS if raw_events is None else Since(raw_events.since_epoch, raw_events.since_time)
    return UsageTargets(aggregation, units, holders(router, customer_id, subscription_id), kept, since)


def holders(router: Router, customer_id: str, subscription_id: str | None) -> list[Holder]:
    """The customer, its subscription with a plan of its own, and those above it, as far as they enforce limits."""
    chain = router.chain(customer_id)
    found = [_holder(router, customer, level) for level, customer in enumerate(chain)]
    if subscription_id is not None:
        subscription, customer = router.subscription(customer_id, subscription_id), chain[0]
        if subscription.plan_id is not None:
            plan = router.limits_of(customer, subscription.plan_id)[1]
            found.insert(
                1,
                Holder(
                    customer_id,
                    subscription_id,
                    NOTHING_ENFORCED,
                    plan.enforced,
                    subscription.cycle or customer.cycle,
                    0,
                    customer.counted_since.latest(Since(subscription.changed_epoch, subscription.changed_time)),
                ),
            )
    return [one for one in found if one.own.enforces or one.plan.enforces]


def _holder(router: Router, customer: CustomerFacts, level: int) -> Holder:
    own, plan = router.limits_of(customer, customer.plan_id)
    return Holder(
        customer.customer_id, None, own.enforced, plan.enforced, customer.cycle, level, customer.counted_since
    )
