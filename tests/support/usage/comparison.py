"""One organization that exists twice: each call is made to a server and to the reference model; both are compared."""

import asyncio
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import grpc

from generated.tidemark.v1 import (
    alert_service_pb2,
    customer_alert_pb2,
    usage_pb2,
)
from store.identity import keys
from tests.reference.alerts import Alert
from tests.reference.gauges import Event, Fields, Gauge
from tests.reference.thresholds import Key, State
from tests.reference.usage import CONFLICT, DUPLICATE, NEW, UsageModel
from tests.support.usage import voiding
from tests.support.usage.caller import DEADLINE, Caller, StreamCall, refusals
from tests.support.usage.draws import METRICS, START
from tests.support.usage.service import Service
from tests.support.usage.stage import REPLICAS, Stage
from tests.support.usage.words import gauge_of, message_of, transition_of


class Comparison:
    """An organization of its own, on the servers of a stage; at: which of them is called."""

    def __init__(self, stage: Stage, callers: list[Caller], service: Service) -> None:
        self.model = UsageModel(START, METRICS.values())
        self._stage = stage
        self._callers = callers
        self._service = service
        self._streams: dict[int, StreamCall] = {}

    @classmethod
    async def begin(cls, stage: Stage, metric: str) -> "Comparison":
        """A new organization with that metric."""
        name = f"organization-{stage.next_number()}"
        async with stage.database.transaction() as connection:
            created = await keys.create_key(connection, name, START)
        callers = [stage.caller(number, name, created.key) for number in range(REPLICAS)]
        [[organization_id]] = await callers[0].rows("SELECT %(organization_id)s")
        service = Service(callers[0], stage.database, organization_id)
        await service.put_metric(METRICS[metric])
        return cls(stage, callers, service)

    async def send(self, events: list[Event], at: int, streamed: bool) -> None:
        """Sends a batch, and compares the whole answer."""
        answer = await self._answer(events, at, streamed)
        sent_before = len(self.model.notifications)
        verdicts, moved = self.model.commit(events)
        others = [index for index, verdict in enumerate(verdicts) if verdict == CONFLICT]
        assert answer.accepted == verdicts.count(NEW)
        assert answer.duplicates == verdicts.count(DUPLICATE)
        assert [(one.at, one.reason) for one in refusals(answer)] == [(index, "EVENT_CONFLICT") for index in others]
        assert {gauge_of(gauge): Fraction(gauge.value) for gauge in answer.gauges} == moved
        sent = self.model.notifications[sent_before:]
        expected = [(one.alert, one.gauge, one.sequence, each) for one in sent for each in one.transitions]
        names = {alert_id: name for name, alert_id in self._at(at).alert_ids.items()}
        found = [
            (
                names[one.alert_id],
                gauge_of(one.gauge),
                one.sequence,
                transition_of(one),
            )
            for one in answer.transitions
            if one.notified
        ]
        assert Counter(one for one in found if one[3].event_id) == Counter(one for one in expected if one[3].event_id)

    async def _answer(self, events: list[Event], at: int, streamed: bool) -> Any:
        messages = [message_of(event) for event in events]
        if not streamed:
            return await self._callers[at].send(*messages, gauges=True)
        if at not in self._streams:
            self._streams[at] = self._callers[at].stream()
        request = alert_service_pb2.EvaluateUsageRequest(
            batch=usage_pb2.UsageBatch(events=messages, include_gauges=True)
        )
        async with asyncio.timeout(DEADLINE):
            await self._streams[at].write(request)
            answer = await self._streams[at].read()
        assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
        return answer.outcome

    async def void(self, identities: list[tuple[str, str]], at: int) -> None:
        """Takes events back, and compares what became of each."""
        keys_of = [voiding.key(event_id, customer) for customer, event_id in identities]
        answer = await voiding.void(self._callers[at], *keys_of)
        assert voiding.outcomes(answer) == self.model.void(identities)

    async def create(self, alert: Alert, at: int) -> None:
        """Creates an alert, unless there may not be another like it."""
        alert = replace(alert, name=f"alert-{len(self._service.alert_ids)}")
        if await self._at(at).create(alert):
            self.model.create(alert)

    async def archive(self, name: str, at: int) -> None:
        """Ends an alert."""
        self.model.archive(name)
        await self._at(at).archive(name)

    async def put(self, customer: str, subscription: str | None, plan: str, fields: Fields, at: int) -> None:
        """Brings a customer, or a subscription, to a plan. fields: the custom fields of the subscription."""
        self.model.put(customer, subscription, plan)
        if subscription is not None:
            self.model.put_fields(customer, subscription, fields)
        await self._at(at).put(customer, subscription, plan, fields)

    async def edit(self, alert: Alert, paths: list[str], reset: bool, at: int) -> None:
        """Makes an alert what it is to be, with a mask that names what may be different, and a new name."""
        self.model.edit(alert, reset=reset)
        await self._at(at).edit(alert, paths, f"alert {self._stage.steps}", reset=reset)

    async def switch(self, name: str, target: tuple[str, ...], on: bool, at: int) -> None:
        """Switches an alert on or off: as a whole, for a customer, or for a customer's subscription."""
        self.model.switch(name, target, on=on)
        await self._at(at).switch(name, target, on=on)

    async def reset(self, name: str, customer: str, at: int) -> None:
        """Makes an alert forget a customer, which is refused where it is not evaluated."""
        watched = self.model.current(self.model.alerts[name], customer)
        done = await self._at(at).reset(name, customer)
        assert done or not watched
        self.model.reset(name, customer)

    async def restart(self, number: int) -> None:
        """Puts another server in the place of one."""
        await self._end_stream(number)
        await self._stage.restart(number)
        one = self._callers[number]
        self._callers[number] = self._stage.caller(number, one.organization, one.key)

    async def _end_stream(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF

    async def check_state(self, alert: Alert, customer: str, at: int) -> None:
        """Compares what GetCustomerAlert shows of the gauges of the current month."""
        service = self._at(at)
        try:
            shown = await service.caller.state(service.alert_ids[alert.name], customer)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            assert not self.model.current(alert, customer)
            return
        nothing = State()
        found: dict[Gauge, tuple[dict[Key, bool], Fraction | None, int]] = {}
        expected: dict[Gauge, tuple[dict[Key, bool], Fraction | None, int]] = {}
        for one in shown.gauges:
            gauge = gauge_of(one.gauge)
            state = self.model.states.get((alert.name, gauge), nothing)
            alarming = [item for item in one.thresholds if item.in_alarm]
            steps = [Fraction(item.level) for item in alarming if item.threshold.recurring_step]
            fixed: dict[Key, bool]
            fixed = {Fraction(item.level): item.silent for item in alarming if not item.threshold.recurring_step}
            found[gauge] = fixed, next(iter(steps), None), one.sequence
            values = {one.value for one in alert.thresholds_of(gauge.group)}
            past = {value: silent for value, silent in state.past.items() if value in values}
            expected[gauge] = past, state.furthest_step, state.sequence
        assert found == expected
        assert found.keys() == self.model.shown(alert, customer)
        alarm = any(item.in_alarm for one in shown.gauges for item in one.thresholds)
        assert alarm is (shown.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM)

    async def compare(self) -> None:
        """All that is stored: every state, every notification, each of them once in the outbox."""
        for number in list(self._streams):
            await self._end_stream(number)
        service = self._at(0)
        assert Counter(await service.notifications()) == Counter(self.model.notifications)
        nothing = State()
        expected = {key: state for key, state in self.model.states.items() if state != nothing}
        found = {key: state for key, state in (await service.states()).items() if state != nothing}
        assert found == expected

    def _at(self, replica: int) -> Service:
        """The organization, through one of the servers."""
        self._service.caller = self._callers[replica]
        return self._service
