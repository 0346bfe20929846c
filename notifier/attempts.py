"""One attempt of one delivery: it is signed and posted, and the retry schedule decides what follows."""

import asyncio
import logging
import random
from datetime import datetime, timedelta

from notifier import attempt_span
from notifier.metrics import Metrics
from notifier.request_headers import RequestHeaders, request_headers
from notifier.results import Result, Return
from notifier.sending import Answer, Sender
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.tracing.context import TraceContext
from runtime.tracing.spans import Span
from store.deliveries.claims import Claim
from store.deliveries.results import AttemptRecord
from webhooks.deliveries import DeliveryStatus
from webhooks.retry_schedule import decide
from webhooks.secret_box import CannotOpen, SecretBox

RETURN_DELAY = timedelta(seconds=30)  # until a delivery is due again that Tidemark could not send by its own fault

# The same for a delivery whose notification does not show: as long as the delivery is old, from this to the above.
LEAST_RETURN_DELAY = timedelta(seconds=1)

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

    async def attempt(self, claim: Claim) -> Result:
        """Makes one attempt; a Return means that Tidemark could not send the delivery by its own fault."""
        if claim.body is None:
            logger.error(
                "a delivery has no notification to send", extra={"action": LogAction.ATTEMPT_NO_NOTIFICATION}
            )
            return Return(claim, min(max(claim.age, LEAST_RETURN_DELAY), RETURN_DELAY))
        with attempt_span.begin(claim) as span:
            return await self._send(claim, claim.body.encode(), span)

    async def _send(self, claim: Claim, body: bytes, span: Span) -> Result:
        start_time = self._clock.now()
        request = self._sign(claim, start_time, body, span.trace or claim.trace)
        if request is None:
            span.fail("unsigned")
            return Return(claim, RETURN_DELAY)
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await self._sender.post(claim.endpoint.url, request.headers, body)
        duration = timedelta(seconds=loop.time() - began)
        self._metrics.attempt(answer.outcome, duration)
        attempt_span.note(span, answer)
        record = self._decide(claim, answer, start_time, duration, request.secret_sequences)
        _log(record, answer)
        return record

    def _sign(self, claim: Claim, time: datetime, body: bytes, trace: TraceContext | None) -> RequestHeaders | None:
        """The headers of the attempt with its signatures; None when a secret is missing or cannot be used."""
        try:
            return request_headers(claim, self._box, time, body, trace)
        except (CannotOpen, ValueError) as error:
            logger.error("a delivery cannot be signed: %s", error, extra={"action": LogAction.ATTEMPT_UNSIGNED})
            return None

    def _decide(
        self,
        claim: Claim,
        answer: Answer,
        start_time: datetime,
        duration: timedelta,
        secret_sequences: tuple[int, ...],
    ) -> AttemptRecord:
        """The attempt, with the decision of the retry schedule."""
        decision = decide(
            answer.outcome,
            back_pressure=answer.back_pressure,
            attempts=claim.schedule_step + 1,
            age=claim.age,
            retry_after=answer.retry_after,
            randomness=self._randomness,
        )
        return AttemptRecord(
            claim=claim,
            start_time=start_time,
            duration=duration,
            outcome=answer.outcome,
            http_status=answer.http_status,
            response_excerpt=answer.response_excerpt,
            error=answer.error,
            status=decision.status,
            delay=decision.delay,
            signal=decision.signal,
            retry_after=answer.retry_after,
            remote_address=answer.remote_address,
            secret_sequences=secret_sequences,
        )


def _log(record: AttemptRecord, answer: Answer) -> None:
    # Neither URL nor secret is logged: a URL often carries a token.
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
            "http_status": answer.http_status,
            "duration_ms": round(record.duration.total_seconds() * 1000, 1),
            "status": record.status,
            "error": answer.error,
        },
    )
