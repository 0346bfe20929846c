"""Checks of the work that waits: backfills, timers, the outbox, deliveries, jobs, reservations, recharges."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from cli.doctor.findings import Check, Examined, Finding, by_age, ok, problem, shown_age, warning
from store.diagnosis import work
from store.diagnosis.work import COUNTED, Waiting

BEAT_WARNING, BEAT_PROBLEM = timedelta(seconds=20), timedelta(minutes=1)  # processes write every 5 s
SECONDS, MINUTES = timedelta(seconds=30), timedelta(minutes=10)
HOURS, DAY = timedelta(hours=1), timedelta(days=1)
UNPLACED_WARNING = 5_000  # notifications of one organization
UNSEEN = 1.0  # seconds after which a notification that did not show is looked for once more
_NOTIFIER = "start a notifier (tidemark notify), or read the log of those that run"
_SERVER = "read the log of the servers; tidemark serve --workers N adds processes"


async def heartbeat(examined: Examined) -> Sequence[Finding]:
    """Whether a server or a notifier uses the database."""
    age, running = await work.heartbeat_age(examined.connection), await work.processes(examined.connection)
    if age is None:
        return [problem("no server or notifier has ever used this database", "nothing is served", "tidemark serve")]
    text = f"the last heartbeat of a server or notifier was {shown_age(age)} ago; {running} processes are connected"
    why = "servers and notifiers write one every 5 s while the database accepts writes"
    return [by_age(age, text, why, "start a server: tidemark serve", warn=BEAT_WARNING, act=BEAT_PROBLEM)]


async def backfills(examined: Examined) -> Sequence[Finding]:
    """Alerts that are not evaluated yet on what existed before them."""
    found = await work.backfills(examined.connection, examined.now())
    if found is None:
        return [ok("every alert was evaluated on what existed before it")]
    text = f"{_number(found)} alerts are in a backfill; the oldest was changed {shown_age(found.age)} ago"
    why = "until the backfill is done, such an alert can miss a threshold that was reached before it"
    return [by_age(found.age, text, why, _SERVER, warn=HOURS, act=DAY)]


async def evaluations(examined: Examined) -> Sequence[Finding]:
    """Customers whose changed facts are not evaluated yet."""
    found = await work.evaluations(examined.connection)
    if found is None:
        return [ok("every customer was evaluated after the last change of its facts")]
    text = f"{_number(found)} customers wait for an evaluation after a change; the oldest for {shown_age(found.age)}"
    why = "their alerts are compared with former plans, limits or periods"
    return [by_age(found.age, text, why, _SERVER, warn=SECONDS, act=MINUTES)]


async def timers(examined: Examined) -> Sequence[Finding]:
    """Timers of customers that are due."""
    found = await work.timers(examined.connection, examined.now())
    if found is None:
        return [ok("no timer of a customer is due")]
    text = f"the timers of {_number(found)} customers are due, the oldest since {shown_age(found.age)}"
    why = "thresholds on balances and days that time alone reaches are notified late"
    return [by_age(found.age, text, why, _SERVER, warn=SECONDS, act=MINUTES)]


async def feed(examined: Examined) -> Sequence[Finding]:
    """Notifications that have no position in the feed of their organization."""
    unseen = await work.unseen_notifications(examined.connection)
    if unseen:  # of a cluster, for milliseconds: the nodes commit one after the other
        await asyncio.sleep(UNSEEN)
        unseen &= await work.unseen_notifications(examined.connection)
    if unseen:
        organization_id, notification_id = min(unseen)
        return [
            warning(
                f"{len(unseen):,} feeds wait for a notification that does not show; that of organization"
                f" {organization_id} for {notification_id}",
                "subscribers and lists get nothing that comes after it",
                "wait a minute: servers leave out a notification that was deleted; if it stays, a node of the cluster"
                " does not answer, or has a prepared transaction that is not committed (pg_prepared_xacts)",
            )
        ]
    number = await work.unplaced_notifications(examined.connection)
    more = "at least " if number == COUNTED else ""
    text = f"{more}{number:,} notifications of one organization have no position in its feed"
    if number < UNPLACED_WARNING:
        return [ok(text)]
    why = "the next reader (ListNotifications, WatchNotifications) gives them positions first, and answers late"
    return [
        warning(
            text,
            why,
            "call ListNotifications for the organization once, for example with tidemark watch --notifications",
        )
    ]


async def outbox(examined: Examined) -> Sequence[Finding]:
    """Notifications that no notifier has taken."""
    found = await work.outbox(examined.connection)
    if found is None:
        return [ok("the outbox is empty")]
    text = f"{_number(found)} notifications wait in the outbox, the oldest for {shown_age(found.age)}"
    return [by_age(found.age, text, "no webhook is sent for them", _NOTIFIER, warn=SECONDS, act=MINUTES)]


async def deliveries(examined: Examined) -> Sequence[Finding]:
    """Deliveries that are due and are not attempted."""
    found = await work.due_deliveries(examined.connection)
    if found is None:
        return [ok("no delivery is overdue")]
    text = f"deliveries of {found.number:,} endpoints are due, the oldest since {shown_age(found.age)} ({found.what})"
    return [by_age(found.age, text, "webhooks are sent late", _NOTIFIER, warn=SECONDS, act=MINUTES)]


async def leases(examined: Examined) -> Sequence[Finding]:
    """Deliveries whose notifier has ended without a result."""
    age = await work.expired_lease(examined.connection)
    if age is None or age <= timedelta():
        return [ok("no delivery is held by a notifier that has ended")]
    text = f"a delivery is held since {shown_age(age)} by a notifier that has ended"
    why = "another notifier takes it over within seconds, if one runs"
    return [by_age(age, text, why, _NOTIFIER, warn=SECONDS, act=MINUTES)]


async def erasures(examined: Examined) -> Sequence[Finding]:
    """Customers that are being erased for long."""
    found = await work.erasures(examined.connection)
    if found is None:
        return [ok("no customer is being erased")]
    text = f"{_number(found)} customers are being erased, the first for {shown_age(found.age)}"
    return [by_age(found.age, text, "the law may set a time for that", _SERVER, warn=HOURS, act=7 * DAY)]


async def redeliveries(examined: Examined) -> Sequence[Finding]:
    """Redelivery jobs that have run for long."""
    found = await work.redeliveries(examined.connection)
    if found is None:
        return [ok("no redelivery job runs")]
    text = f"{_number(found)} redelivery jobs run, the first for {shown_age(found.age)}"
    return [by_age(found.age, text, "its notifications are sent late", _SERVER, warn=HOURS, act=7 * DAY)]


async def reservations(examined: Examined) -> Sequence[Finding]:
    """Reservations that have expired and still hold a part of limits and balances."""
    found = await work.overdue_reservations(examined.connection, examined.now())
    if found is None:
        return [ok("no reservation has expired that still holds something")]
    text = (
        f"{_number(found)} reservations have expired and still hold something, the oldest for {shown_age(found.age)}"
    )
    why = "what they hold of limits and balances is missing for other usage, so that usage that fits is refused"
    return [by_age(found.age, text, why, _SERVER, warn=SECONDS, act=MINUTES)]


async def recharges(examined: Examined) -> Sequence[Finding]:
    """Recharges that have waited for a report for long."""
    found = await work.recharges(examined.connection, examined.now())
    if found is None:
        return [ok("no recharge waits for a report")]
    text = f"{_number(found)} recharges wait for a report, the oldest for {shown_age(found.age)}"
    why = "their balances are not filled up, and after report_timeout each counts as a failed attempt"
    todo = "look in the billing system for what it made of recharge.requested, and call ReportRecharge"
    return [by_age(found.age, text, why, todo, warn=DAY, act=3 * DAY)]


async def recharge_policies(examined: Examined) -> Sequence[Finding]:
    """Recharge policies that have switched themselves off."""
    number = await work.disabled_recharge_policies(examined.connection)
    if not number:
        return [ok("no recharge policy has switched itself off")]
    text = f"{_number(Waiting(number, timedelta()))} recharge policies have switched themselves off"
    why = "the balances of these customers are not filled up any more"
    todo = "ListRechargePolicies shows them; EnableRechargePolicy switches one on again"
    return [warning(text, why, todo)]


def _number(found: Waiting) -> str:
    return f"{found.number:,}{' or more' if found.number >= COUNTED else ''}"


CHECKS = (
    Check("work.heartbeat", "a server or notifier that uses the database", heartbeat),
    Check("work.backfills", "alerts that are not evaluated yet on what existed before them", backfills),
    Check("work.evaluations", "customers whose changed facts are not evaluated yet", evaluations),
    Check("work.timers", "timers of customers that are due", timers),
    Check("work.feed", "notifications without a position in the feed", feed),
    Check("work.outbox", "notifications that no notifier has taken", outbox),
    Check("work.deliveries", "deliveries that are due and are not attempted", deliveries),
    Check("work.leases", "deliveries of notifiers that have ended", leases),
    Check("work.erasures", "customers that are being erased", erasures),
    Check("work.redeliveries", "redelivery jobs", redeliveries),
    Check("work.reservations", "reservations that have expired and still hold something", reservations),
    Check("work.recharges", "recharges that wait for a report", recharges),
    Check("work.recharge_policies", "recharge policies that have switched themselves off", recharge_policies),
)
