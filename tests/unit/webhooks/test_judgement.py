"""The judgement of several endpoints after a batch of attempts."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from webhooks.health import (
    DISABLE_AFTER,
    DisableReason,
    Health,
    HealthSample,
    HealthSignal,
    judge,
)
from webhooks.operator_events import OperatorEventType

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
WELL = Health(max_in_flight=4, last_success_time=NOW)
FAILING = Health(max_in_flight=4, failing_since=NOW - DISABLE_AFTER, failure_count=50, warned_percent=90)
SUCCEEDED = HealthSample(HealthSignal.SUCCEEDED)
FAILED = HealthSample(HealthSignal.FAILED)
CHANCE = random.Random(0)
A, B, OTHER = (1, "whe_a"), (1, "whe_b"), (2, "whe_a")


def test_an_endpoint_is_unchanged_when_a_recent_success_is_followed_by_another() -> None:
    judgement = judge({A: WELL}, [(A, SUCCEEDED)] * 3, NOW, CHANCE)
    assert (judgement.changed, judgement.events, judgement.to_disable) == ({}, [], {})


def test_samples_count_in_their_order() -> None:
    failed_last = judge({A: WELL}, [(A, SUCCEEDED), (A, SUCCEEDED), (A, FAILED)], NOW, CHANCE)
    assert failed_last.changed[A].failure_count == 1
    succeeded_last = judge({A: WELL}, [(A, SUCCEEDED), (A, FAILED), (A, SUCCEEDED)], NOW, CHANCE)
    assert succeeded_last.changed == {}, "the success ends the failures"


def test_samples_of_an_endpoint_that_is_not_enabled_change_nothing() -> None:
    judgement = judge({A: WELL}, [(B, FAILED), (OTHER, HealthSample(HealthSignal.GONE))], NOW, CHANCE)
    assert (judgement.changed, judgement.events) == ({}, [])


def test_the_endpoints_to_disable_are_in_the_order_of_their_keys() -> None:
    samples = [(OTHER, HealthSample(HealthSignal.GONE)), (B, FAILED), (A, FAILED)]
    judgement = judge({A: WELL, B: FAILING, OTHER: WELL}, samples, NOW, CHANCE)
    assert list(judgement.changed) == [A, B, OTHER]
    assert list(judgement.to_disable.items()) == [(B, DisableReason.FAILING), (OTHER, DisableReason.GONE)]
    assert [(event.organization_id, event.endpoint_id) for event in judgement.events] == [OTHER, B]
    assert {event.notice.event_type for event in judgement.events} == {OperatorEventType.ENDPOINT_DISABLED}


def test_an_endpoint_is_disabled_once_when_several_attempts_say_that_it_is_gone() -> None:
    judgement = judge({A: WELL}, [(A, HealthSample(HealthSignal.GONE))] * 3, NOW, CHANCE)
    assert len(judgement.events) == 1


def test_each_endpoint_keeps_its_own_health() -> None:
    judgement = judge({A: WELL, B: WELL}, [(A, FAILED)], NOW, CHANCE)
    assert judgement.changed == {
        A: replace(WELL, breaker_failures=1, failing_since=NOW, failure_count=1),
    }


def test_a_success_after_a_quiet_time_changes_the_last_success_only() -> None:
    quiet = replace(WELL, last_success_time=NOW - timedelta(hours=1))
    judgement = judge({A: quiet}, [(A, SUCCEEDED)] * 2, NOW, CHANCE)
    assert judgement.changed == {A: WELL}
