"""`AsyncCachedChecks`: decisions from a cache, for requests of which each is small, and one more does no harm."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.enforcement.reports import REPEATED
from tidemark_client.errors.exceptions import error_of_call
from tidemark_client.v1 import decision_pb2, limit_service_pb2, requested_usage_pb2
from tidemark_client.v1.limit_service_pb2_grpc import LimitServiceStub

MOST_CUSTOMERS = 100  # of one BatchCheckUsage
GATHERING = 0.005  # seconds in which customers come together in one call

logger = logging.getLogger("tidemark_client.enforcement")


@dataclass(frozen=True)
class CheckOptions:
    """How old a decision may be.

    fail_open: what is answered when the server has not, and the last answer is older than max_stale seconds. max_age:
    seconds for which an answer is used; at most as long as the answer says (`valid_until_time`). check_seconds: for
    one call. most_cached: customers; those that were read longest ago are forgotten.
    """

    fail_open: bool = False
    max_age: float = 2.0
    max_stale: float = 30.0
    check_seconds: float = 0.5
    most_cached: int = 100_000


@dataclass(frozen=True)
class _Cached:
    """One answer. time: when it was asked for, by this machine's monotonic clock; since then it may be wrong."""

    allowed: bool
    time: float


class AsyncCachedChecks:
    """Whether customers may use one more unit of a metric. For one event loop. The API key needs the role reader."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata,
        metric_id: str,
        options: CheckOptions | None = None,
    ) -> None:
        self._limits = LimitServiceStub(channel)
        self._metadata = metadata
        self._usage = requested_usage_pb2.CheckedUsage(metric_id=metric_id, quantity="1")
        self._options = options or CheckOptions()
        self._cache: dict[str, _Cached] = {}
        self._valid = self._options.max_age  # seconds, as the latest answer says
        self._wanted: dict[str, asyncio.Future[_Cached | None]] = {}
        self._reading = set[asyncio.Task[None]]()

    def cached(self, customer_id: str) -> bool | None:
        """The answer of the cache; None if there is none that is young enough. Threads may call it."""
        found = self._cache.get(customer_id)
        if found is None or time.monotonic() - found.time >= min(self._options.max_age, self._valid):
            return None
        return found.allowed

    async def may_use(self, customer_id: str) -> bool:
        """Whether the customer may use one more. Usage in the last max_age seconds may be missing in the answer.

        Raises TidemarkError where the request or the key is wrong: fail_open is not for mistakes.
        """
        cached = self.cached(customer_id)
        if cached is not None:
            return cached
        found = await self._read(customer_id) or self._cache.get(customer_id)
        if found is not None and time.monotonic() - found.time < self._options.max_stale:
            return found.allowed
        return self._options.fail_open

    async def _read(self, customer_id: str) -> _Cached | None:
        """Reads the decision; None when the server has not answered.

        Requests for one customer share a read, and customers share a call.
        """
        waiting = self._wanted.get(customer_id)
        if waiting is None:
            waiting = self._wanted[customer_id] = asyncio.get_running_loop().create_future()
            if len(self._wanted) == 1:
                task = asyncio.create_task(self._gather())
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)
        return await asyncio.shield(waiting)

    async def _gather(self) -> None:
        await asyncio.sleep(GATHERING)
        wanted, self._wanted = self._wanted, {}
        customer_ids = list(wanted)
        parts = [customer_ids[at : at + MOST_CUSTOMERS] for at in range(0, len(customer_ids), MOST_CUSTOMERS)]
        answers = await asyncio.gather(*map(self._ask, parts), return_exceptions=True)
        for part, answer in zip(parts, answers, strict=True):
            for customer_id in part:
                if isinstance(answer, BaseException):
                    wanted[customer_id].set_exception(answer)
                else:
                    # Not from the cache: a small one may have forgotten it before its caller runs.
                    wanted[customer_id].set_result(answer.get(customer_id))

    async def _ask(self, customer_ids: Sequence[str]) -> dict[str, _Cached]:
        """The answers that the server gave, which are in the cache, too."""
        request = limit_service_pb2.BatchCheckUsageRequest(customer_ids=customer_ids, usages=[self._usage])
        asked = time.monotonic()
        try:
            answer = await self._limits.BatchCheckUsage(
                request, metadata=self._metadata, timeout=self._options.check_seconds
            )
        except grpc.aio.AioRpcError as error:
            if error.code() not in REPEATED:
                raise error_of_call(error) from error
            # What is cached is used for longer, up to max_stale.
            logger.warning("no checks: %s %s", error.code().name, error.details())
            return {}
        # The difference of two times of the server: its clock and this one may differ.
        valid = answer.valid_until_time.ToMicroseconds() - answer.update_time.ToMicroseconds()
        self._valid = valid / 1e6
        answers: dict[str, _Cached] = {}
        for customer in answer.customers:
            [check] = customer.checks
            if check.HasField("error"):
                logger.warning("no check of %s: %s", customer.customer_id, check.error.message)
                continue
            allowed = check.decision.outcome != decision_pb2.DECISION_OUTCOME_DENIED
            self._cache.pop(customer.customer_id, None)
            self._cache[customer.customer_id] = answers[customer.customer_id] = _Cached(allowed, asked)
        while len(self._cache) > self._options.most_cached:
            del self._cache[next(iter(self._cache))]
        return answers
