"""Batches: events that were sent together, and what is said of each when several batches share a commit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from engine.evaluation.evaluation import Found
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from evaluator.routing import Router


@dataclass(eq=False, slots=True)
class Batch:
    """Events of one organization that were sent together, in the order in which they were sent."""

    events: Sequence[UsageEvent]
    include_gauges: bool = False


@dataclass(eq=False, slots=True)
class Outcome:
    """What became of a batch; positions are those in its `events`.

    accepted: how many were new. duplicates: stored before. conflicting: refused, since another event of that
    id is stored. too_old: refused, since no period that they lie in may still change. unrecorded: refused, since the
    service failed to record what they change.
    """

    accepted: int = 0
    duplicates: list[int] = field(default_factory=list)
    conflicting: list[int] = field(default_factory=list)
    too_old: list[int] = field(default_factory=list)
    unrecorded: list[int] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    gauges: list[tuple[Gauge, Decimal]] = field(default_factory=list)


def take_part(whole: Outcome, part: Outcome, positions: Sequence[int] | None) -> None:
    """Adds to a batch's outcome that of a part of it, whose events stood at these positions (None: where they were).

    The parts of a batch come in the order of their commits: of a gauge that several moved the last value is shown.
    """
    whole.accepted += part.accepted
    whole.found += part.found
    whole.gauges = list({**dict(whole.gauges), **dict(part.gauges)}.items()) if whole.gauges else part.gauges
    for mine, theirs in (
        (whole.duplicates, part.duplicates),
        (whole.conflicting, part.conflicting),
        (whole.too_old, part.too_old),
        (whole.unrecorded, part.unrecorded),
    ):
        mine += theirs if positions is None else [positions[position] for position in theirs]


@dataclass(slots=True)
class Arrived:
    """The batches' events, each identity once. places: where it came first, as batch and position."""

    places: dict[tuple[str, str], tuple[int, int]]
    events: list[UsageEvent]  # in the order of arrival
    again: list[tuple[int, int]]  # batch and position of those whose identity had come before


def sort(batches: Sequence[Batch]) -> Arrived:
    """Finds the first event of each identity."""
    places: dict[tuple[str, str], tuple[int, int]] = {}
    events: list[UsageEvent] = []
    again: list[tuple[int, int]] = []
    for number, batch in enumerate(batches):
        for position, event in enumerate(batch.events):
            identity = event.customer_id, event.event_id
            if identity in places:
                again.append((number, position))
            else:
                places[identity] = number, position
                events.append(event)
    return Arrived(places, events, again)


def with_currency(router: Router, event: UsageEvent) -> UsageEvent:
    """The event with the currency that its cost is in, said or not."""
    if event.cost is None or event.currency is not None:
        return event
    return event._replace(currency=router.currency_of(event.customer_id, event.subscription_id))


def known_places(batches: Sequence[Batch], arrived: Arrived, new: Sequence[UsageEvent]) -> list[tuple[int, int]]:
    """Where, as batch and position, the events stand whose identities this commit did not add."""
    if len(new) == len(arrived.events):
        return []
    added = {event.identity for event in new}
    places = [place for identity, place in arrived.places.items() if identity not in added]
    return places + [
        (number, position)
        for number, position in arrived.again
        if batches[number].events[position].identity not in added
    ]


def account_known(
    sent: Sequence[UsageEvent],
    places: Sequence[tuple[int, int]],
    alike: set[int],
    countable: Sequence[UsageEvent],
    outcomes: list[Outcome],
) -> None:
    """Tells each batch what it sent that is stored already, or would have to be stored too late.

    Each event is compared with what is stored, not with its neighbours: that somebody else in the same commit sent
    something wrong under its id is no fault of a resend.
    """
    in_time = {event.identity for event in countable}
    for place, (number, position) in enumerate(places):
        outcome = outcomes[number]
        if place in alike:
            outcome.duplicates.append(position)
        elif sent[place].identity in in_time:
            outcome.conflicting.append(position)
        else:
            outcome.too_old.append(position)


def account_new(
    router: Router, batches: Sequence[Batch], arrived: Arrived, new: Sequence[UsageEvent], outcomes: list[Outcome]
) -> None:
    """Tells each batch how many new events it brought, and which of its others repeat or contradict a new one."""
    all_new = len(new) == len(arrived.events)
    added = arrived.places.keys() if all_new else {event.identity for event in new}
    for identity, (number, _) in arrived.places.items():
        outcomes[number].accepted += identity in added
    for number, position in arrived.again:
        event = batches[number].events[position]
        if event.identity in added:
            first_number, first_position = arrived.places[event.identity]
            first = batches[first_number].events[first_position]
            same = with_currency(router, first) == with_currency(router, event)
            (outcomes[number].duplicates if same else outcomes[number].conflicting).append(position)
