"""The independent tally of a fault run: what callers, the receiver and the follower got, against the database."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.faults.clock import LONGEST_STEP
from tests.support.faults.reserving import ReservationTally, tally_reservations
from tests.support.faults.stage import D, Stage
from tests.support.notifier.receiver import Arrival
from tests.support.processes import results
from tests.support.processes.following import followed
from tests.support.processes.programs import session, until
from tests.support.processes.results import ALERTS, SEATS


@dataclass(frozen=True)
class Tally:
    """What the run did to the events and the notifications. All counts but the first two of each must be 0.

    lost: acknowledged events that are not stored. twice: events that are stored twice, or gauges that are not what
    the events of their customer add up to. two_ids: notifications of one alert, gauge and number that were stored or
    sent under two ids. undelivered: notifications that never arrived.
    """

    events: int
    resent: int
    lost: int
    twice: int
    notifications: int
    arrivals: int
    two_ids: int
    undelivered: int
    reservations: ReservationTally

    def lines(self) -> list[str]:
        """The tally as text."""
        return [
            f"{self.events:,} events acknowledged, {self.resent:,} of them sent again:"
            f" {self.lost} lost, {self.twice} counted twice",
            f"{self.notifications:,} notifications, {self.arrivals:,} requests at the receiver:"
            f" {self.undelivered} not delivered, {self.two_ids} under two ids",
            self.reservations.line(),
        ]


async def tally(stage: Stage[D]) -> Tally:
    """Counts, when all clients have ended. Fails when the database does not hold what the model says."""
    sent = [event for client in stage.clients for event in client.sent]
    assert sum(client.acknowledged for client in stage.clients) == len(sent)
    sent += [event for one in stage.reservers for event in one.settled]
    url = stage.database.own_url
    # It may be behind the time at which reservations were made that nothing has ended: now they expire.
    stage.clock.step(LONGEST_STEP)
    reservations = await tally_reservations(url, stage.reservers)
    written = await stage.written()
    await until(lambda: written.keys() <= set(stage.receiver.ids()), "notifications at the receiver")
    for arrival in stage.receiver.arrivals:
        assert _is_signed(arrival, stage.secret)
        assert arrival.body.decode() == written[arrival.webhook_id]
    await followed(stage.feed, written)
    stored = await _stored_ids(url)
    expected = results.expected(sent, *ALERTS, SEATS)
    found = await results.stored(url)
    counted = Tally(
        events=len(sent),
        resent=sum(client.duplicates for client in stage.clients),
        lost=len(_ids(sent) - stored.keys()),
        twice=sum(number - 1 for number in stored.values())
        + sum(found.gauges.get(gauge) != value for gauge, value in expected.gauges.items()),
        notifications=len(written),
        arrivals=len(stage.receiver.arrivals),
        two_ids=_under_two_ids(written.items()) + _under_two_ids(_arrived(stage.receiver.arrivals)),
        undelivered=len(written.keys() - set(stage.receiver.ids())),
        reservations=reservations,
    )
    assert (counted.lost, counted.twice, counted.two_ids, counted.undelivered) == (0, 0, 0, 0), counted
    assert reservations.denied, "the limits refused nothing"
    assert found == expected  # also the transitions: each threshold was reached once
    assert await results.stored_states(url) == results.expected_states(sent, *ALERTS, SEATS)
    return counted


def _is_signed(arrival: Arrival, secret: str) -> bool:
    """Whether a request is signed. Its time may be any: the clocks are stepped, and a long run lasts for minutes."""
    time = datetime.fromtimestamp(int(arrival.headers["webhook-timestamp"]), UTC)
    signature = Webhook(secret).sign(arrival.webhook_id, time, arrival.body.decode())
    return signature in arrival.headers["webhook-signature"].split()


def _ids(events: Iterable[UsageEvent]) -> set[tuple[str, str]]:
    return {(event.customer_id, event.event_id) for event in events}


async def _stored_ids(url: str) -> Counter[tuple[str, str]]:
    async with session(url) as connection:
        cursor = await connection.execute("SELECT customer_id, event_id FROM event")
        return Counter([(str(customer_id), str(event_id)) async for customer_id, event_id in cursor])


def _arrived(arrivals: Iterable[Arrival]) -> Iterable[tuple[str, str]]:
    return {(arrival.webhook_id, arrival.body.decode()) for arrival in arrivals}


def _under_two_ids(bodies: Iterable[tuple[str, str]]) -> int:
    ids: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for notification_id, body in bodies:
        data = json.loads(body)["data"]
        gauge = json.dumps([data["customer_id"], data["gauge"]], sort_keys=True)
        ids[data["alert_id"], gauge, data["sequence"]].add(notification_id)
    return sum(len(one) - 1 for one in ids.values())
