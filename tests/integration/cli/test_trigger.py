"""`tidemark trigger` sends an example of each type of alert, and of each other event, to a receiver."""

import asyncio

from click.testing import CliRunner, Result

from cli.main import tidemark
from cli.trigger.command import conditions, event_types
from evaluator.alerts import ConditionType
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import CreateEndpointRequest
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.receiver import running_receiver
from tests.support.schemas import FILES, check_body
from tests.support.server.running import running


async def test_every_condition_and_every_event_type_reaches_a_receiver(database: Database) -> None:
    assert list(conditions()) == [each.value for each in ConditionType]
    assert set(event_types()) == set(FILES)
    house = await House.build(database, SystemClock())
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    async with (
        running(database, house.clock, configuration=settings) as server,
        running_receiver() as receiver,
        running_notifier(house),
    ):
        webhooks = WebhookServiceStub(server.channel)
        created = await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=receiver.url)))

        async def trigger(*arguments: str) -> Result:
            command = ["trigger", *arguments, "--server", f"127.0.0.1:{server.port}", "--wait", "0"]
            return await asyncio.to_thread(CliRunner().invoke, tidemark, command)

        wanted = [(name, kind) for name in conditions() for kind in ("alert.reached", "alert.resolved")]
        for name, kind in wanted:
            done = await trigger(name, *(["--resolved"] if kind == "alert.resolved" else []))
            assert done.exit_code == 0, done.output
        for name in event_types():
            done = await trigger(name)
            assert done.exit_code == 0, done.output
        arrivals = await receiver.arrived(len(wanted) + len(event_types()))
        bodies = [arrival.verify(created.secret) for arrival in arrivals]
        found = []
        for body in bodies:
            assert isinstance(body, dict)
            check_body(body)
            assert body["data"]["test"] is True
            if body["type"] in ("alert.reached", "alert.resolved"):
                found.append((body["data"]["condition"], body["type"]))
        usual = [
            ("usage_threshold_reached", "alert.reached"),
            ("low_remaining_commit_balance_reached", "alert.resolved"),
        ]
        assert sorted(found) == sorted([*wanted, *usual])
        assert {body["type"] for body in bodies if isinstance(body, dict)} == set(FILES)

        assert (await trigger("days-in-plan")).exit_code == 0  # as `alerts create` names it
        *_, last = await receiver.arrived(len(arrivals) + 1)
        body = last.verify(created.secret)
        assert isinstance(body, dict)
        assert body["data"]["condition"] == "low_remaining_days_in_plan_reached"

        wrong = await trigger("alert.reached", "--resolved")
        assert (wrong.exit_code, "needs the condition" in wrong.output) == (2, True)
        unknown = await trigger("usage_exceded")
        assert (unknown.exit_code, "did you mean usage_exceeded" in unknown.output) == (2, True)
        listed = await trigger("usage_exceeded", "--list")
        assert listed.output.split() == [*event_types(), *conditions()]
