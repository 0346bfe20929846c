"""One client of the story: what it does to its own customers, which no other client changes.

In a round, all that the client does happens at the same time, each to other customers. For one customer the client
waits for each answer, so that the order of its usage and of its changes is known; except in a race.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

import grpc
import pytest

from tests.reference.alerts import Alert
from tests.reference.gauges import Event
from tests.support.server.running import reason_of
from tests.support.story.answers import Claim, check_states, fit_answer
from tests.support.story.customers import Branch, Customer, Notice, Outcome
from tests.support.story.draws import AMOUNTS, PLANS, SUBSCRIPTIONS, Draws, clash
from tests.support.story.feed import Feed, Names
from tests.support.story.model_changes import ModelChange, archiving, creating, editing, switching, unsettled
from tests.support.story.requests import Requests
from tests.support.story.servers import Servers
from tests.support.story.usage import UsageCalls
from tests.support.usage import voiding
from tests.support.usage.draws import FIELDS

MOST_ALERTS = 6  # of one customer at a time
MOST_EVENTS = 10  # of one customer in one batch
WINDOW = 12  # customers that are used most: the newest of the client
PATIENCE = 120.0  # seconds that a client waits for a notification

KINDS = {"create": 6, "edit": 8, "switch": 4, "archive": 2, "put": 3, "limit": 4, "void": 1, "clash": 1, "check": 3}
WEIGHTED = [kind for kind, weight in KINDS.items() for _ in range(weight)]


class World(Protocol):
    """What all clients share."""

    servers: Servers
    feed: Feed
    names: Names
    steps: int
    kinds: Counter[str]
    disabled: Counter[Notice]

    def new_customer(self) -> Customer:
        """A customer that nothing has happened to."""


class Client:
    """customers: the client's own. claims: the transitions in answers, each with the sequence of its notification."""

    def __init__(self, world: World, number: int, seed: str) -> None:
        self.customers: list[Customer] = []
        self.claims: list[Claim] = []
        self.draws = Draws(f"{seed}, client {number}")
        self._world = world
        self._requests = Requests(world.servers, self.draws.random, f"client-{number}")
        self._usage = UsageCalls(world.servers, self.draws.random, number)
        self._alerts_made = 0

    def close(self) -> None:
        """Cuts off the client's stream."""
        self._usage.cut()

    async def round(self) -> None:
        """Usage of some customers, and at the same time changes of others."""
        random = self.draws.random
        if len(self.customers) < WINDOW // 2 or self.draws.one_in(3):
            self.customers.append(self._world.new_customer())
        near = self.customers[-WINDOW:]
        members = random.sample(near, min(len(near), 8))
        if len(self.customers) > WINDOW:
            members.append(random.choice(self.customers[:-WINDOW]))
        half = (len(members) + 1) // 2
        users, changed = members[:half], members[half:]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._use(users, race=self.draws.one_in(3)))]
            place = random.randint(1, 2 * len(changed) + 1)
            for some_of_them in (changed[:place], changed[place:]):
                if some_of_them:
                    tasks.append(group.create_task(self._change(random.choice(WEIGHTED), some_of_them)))
        # A task group says nothing of a task that ends because something that it awaits was cancelled.
        assert not any(task.cancelled() for task in tasks), "a step was not played to its end"

    async def settle(self, customer: Customer) -> None:
        """Waits until the alerts of the customer are evaluated and what they found has arrived."""
        for name in sorted(customer.evaluating & customer.branches[0].model.alerts.keys()):
            await self._requests.evaluated(self._id(name))
        feed, stored = self._world.feed, None
        if customer.raced is not None:
            stored = await self._requests.stored_states(customer.name, self._world.names)
        try:
            async with asyncio.timeout(PATIENCE):
                while not customer.decide(feed.of(customer.name), stored):
                    feed.arrived.clear()
                    await feed.arrived.wait()
        except TimeoutError:
            difference = customer.difference(feed.of(customer.name), stored)
            raise AssertionError(difference) from None
        customer.unsettled.clear()
        customer.evaluating.clear()
        customer.raced = None

    # --- usage ------------------------------------------------------------------------------------------------------

    async def _use(self, users: Sequence[Customer], *, race: bool) -> None:
        """Sends a batch; perhaps one alert of one of its customers changes at the same time."""
        for one in users:
            if one.raced is not None or (one.unsettled and self.draws.one_in(3)):
                await self.settle(one)
        batch = [event for one in users for event in self._events(one)]
        self.draws.random.shuffle(batch)
        if self.draws.one_in(20):
            batch += batch[: len(batch) // 2]
        racer = self._racer(users) if race else None
        if racer is None:
            answer, repeated = await self._usage.send(batch)
        else:
            await self.settle(racer)
            call, change, name = self._race(racer)
            (answer, repeated), _ = await asyncio.gather(self._usage.send(batch), call)
        outcomes: dict[str, list[Outcome]] = {}
        for one in users:
            own = [event for event in batch if event.customer == one.name]
            outcomes[one.name] = one.uses(own) if one is not racer else one.races(change, name, own)
        self._world.steps += len(batch)
        self._world.kinds["event"] += len(batch)
        self.claims += fit_answer(users, batch, answer, outcomes, self._world.names, repeated=repeated)

    def _events(self, customer: Customer) -> list[Event]:
        """New events of the customer, and earlier ones again, some of them with other content."""
        found: list[Event] = []
        now = customer.branches[0].model.now
        for _ in range(self.draws.random.randint(1, MOST_EVENTS)):
            recent = [one for one in customer.sent[-12:] if now.month - one.time.month <= 1]
            if recent and self.draws.one_in(8):
                again = self.draws.random.choice(recent)
                found.append(replace(again, quantity=again.quantity + 1) if self.draws.one_in(3) else again)
            else:
                event = self.draws.event(f"e{len(customer.sent)}", customer.name, now)
                customer.sent.append(event)
                found.append(event)
        return found

    # --- changes ----------------------------------------------------------------------------------------------------

    async def _change(self, kind: str, customers: Sequence[Customer]) -> None:
        """A change of that kind, of all the customers or of the first; another kind where that is not possible."""
        for one in customers:
            if one.unsettled or one.raced is not None:
                await self.settle(one)
        await getattr(self, f"_{kind}")(customers)

    def _count(self, kind: str, number: int = 1) -> None:
        self._world.steps += number
        self._world.kinds[kind] += number

    async def _create(self, customers: Sequence[Customer]) -> None:
        """One or two alerts for each customer."""
        wanted: list[tuple[Customer, Alert, str]] = []
        for one in customers:
            for _ in range(self.draws.random.randint(1, 2)):
                alert = self._new_alert(one)
                taken = [mine for owner, mine, _ in wanted if owner is one]
                if alert is not None and not any(clash(alert, other) for other in taken):
                    wanted.append((one, alert, self._key_for(one, alert)))
        if not wanted:
            return await self._archive(customers)
        alerts, keys = [alert for _, alert, _ in wanted], [key for _, _, key in wanted]
        created = await self._requests.create(alerts, keys, again=self.draws.one_in(5))
        for (customer, alert, _), answer in zip(wanted, created, strict=True):
            self._world.names.add(alert.name, answer.alert_id)
            customer.changes(creating(alert), *unsettled(alert.name, answer))
        self._count("create", len(created))

    def _new_alert(self, customer: Customer) -> Alert | None:
        """An alert that the customer may have beside the others."""
        mine = self._own(customer)
        self._alerts_made += 1
        alert = self.draws.own_alert(f"{customer.name}/{self._alerts_made}", customer.name)
        if len(mine) >= MOST_ALERTS or any(clash(alert, one) for one in mine):
            return None
        return alert

    def _key_for(self, customer: Customer, alert: Alert) -> str:
        """A uniqueness key that is free, often one that an archived alert had; or none."""
        key = f"{customer.name}-key-{self.draws.random.randrange(4)}"
        if self.draws.one_in(3) or key in customer.keys:
            return ""
        customer.keys[key] = alert.name
        return key

    async def _edit(self, customers: Sequence[Customer]) -> None:
        """Other thresholds of one or two alerts of each customer."""
        random = self.draws.random
        chosen = [
            (one, alert)
            for one in customers
            if (mine := self._own(one))
            for alert in random.sample(mine, min(len(mine), random.randint(1, 2)))
        ]
        if not chosen:
            return await self._create(customers)
        reset = self.draws.one_in(8)
        edited = [(one, replace(alert, thresholds=self.draws.moved(alert))) for one, alert in chosen]
        answers = await self._requests.edit([(self._id(alert.name), alert) for _, alert in edited], reset=reset)
        for (customer, alert), answer in zip(edited, answers, strict=True):
            customer.changes(editing(alert, reset=reset), *unsettled(alert.name, answer))
        self._count("reset" if reset else "edit", len(edited))

    async def _switch(self, customers: Sequence[Customer]) -> None:
        """Disables or enables an alert for the first customer, or one of its subscriptions; or one of its own."""
        customer = customers[0]
        model = customer.model
        off = sorted(
            one for one in model.switched_off if one[0] in model.alerts and (len(one) > 1 or self._is_own(one[0]))
        )
        if off and self.draws.one_in(2):
            name, *excluded = self.draws.random.choice(off)
            answer = await self._requests.switch(self._id(name), excluded, on=True)
            customer.changes(switching(name, excluded, on=True), *unsettled(name, answer))
            return self._count("enable")
        if not model.alerts:
            return await self._create(customers)
        alert = self.draws.random.choice(list(model.alerts.values()))
        target = self._target(customer, alert)
        if target is None:
            return await self._create(customers)
        await self._requests.switch(self._id(alert.name), target, on=False)
        self._note_disabled(customer, alert.name, target)
        customer.changes(switching(alert.name, target, on=False))
        return self._count("disable")

    def _target(self, customer: Customer, alert: Alert) -> list[str] | None:
        """What an alert is disabled for: only the client's own is disabled as a whole. None: it does not cover it."""
        if self._is_own(alert.name) and self.draws.one_in(2):
            return []
        if alert.per_subscription and self.draws.one_in(2):
            subscription = (
                alert.scope[2] if alert.scope[0] == "subscription" else self.draws.random.choice(SUBSCRIPTIONS)
            )
            return [customer.name, subscription]
        return [customer.name]

    def _note_disabled(self, customer: Customer, name: str, target: Sequence[str]) -> None:
        if (name, *target) not in customer.model.switched_off:
            about = [*target, "", ""]
            self._world.disabled[name, about[0], about[1]] += 1

    async def _archive(self, customers: Sequence[Customer]) -> None:
        """One alert of each customer ends."""
        chosen = [(one, self.draws.random.choice(mine)) for one in customers if (mine := self._own(one))]
        if not chosen:
            return
        await self._requests.archive([self._id(alert.name) for _, alert in chosen])
        for customer, alert in chosen:
            customer.changes(archiving(alert.name))
            customer.free(alert.name)
        self._count("archive", len(chosen))

    async def _put(self, customers: Sequence[Customer]) -> None:
        """A customer or one of its subscriptions gets a plan, and perhaps other custom fields."""
        customer, random = customers[0], self.draws.random
        subscription = random.choice((None, *SUBSCRIPTIONS))
        plan, fields = random.choice(("", *PLANS)), random.choice(FIELDS)
        await self._requests.put(customer.name, subscription, plan, fields)

        def change(branch: Branch) -> None:
            branch.model.put(customer.name, subscription, plan)
            if subscription is not None:
                branch.model.put_fields(customer.name, subscription, fields)

        customer.put(change)
        self._count("put")

    async def _limit(self, customers: Sequence[Customer]) -> None:
        """Limits of customers with percentage thresholds are put, changed or removed."""
        limited = [
            (one, alert)
            for one in customers
            for alert in one.model.alerts.values()
            if any(each.percent for each in alert.thresholds)
        ]
        if not limited:
            return await self._create(customers)
        for customer, alert in {id(one): (one, alert) for one, alert in limited}.values():
            await self._limit_one(customer, alert)

    async def _limit_one(self, customer: Customer, alert: Alert) -> None:
        """A limit near what an alert of the customer measures now, so that it often reaches or resolves something."""
        measured = [
            value
            for gauge, value in customer.model.values().items()
            if (gauge.measure, gauge.group) == (alert.measure, ()) and value > 0
        ]
        amounts = [*AMOUNTS, *measured, *(2 * value for value in measured), None]
        amount = self.draws.random.choice(amounts)
        holder = "customer", customer.name
        await self._requests.put_limit(holder, alert.measure, amount)
        customer.put(lambda branch: branch.model.put_limit(holder, alert.measure, amount))
        self._count("limit")

    async def _void(self, customers: Sequence[Customer]) -> None:
        """Some of the last events are taken back."""
        customer = customers[0]
        now = customer.model.now
        recent = [one.identity for one in customer.sent[-12:] if now.month - one.time.month <= 1]
        chosen = [self.draws.random.choice(recent) for _ in range(2)] if recent else [(customer.name, "never")]
        answer = await self._requests.void([voiding.key(event_id, name) for name, event_id in chosen])
        [expected] = [one.voids(chosen, frozenset(customer.unsettled)) for one in customer.branches]
        assert voiding.outcomes(answer) == expected
        self._count("void")

    async def _clash(self, customers: Sequence[Customer]) -> None:
        """A uniqueness key that an alert has is refused."""
        customer = customers[0]
        alert = self.draws.own_alert("refused", customer.name)
        taken = sorted(customer.keys)
        if not taken:
            return await self._create(customers)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self._requests.create([alert], [self.draws.random.choice(taken)], again=False)
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert reason_of(refused.value) in ("ERROR_REASON_UNIQUENESS_KEY_TAKEN", "ERROR_REASON_ALERT_EXISTS")
        self._count("clash")

    async def _check(self, customers: Sequence[Customer]) -> None:
        """Compares the states that the service shows of the first customer."""
        await self.settle(customers[0])
        await self.check(customers[0])
        self._world.kinds["check"] += 1

    # --- races ------------------------------------------------------------------------------------------------------

    def _racer(self, users: Sequence[Customer]) -> Customer | None:
        """A customer of which an alert changes while its usage is counted."""
        return next((one for one in users if self._own(one)), None)

    def _race(self, customer: Customer) -> tuple[Coroutine[Any, Any, object], ModelChange, str]:
        """A change of one alert of the customer: the call, what it does to a model, and the name of the alert."""
        alert = self.draws.random.choice(self._own(customer))
        alert_id = self._id(alert.name)
        call: Coroutine[Any, Any, object]
        match self.draws.random.choice(("create", "edit", "edit", "archive", "switch")):
            case "create" if (new := self._new_alert(customer)) is not None:
                call, change, name = self._racing_creation(new), creating(new), new.name
            case "archive":
                customer.free(alert.name)
                call, change, name = self._requests.archive([alert_id]), archiving(alert.name), alert.name
            case "switch":
                on = (alert.name,) in customer.model.switched_off
                if not on:
                    self._note_disabled(customer, alert.name, ())
                call = self._requests.switch(alert_id, (), on=on)
                change, name = switching(alert.name, (), on=on), alert.name
            case _:
                edited = replace(alert, thresholds=self.draws.moved(alert))
                call = self._requests.edit([(alert_id, edited)], reset=False)
                change, name = editing(edited, reset=False), alert.name
        self._count("race")
        return call, change, name

    async def _racing_creation(self, alert: Alert) -> None:
        [created] = await self._requests.create([alert], [""], again=False)
        self._world.names.add(alert.name, created.alert_id)

    # --- states -----------------------------------------------------------------------------------------------------

    async def check(self, customer: Customer) -> None:
        """Compares the states of the customer's alerts; the customer is settled."""
        if customer.model.events:
            shown = await self._requests.customer_alerts(customer.name)
            check_states(customer, shown, self._world.feed.of(customer.name), self._world.names)

    def _id(self, name: str) -> str:
        return self._world.names.ids[name]

    def _is_own(self, name: str) -> bool:
        return "/" in name

    def _own(self, customer: Customer) -> list[Alert]:
        """The alerts that name the customer."""
        return [one for one in customer.branches[0].model.alerts.values() if self._is_own(one.name)]
