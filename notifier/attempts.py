"""One attempt of one delivery: signed, posted, judged."""

import asyncio
import logging
import random
from datetime import timedelta

from notifier.metrics import Metrics
from notifier.recorder import Return
from notifier.requests import request_headers
from notifier.sending import Answer, Sender
from runtime.actions import LogAction
from runtime.clock import Clock
from store.deliveries.queue import Claim
from store.deliveries.results import AttemptRecord
from webhooks.deliveries import DeliveryStatus
from webhooks.schedule import decide
from webhooks.secret_box import CannotOpen, SecretBox
from webhooks.signature import MalformedSecret

RETURN_DELAY = timedelta(seconds=30)  # until a delivery that failed by our own fault is due again

logger = logging.getLogger(__name__)

_LEVELS = {DeliveryStatus.DELIVERED: logging.DEBUG, DeliveryStatus.PENDING: logging.INFO}  # others: WARNING


class Attempter:
    """Makes attempts, any number at a time."""

    def __init__(
        self, sender: Sender, clock: Clock, box: SecretBox | None, metrics: Metrics, randomness: random.Random
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._box = box
        self._metrics = metrics
        self._randomness = randomness

    async def attempt(self, claim: Claim) -> AttemptRecord | Return:
        """Makes one attempt; what cannot be sent by our own fault comes back as a Return."""
        if claim.body is None:
            logger.error(
                "a delivery has no notification to send",
                extra={"action": LogAction.ATTEMPT_NO_NOTIFICATION, "delivery_id": claim.delivery_id},
            )
            return Return(claim, RETURN_DELAY)
        body = claim.body.encode()
        start_time = self._clock.now()
        try:
            request = request_headers(claim, self._box, start_time, body)
        except (MalformedSecret, CannotOpen, ValueError) as error:
            logger.error(
                "a delivery cannot be signed: %s",
                error,
                extra={"action": LogAction.ATTEMPT_UNSIGNED, "endpoint_id": claim.endpoint_id},
            )
            return Return(claim, RETURN_DELAY)
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await self._sender.post(claim.target.url, request.headers, body)
        duration = timedelta(seconds=loop.time() - began)
        self._metrics.attempt(answer.outcome, duration)
        decision = decide(
            answer.outcome,
            back_pressure=answer.back_pressure,
            attempts=claim.schedule_step + 1,
            age=claim.age,
            retry_after=answer.retry_after,
            randomness=self._randomness,
        )
        record = AttemptRecord(
            claim=claim,
            start_time=start_time,
            duration=duration,
            outcome=answer.outcome,
            http_status=answer.http_status,
            response_excerpt=answer.response_excerpt,
            error=answer.error,
            status=decision.status,
            delay=decision.delay,
            verdict=decision.verdict,
            retry_after=answer.retry_after,
            remote_address=answer.remote_address,
            secret_sequences=request.secret_sequences,
        )
        _log(record, answer)
        return record


def _log(record: AttemptRecord, answer: Answer) -> None:
    # Neither URL nor secret: a URL often carries a token.
    level = _LEVELS.get(record.status, logging.WARNING)
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level,
        "attempt %d: %s",
        record.claim.attempt_count + 1,
        answer.outcome.lower(),
        extra={
            "action": LogAction.ATTEMPT,
            "delivery_id": record.claim.delivery_id,
            "endpoint_id": record.claim.endpoint_id,
            "notification_id": record.claim.notification_id,
            "http_status": answer.http_status,
            "duration_ms": round(record.duration.total_seconds() * 1000, 1),
            "status": record.status,
            "error": answer.error,
        },
    )
