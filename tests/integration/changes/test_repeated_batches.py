"""Batches with a request id that are tried several times at once: tries do not wait for each other's reads."""

import asyncio
from collections.abc import Collection
from typing import Any

import psycopg
import pytest

from generated.tidemark.v1 import alert_service_pb2 as messages
from store.identity import idempotent_answers
from store.identity.idempotent_answers import AnswerKey
from tests.support.usage.caller import DEADLINE, Caller, beside, usage_alert


def creation(number: int, request_id: str = "r") -> messages.BatchCreateAlertsRequest:
    """A batch that creates that many alerts."""
    requests = [messages.CreateAlertRequest(alert=usage_alert(str(value + 1))) for value in range(number)]
    return messages.BatchCreateAlertsRequest(requests=requests, request_id=request_id)


async def create(caller: Caller, request: messages.BatchCreateAlertsRequest) -> messages.BatchCreateAlertsResponse:
    """Sends the batch."""
    answer: messages.BatchCreateAlertsResponse = await caller.alerts.BatchCreateAlerts(
        request, metadata=caller.metadata, timeout=DEADLINE
    )
    return answer


async def stored(caller: Caller) -> int:
    """How many alerts the organization has."""
    [[number]] = await caller.rows("SELECT count(*) FROM alert WHERE organization_id = %(organization_id)s")
    assert isinstance(number, int)
    return number


class Unknown:
    """The store finds no answer the first times that it is asked, as if another try had stored it a little later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.times = times
        known = idempotent_answers.known_answers

        async def answers(connection: Any, organization_id: int, keys: Collection[AnswerKey]) -> Any:
            if self.times:
                self.times -= 1
                return {}
            return await known(connection, organization_id, keys)

        monkeypatch.setattr(idempotent_answers, "known_answers", answers)


async def test_batch_is_made_while_another_try_of_it_reads(caller: Caller) -> None:
    """The other try, at a server of the version before, holds the lock of the request id while it reads."""
    [[organization_id]] = await caller.rows(
        "SELECT organization_id FROM organization WHERE name = %(name)s", name=caller.organization
    )
    assert isinstance(organization_id, int)
    request = creation(3)
    async with await psycopg.AsyncConnection.connect(caller.database_url) as other:
        number = idempotent_answers._lock_number(organization_id, "BatchCreateAlerts", "r")
        await other.execute("SELECT pg_advisory_xact_lock(%s)", (number,))
        answer = await create(caller, request)
    assert not answer.replayed
    assert await stored(caller) == 3


async def test_tries_of_one_batch_at_two_servers_create_it_once(caller: Caller) -> None:
    async with beside(caller) as other:
        answers = await asyncio.gather(*(create(one, creation(20)) for one in (caller, other) for _ in range(6)))
    assert [one.replayed for one in answers].count(False) == 1
    assert len({tuple(alert.alert_id for alert in one.alerts) for one in answers}) == 1
    assert await stored(caller) == 20


async def test_creation_whose_answer_another_try_has_stored_meanwhile_is_undone(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await create(caller, creation(3))
    unknown = Unknown(monkeypatch, 2)
    again = await create(caller, creation(3))
    assert unknown.times == 0
    assert again.replayed
    assert again.alerts == first.alerts
    assert await stored(caller) == 3


async def test_batch_without_effect_whose_answer_another_try_has_stored_meanwhile_is_a_replay(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert = await caller.create_only(usage_alert("5"))
    request = messages.BatchArchiveAlertsRequest(
        requests=[messages.ArchiveAlertRequest(alert_id=alert.alert_id)], request_id="a"
    )
    await caller.alerts.BatchArchiveAlerts(request, metadata=caller.metadata, timeout=DEADLINE)
    unknown = Unknown(monkeypatch, 1)
    again = await caller.alerts.BatchArchiveAlerts(request, metadata=caller.metadata, timeout=DEADLINE)
    assert unknown.times == 0
    assert again.replayed
