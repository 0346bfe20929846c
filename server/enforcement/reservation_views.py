"""LimitService: reservations as they are."""

from engine.enforcement.requests import ReservationNotFound
from evaluator.enforcement.reservations import Reservation
from generated.tidemark.v1 import limit_service_pb2 as messages
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TWO_IDS, Cursor, read_page
from server.calls.validation import Violations
from server.mapping.reservations import read_states, reservation_message, write_reservation
from store.enforcement import reservation_views
from store.enforcement.reservation_views import ReservationFilter
from store.postgres.database import Database


class ReservationViewHandlers:
    """Serves the RPCs that read reservations. most_examined: that a page reads, with filters."""

    def __init__(self, database: Database, *, most_examined: int | None = None) -> None:
        self._database = database
        self._most_examined = most_examined

    async def GetReservation(
        self, request: messages.GetReservationRequest, context: Context
    ) -> messages.GetReservationResponse:
        """One reservation. Raises ReservationNotFound."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        reservation_id = violations.identifier("reservation_id", request.reservation_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            found = await reservation_views.get(connection, organization_id, customer_id, reservation_id)
        if found is None:
            raise ReservationNotFound(customer_id, reservation_id)
        answer = messages.GetReservationResponse()
        write_reservation(answer.reservation, found)
        return answer

    async def ListReservations(
        self, request: messages.ListReservationsRequest, context: Context
    ) -> messages.ListReservationsResponse:
        """A page of the reservations of a customer, by id."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        states = read_states(violations, "states", request.states)
        filters = (customer_id, *states)
        page = read_page(violations, request.page_size, request.page_token, "ListReservations", filters, BY_TWO_IDS)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            found = await reservation_views.list_page(
                connection,
                current_organization().organization_id,
                ReservationFilter(customer_id, states),
                after=None if page.after is None else (str(page.after[0]), str(page.after[1])),
                limit=page.limit,
                most_examined=self._most_examined,
            )
        answer = messages.ListReservationsResponse()
        page = await page.cut_into(answer.reservations, map(reservation_message, page.shown(found.items)))
        answer.next_page_token = page.next_token(found.items, _cursor_of, found.end)
        return answer


def _cursor_of(reservation: Reservation) -> Cursor:
    return reservation.customer_id, reservation.reservation_id
