"""AccountService: how a balance has moved."""

from datetime import datetime
from decimal import Decimal

from engine.explanation.series import width_of
from evaluator.amounts import ZERO, exact_arithmetic, format_decimal
from generated.tidemark.v1 import account_service_pb2 as messages
from runtime.clock import Clock
from server.accounts.errors import balance_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.validation import Violations, to_timestamp
from server.mapping.balances import balance_message
from server.mapping.series import read_point_count
from store.balances import balances, series
from store.balances.balances import StoredBalance
from store.balances.series import LatestEntries
from store.postgres.database import Database


class BalanceSeriesHandlers:
    """Serves GetBalanceSeries."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def GetBalanceSeries(
        self, request: messages.GetBalanceSeriesRequest, context: Context
    ) -> messages.GetBalanceSeriesResponse:
        """What remained of a balance at equal intervals."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        balance_id = violations.identifier("balance_id", request.balance_id)
        points = read_point_count(violations, request.point_count)
        start = violations.time("start_time", request.start_time) if request.HasField("start_time") else None
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            await balances.read_one_snapshot(connection)
            stored = await balances.get(connection, organization_id, customer_id, balance_id)
            if stored is None:
                raise balance_not_found(customer_id, balance_id)
            # Read in the snapshot: entries are not later than now.
            now = max(self._clock.now(), stored.update_time)
            first = min(max(start or stored.create_time, stored.create_time), now)
            width = width_of(now - first, points)
            entries = await series.latest_entries(connection, organization_id, customer_id, balance_id, first, width)
        answer = messages.GetBalanceSeriesResponse(
            balance=balance_message(stored, now),
            drawn=format_decimal(-entries.drawn),
            is_truncated=entries.is_truncated,
        )
        intervals = max(-(-(now - first) // width), 1)
        value = _undrawn(stored)
        found = [(now, value)]
        with exact_arithmetic():
            for number in range(intervals - 1, -1, -1):
                value -= entries.amounts.get(number, ZERO)
                if number == intervals - 1:  # what was written in the moment of the read
                    value -= entries.amounts.get(intervals, ZERO)
                found.append((first + width * number, value))
        for time, amount in reversed(_known(found, entries)):
            answer.points.add(point_time=to_timestamp(time), value=format_decimal(amount))
        return answer


def _undrawn(stored: StoredBalance) -> Decimal:
    """What was granted and not drawn of all segments: the sum of the ledger."""
    if stored.void_time is not None:
        return ZERO
    with exact_arithmetic():
        return sum((one.undrawn for one in stored.segments if not one.removed), ZERO)


def _known(found: list[tuple[datetime, Decimal]], entries: LatestEntries) -> list[tuple[datetime, Decimal]]:
    """The points from the oldest entry on that was read, the newest first."""
    if not entries.is_truncated or entries.oldest is None:
        return found
    return [found[0], *(one for one in found[1:] if one[0] >= entries.oldest)]
