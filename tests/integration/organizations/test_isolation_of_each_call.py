"""Isolation, call by call: every unary method answers the same beside another organization, and changes no row of it.

A filter by organization that is left out of a statement, or of a join, adds the other's row to what is read, finds
two rows where there is one, or writes a row of the other's.
"""

import asyncio
from datetime import UTC, datetime

import pytest

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)
from runtime.clock import ManualClock
from tests.support.databases import Template
from tests.support.organizations.side_by_side import Outcome, carry_out
from tests.support.organizations.steps import STEPS

# Streams (the tests of usage, of enforcement and of the watch streams open these for two organizations), and methods
# that need a notifier or an id that organizations do not share.
ELSEWHERE = {
    "EvaluateUsage",
    "WatchNotifications",
    "WatchAuditEntries",
    "EnforceUsage",
    "WatchDecisions",
    "GetDelivery",
    "ListAttempts",
}

NAMES = [step.name for step in STEPS if step.only != "theirs"]


@pytest.fixture(scope="module")
def outcomes(template: Template) -> tuple[Outcome, Outcome]:
    """The steps of an organization alone, and beside another one."""
    now = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)

    async def both() -> tuple[Outcome, Outcome]:
        return (
            await carry_out(template.fresh_database(), ManualClock(now), beside_another=False),
            await carry_out(template.fresh_database(), ManualClock(now), beside_another=True),
        )

    return asyncio.run(both())


@pytest.mark.parametrize("step", NAMES)
def test_another_organization_changes_no_answer_and_is_changed_by_no_call(
    outcomes: tuple[Outcome, Outcome], step: str
) -> None:
    alone, beside = outcomes
    assert not alone.answers[step].startswith("INTERNAL")
    assert beside.answers[step] == alone.answers[step]
    assert beside.touched.get(step, []) == []


def test_the_steps_show_what_was_put_and_call_every_method(outcomes: tuple[Outcome, Outcome]) -> None:
    """Most answers show something of what was put, and every method of the API is called."""
    alone, _ = outcomes
    assert len([answer for answer in alone.answers.values() if "ours" in answer]) > 40
    services = (account_service_pb2, alert_service_pb2, audit_service_pb2, limit_service_pb2, webhook_service_pb2)
    methods = {
        method.name
        for module in services
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {step.method for step in STEPS} == methods - ELSEWHERE
