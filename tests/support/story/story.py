"""The story: clients of two servers, wide alerts that change between its phases, and a comparison of everything."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from google.protobuf import message

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store.identity import keys
from store.postgres.database import Database
from tests.reference.gauges import Gauge
from tests.reference.thresholds import State
from tests.reference.usage import UsageModel
from tests.support.story.clients import PATIENCE, Client
from tests.support.story.customers import Branch, Customer, Notice
from tests.support.story.draws import AMOUNTS, PLANS, SPEND, STORY_METRICS, Draws, clash
from tests.support.story.feed import Feed, Names
from tests.support.story.requests import Requests
from tests.support.story.servers import REPLICAS, Servers
from tests.support.usage.draws import START
from tests.support.usage.service import Service
from tests.support.usage.stage import MONTHS
from tests.support.waiting import within

CLIENTS = 4
WIDE_ALERTS = 6
PHASES = 5  # at least
STEPS_PER_PHASE = 2500  # at most

CONFIGURATION = Configuration(
    listen_port=0, propagation_delay=0.0, ingest_writers=2, retention=timedelta(days=366), unary_deadline=60.0
)


class Story:
    """One organization, its clients and its customers. steps: events sent and changes made."""

    def __init__(self, servers: Servers, clock: ManualClock, seed: str) -> None:
        self.servers = servers
        self.names = Names()
        self.feeds = [Feed(servers, number, self.names) for number in range(REPLICAS)]
        self.feed = self.feeds[0]
        self.steps = 0
        self.kinds: Counter[str] = Counter()
        self.disabled: Counter[Notice] = Counter()
        self._clock = clock
        self._draws = Draws(f"{seed}, story")
        self._requests = Requests(servers, self._draws.random, "story")
        self._blank = UsageModel(START, STORY_METRICS)  # what every customer is at first
        self._made = 0
        self._wide = 0
        self._clients = [Client(self, number, seed) for number in range(CLIENTS)]

    @property
    def customers(self) -> list[Customer]:
        """Those of all clients."""
        return [customer for client in self._clients for customer in client.customers]

    def new_customer(self) -> Customer:
        """A customer that nothing has happened to."""
        self._made += 1
        return Customer(f"customer-{self._made}", deepcopy(self._blank))

    async def play(self, steps: int) -> None:
        """Plays until that number of steps is done, or something is not as the model has it."""
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(feed.follow()) for feed in self.feeds]
            try:
                await self._play(steps)
            finally:
                for client in self._clients:
                    client.close()
                for follower in followers:
                    follower.cancel()

    async def _play(self, steps: int) -> None:
        await self._begin()
        phases = max(PHASES, steps // STEPS_PER_PHASE)
        for phase in range(1, phases + 1):
            await self._phase(steps * phase // phases, restart=phase % PHASES == 2)
            await self._settle()
            if phase == phases // 2 + 1:
                self._month_ends()
            for _ in range(2):
                await self._change_wide()
        await self._settle()
        await self._compare_feeds()

    async def _begin(self) -> None:
        """Metrics, limits of plans, and the first wide alerts."""
        for metric in STORY_METRICS:
            await self._requests.put_metric(metric)
        await self._limit_plan()
        for _ in range(WIDE_ALERTS // 2):
            await self._create_wide()

    async def _phase(self, until: int, *, restart: bool) -> None:
        """All clients at the same time. restart: whether one of the servers is replaced meanwhile."""

        restart_at = (self.steps + until) // 2 if restart else until

        async def client_plays(client: Client) -> None:
            nonlocal restart_at
            while self.steps < until:
                await client.round()
                if restart_at <= self.steps < until:
                    restart_at = until
                    group.create_task(self.servers.restart(self._draws.random.randrange(REPLICAS)))

        async with asyncio.TaskGroup() as group:
            for client in self._clients:
                group.create_task(client_plays(client))

    async def _settle(self) -> None:
        """Everything that was sent is evaluated; each order is known, and the states of some customers are right."""

        async def settle(client: Client) -> None:
            for customer in client.customers:
                if customer.unsettled or customer.raced is not None:
                    await client.settle(customer)
            customer = self._draws.random.choice(client.customers)
            await client.settle(customer)
            await client.check(customer)

        await asyncio.gather(*map(settle, self._clients))

    def _month_ends(self) -> None:
        """Time passes for all."""
        self._clock.set(MONTHS[1])
        for model in [self._blank, *(one.model for one in self.customers)]:
            model.now = MONTHS[1]
        self.kinds["month"] += 1

    # --- wide alerts and limits of plans ----------------------------------------------------------------------------

    async def _change_wide(self) -> None:
        """One change that concerns all clients."""
        alerts = list(self._blank.alerts.values())
        kind = self._draws.random.choice(("create", "create", "edit", "edit", "switch", "archive", "limit"))
        if kind == "limit":
            await self._limit_plan()
        elif not alerts or (kind == "create" and len(alerts) < WIDE_ALERTS):
            await self._create_wide()
        else:
            alert = self._draws.random.choice(alerts)
            name, alert_id = alert.name, self.names.ids[alert.name]
            if kind == "archive":
                await self._requests.archive([alert_id])
                self._happens(lambda branch: branch.model.archive(name))
            elif kind == "switch":
                on = (name,) in self._blank.switched_off
                if not on:
                    self.disabled[name, "", ""] += 1
                await self._requests.switch(alert_id, (), on=on)
                await self._requests.evaluated(alert_id)
                self._happens(lambda branch: branch.model.switch(name, (), on=on))
            else:
                edited = replace(alert, thresholds=self._draws.moved(alert))
                await self._requests.edit([(alert_id, edited)], reset=False)
                await self._requests.evaluated(alert_id)
                self._happens(lambda branch: branch.model.edit(edited, reset=False))
        self.steps += 1
        self.kinds[f"wide {kind}"] += 1

    async def _create_wide(self) -> None:
        self._wide += 1
        alert = self._draws.wide_alert(f"wide-{self._wide}")
        while any(clash(alert, one) for one in self._blank.alerts.values()):
            alert = self._draws.wide_alert(alert.name)
        [answer] = await self._requests.create([alert], [""], again=False)
        self.names.add(alert.name, answer.alert_id)
        await self._requests.evaluated(answer.alert_id)
        self._happens(lambda branch: branch.model.create(alert))

    async def _limit_plan(self) -> None:
        """A limit of a plan is put or changed."""
        random = self._draws.random
        holder = "plan", random.choice(PLANS)
        measure = random.choice([SPEND, *(("usage", one.metric_id) for one in STORY_METRICS)])
        amount: Fraction = random.choice(AMOUNTS)
        await self._requests.put_limit(holder, measure, amount)
        for alert in self._blank.alerts.values():
            await self._requests.evaluated(self.names.ids[alert.name])
        self._happens(lambda branch: branch.model.put_limit(holder, measure, amount), everywhere=True)

    def _happens(self, change: Callable[[Branch], object], *, everywhere: bool = False) -> None:
        """What all customers share changes. everywhere: their own alerts are evaluated because of it, too."""
        change(Branch(self._blank))
        for customer in self.customers:
            customer.changes(change, *(customer.model.alerts if everywhere else ()))

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _compare_feeds(self) -> None:
        """Both streams showed the history, each notification once and in one order, and it is what must exist."""
        history = {one.notification_id: one for one in await self._requests.notifications()}
        for feed in self.feeds:
            async with within("all of the history in a stream", PATIENCE):
                while len(feed.received) < len(history):
                    feed.arrived.clear()
                    await feed.arrived.wait()
        first, second = ([one.notification_id for one in feed.received] for feed in self.feeds)
        assert first == second
        assert len(set(first)) == len(first)
        assert {one.notification_id: _bytes(one) for one in self.feed.received} == {
            name: _bytes(one) for name, one in history.items()
        }
        for customer in self.customers:
            observed = self.feed.of(customer.name)
            assert customer.decide(observed), customer.difference(observed)
        assert self.feed.disabled == +self.disabled
        self._check_claims()

    def _check_claims(self) -> None:
        """Each transition of an answer is in the notification that the answer names."""
        shown = {
            (name, place[0], place[1], one.sequence): one.transitions
            for name in {customer.name for customer in self.customers}
            for place, found in self.feed.of(name).items()
            for one in found
        }
        for client in self._clients:
            for customer, alert_id, gauge, sequence, transition in client.claims:
                assert transition in shown[customer, self.names.of(alert_id), gauge, sequence]

    async def compare_rows(self, service: Service) -> None:
        """The stored states, and each notification in the outbox once."""
        expected: dict[tuple[str, Gauge], State] = {}
        for customer in self.customers:
            [branch] = customer.branches
            expected |= branch.states(self.feed.of(customer.name))
        service.alert_ids = self.names.ids
        found = {place: state for place, state in (await service.states()).items() if state != State()}
        different = {
            place: (found.get(place), expected.get(place))
            for place in found.keys() | expected.keys()
            if found.get(place) != expected.get(place)
        }
        assert not different, f"stored and expected states that differ: {different}"
        [[notifications]] = await service.caller.rows(
            "SELECT count(*) FROM notification WHERE organization_id = %(organization_id)s"
        )
        [[queued, distinct]] = await service.caller.rows(
            "SELECT count(*), count(DISTINCT notification_id) FROM outbox WHERE organization_id = %(organization_id)s"
        )
        assert notifications == queued == distinct == len(self.feed.received)


def _bytes(one: message.Message) -> bytes:
    return one.SerializeToString(deterministic=True)


@contextlib.asynccontextmanager
async def organization_of_a_story(database_url: str) -> AsyncIterator[tuple[Servers, ManualClock, Database]]:
    """Two servers, and an organization without anything."""
    # A server creates the partitions up to its clock when it starts, and no story sets a later time.
    clock = ManualClock(MONTHS[1])
    database = Database(database_url, pool_size=2)
    try:
        async with database.transaction() as connection:
            created = await keys.create_key(connection, "story", START)
        servers = Servers(database_url, clock, CONFIGURATION, "story", created.key)
        try:
            await servers.start()
            clock.set(START)
            yield servers, clock, database
        finally:
            await servers.stop()
    finally:
        await database.close()


async def play(database_url: str, steps: int, seed: str) -> Story:
    """Plays a story in a new organization, and compares everything at its end."""
    async with organization_of_a_story(database_url) as (servers, clock, database):
        story = Story(servers, clock, seed)
        try:
            await story.play(steps)
        except BaseExceptionGroup as group:
            error = _first(group)
            error.add_note(f"seed {seed!r}, about step {story.steps}: {dict(story.kinds.most_common())}")
            raise error from None
        caller = servers.caller(0)
        [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
        await story.compare_rows(Service(caller, database, organization_id))
    return story


def _first(error: BaseException) -> BaseException:
    """The first error of a group; the others are of clients that were cut off because of it, or fail likewise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
