"""Changed customers: what is evaluated when a customer, its plan, a subscription, a limit or an alert of it changes.

The change has noted the customer (`store.accounts.customer_evaluations`). An event that comes before the evaluation
evaluates the gauges that it moves itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from engine.facts.due_timers import catch_up
from engine.facts.fact_gauges import evaluate_readings
from engine.facts.readings import Covered, read_all
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule, GroupSelector
from evaluator.gauges import Measure
from evaluator.routing import Router
from evaluator.routing_facts import CustomerFacts
from store.accounts import customer_evaluations
from store.accounts.customer_evaluations import Note
from store.balances import wallet_timers, wallets
from store.rules import routing_facts


class _Measured(NamedTuple):
    """What decides which gauges of a customer an alert watches; alerts that are alike in it share them."""

    measure: Measure
    groups: tuple[GroupSelector, ...]
    plan_id: str | None
    subscription_id: str | None


@dataclass(frozen=True)
class Concerned:
    """A noted customer, and the alerts to evaluate for it.

    on_facts: all alerts on facts, or none. alone: each is evaluated in a transaction of its own: one of each set of
    like alerts on the customer's usage, and the alerts that were enabled for the customer.
    """

    note: Note
    customer: CustomerFacts
    on_facts: list[AlertRule]
    alone: list[AlertRule]


async def find_concerned(transaction: Transaction, notes: Sequence[Note]) -> list[Concerned]:
    """The noted customers that exist, each with the alerts to evaluate for it."""
    connection, organization_id = transaction.driver, transaction.organization_id
    found = await routing_facts.customers(connection, organization_id, [note.customer_id for note in notes])
    customers = {one.customer_id: one for one in found if not one.being_erased}
    concerned = [
        Concerned(note, customer, transaction.router.fact_rules(customer) if note.facts else [], [])
        for note in notes
        if (customer := customers.get(note.customer_id)) is not None
    ]
    on_usage = [one.customer.customer_id for one in concerned if _is_on_usage(one.note)]
    used = await customer_evaluations.having_usage(connection, organization_id, on_usage) if on_usage else []
    if used:
        subscriptions = await routing_facts.subscriptions_of(connection, organization_id, used)
        for one in concerned:
            if one.note.customer_id in used:
                plan_ids = [each.plan_id for each in subscriptions if each.customer_id == one.note.customer_id]
                one.alone.extend(usage_alerts(transaction.router, one.note, one.customer, plan_ids))
    for one in concerned:
        for alert_id in sorted(one.note.alert_ids - {rule.alert_id for rule in one.alone}):
            rule = await transaction.rule(alert_id)
            if rule is not None:  # else it was disabled or archived since
                one.alone.append(rule)
    return concerned


def usage_alerts(
    router: Router, note: Note, customer: CustomerFacts, plan_ids: Iterable[str | None]
) -> list[AlertRule]:
    """One of each set of like alerts on the customer's usage that the note concerns.

    plan_ids: of the customer's subscriptions.
    """
    of_subscriptions = set(plan_ids)
    plans = {(False, customer.plan_id), *((True, plan_id) for plan_id in of_subscriptions)}
    rules = [rule for rule in router.usage_rules(customer, of_subscriptions) if _is_noted(note, rule)]
    return _one_of_each(rules, plans)


async def evaluate_facts(transaction: Transaction, concerned: Sequence[Concerned]) -> None:
    """Evaluates alerts on facts for customers that are new, or that other alerts cover than before.

    Reads them as of the change, as if it was evaluated in the transaction of the change: timers that the change sets,
    and that have become due since, are processed after it and in their order.
    """
    connection, organization_id = transaction.connection, transaction.organization_id
    held = await wallets.lock(connection, organization_id, [one.customer.customer_id for one in concerned])
    wallet_of = {one.customer: held[one.customer.customer_id] for one in concerned}
    change_times = {one.customer: one.note.change_time for one in concerned}
    await catch_up(transaction, wallet_of, change_times)
    covered = [
        Covered(one.customer, one.on_facts, wallet_of[one.customer].moment(one.note.change_time)) for one in concerned
    ]
    found = await read_all(transaction, covered)
    await evaluate_readings(transaction, found.gauges)
    timers = found.by_wallet(covered)
    await wallet_timers.set_timers(connection, organization_id, timers)
    await catch_up(
        transaction,
        {
            customer: replace(wallet, due_time=timers[customer.customer_id].due_time)
            for customer, wallet in wallet_of.items()
        },
    )


async def evaluate_noted_facts(transaction: Transaction, customer_ids: Sequence[str], *, only_free: bool) -> None:
    """Evaluates alerts on facts for those of the customers whose change still waits for it.

    Before the transaction reads or changes facts of these customers, and locks their wallets: what comes first is
    evaluated first. only_free: leaves out customers that another transaction evaluates at present.
    """
    connection, organization_id = transaction.driver, transaction.organization_id
    notes = await customer_evaluations.claim(connection, organization_id, customer_ids, only_free=only_free)
    await evaluate_claimed_facts(transaction, [note for note in notes if note.facts])


async def evaluate_claimed_facts(transaction: Transaction, notes: Sequence[Note]) -> None:
    """Evaluates alerts on facts for customers whose notes the transaction holds, and notes that this is done."""
    if not notes:
        return
    concerned = await find_concerned(transaction, [note.only_facts() for note in notes])
    if with_rules := [one for one in concerned if one.on_facts]:
        await evaluate_facts(transaction, with_rules)
    await customer_evaluations.facts_evaluated(transaction.driver, transaction.organization_id, notes)


def _is_on_usage(note: Note) -> bool:
    return note.usage or note.subscriptions or bool(note.limit_units)


def _is_noted(note: Note, rule: AlertRule) -> bool:
    """Whether a change may have moved the gauges of an alert on usage, or their limit."""
    if note.usage:
        return True
    if note.subscriptions and (rule.measure.per_subscription or rule.measure.contract_fields):
        return True
    unit = rule.measure.unit
    return unit is not None and rule.has_percentages and unit.key in note.limit_units


def _one_of_each(rules: Iterable[AlertRule], plans: set[tuple[bool, str | None]]) -> list[AlertRule]:
    """One alert of each set that watches the same gauges: the widest, which other customers may share.

    plans: those of the customer (False) and of its subscriptions (True).
    """
    found: dict[_Measured, AlertRule] = {}
    for rule in sorted(rules, key=lambda one: (one.scope.customer_id is not None, one.create_epoch, one.alert_id)):
        scope = rule.scope
        if scope.plan_id is None or (rule.measure.per_subscription, scope.plan_id) in plans:
            measured = _Measured(rule.measure, rule.groups, scope.plan_id, scope.subscription_id)
            found.setdefault(measured, rule)
    return list(found.values())
