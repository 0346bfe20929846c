"""LimitService: reservations, one in a call."""

from datetime import timedelta

from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.clock import Clock
from server.calls.context import Context
from server.calls.validation import Violations
from server.enforcement.answers import write_decided, write_extended
from server.enforcement.deciding import Deciding
from server.enforcement.reading import read_extend, read_release, read_reserve, read_settle
from server.mapping.requested_usage import UsageBounds


class ReservationHandlers:
    """Serves the RPCs that make and end one reservation. retention: of events."""

    def __init__(self, clock: Clock, deciding: Deciding, *, retention: timedelta) -> None:
        self._clock = clock
        self._deciding = deciding
        self._retention = retention

    async def ReserveUsage(
        self, request: messages.ReserveUsageRequest, context: Context
    ) -> messages.ReserveUsageResponse:
        """Decides, and holds what is granted. Raises ReservationConflict, EventConflict and others of `errors`."""
        violations = Violations()
        wanted = read_reserve(violations, request, self._bounds())
        violations.raise_if_any()
        answer = messages.ReserveUsageResponse()
        write_decided(answer, await self._deciding.decide(wanted))
        return answer

    async def SettleReservation(
        self, request: messages.SettleReservationRequest, context: Context
    ) -> messages.SettleReservationResponse:
        """Counts the usage of a reservation. Raises ReservationNotFound, ReservationEnded and others of `errors`."""
        violations = Violations()
        wanted = read_settle(violations, request)
        violations.raise_if_any()
        answer = messages.SettleReservationResponse()
        write_decided(answer, await self._deciding.decide(wanted))
        return answer

    async def ReleaseReservation(
        self, request: messages.ReleaseReservationRequest, context: Context
    ) -> messages.ReleaseReservationResponse:
        """Gives back what a reservation holds. Raises ReservationNotFound and ReservationEnded."""
        violations = Violations()
        wanted = read_release(violations, request)
        violations.raise_if_any()
        answer = messages.ReleaseReservationResponse()
        write_decided(answer, await self._deciding.decide(wanted))
        return answer

    async def ExtendReservation(
        self, request: messages.ExtendReservationRequest, context: Context
    ) -> messages.ExtendReservationResponse:
        """Moves the end of a reservation. Raises ReservationNotFound and ReservationEnded."""
        violations = Violations()
        wanted = read_extend(violations, request, self._bounds())
        violations.raise_if_any()
        answer = messages.ExtendReservationResponse()
        write_extended(answer, await self._deciding.decide(wanted))
        return answer

    def _bounds(self) -> UsageBounds:
        return UsageBounds(self._clock.now(), self._retention)
