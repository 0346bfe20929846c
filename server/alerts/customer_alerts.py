"""AlertService: shows the state of alerts for one customer, or for many with the alerts in alarm first."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

from evaluator.definitions import AlertDefinition, DefinitionState
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import customer_alert_pb2
from runtime.clock import Clock
from runtime.turns import Slices
from server.alerts.customer_alert_requests import (
    CURSOR_OF_MANY,
    after_entry,
    canonical_numbers,
    read_narrowed,
    read_selection,
    read_statuses,
    token_after,
)
from server.alerts.errors import alert_not_found
from server.calls.answer_size import read_room
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TIME, Page, after_time_and_id, invalid_page_token, read_page
from server.calls.validation import Violations
from server.mapping.alerts import read_states
from server.mapping.gauges import customer_alert_message, first_in_order, position_of
from store.postgres.database import Database
from store.views import alarms, customer_alert_lists
from store.views.covering_alerts import AlertsOfCustomer
from store.views.customer_alert_lists import ListFilter, PageRoom
from store.views.customer_alerts import CustomerAlert, CustomerAlertStatus, GaugeState
from store.views.customer_views import CustomerView
from store.views.gauge_windows import GaugeGone, GaugeWindow

# The states of alerts that lists show when the request names none.
_NOT_ARCHIVED = (DefinitionState.ACTIVE, DefinitionState.DISABLED)

ALERTS_READ = 100  # at once, where a filter by status leaves out an unknown number of them
MAX_READS = 10  # of the alerts of a customer, for one page; what is left is on the next page


class CustomerAlertHandlers:
    """Serves the RPCs that show the state of alerts for customers."""

    def __init__(self, database: Database, clock: Clock, *, page_gauges: int, most_examined: int) -> None:
        """page_gauges: of all alerts on a page, unless a single alert has more.

        most_examined: alerts that one page reads to find those of a customer.
        """
        self._database = database
        self._clock = clock
        self._page_gauges = page_gauges
        self._most_examined = most_examined

    async def GetCustomerAlert(
        self, request: messages.GetCustomerAlertRequest, context: Context
    ) -> messages.GetCustomerAlertResponse:
        """The state of one alert for one customer, with a page of its gauges."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        selection, page, room = read_selection(violations, request)
        async with self._database.transaction() as connection:
            view = await CustomerView.open(
                connection, current_organization().organization_id, customer_id, self._clock.now()
            )
            try:
                found = await view.get(alert_id, selection, GaugeWindow(page.limit, _after(page)))
            except GaugeGone:
                raise invalid_page_token() from None
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        if selection.subscription_id is not None and not found.definition.condition.condition_type.per_subscription:
            violations.add("subscription_id", "the alert measures customers, not subscriptions: leave it unset")
            violations.raise_if_any()
        following = list(found.gauges)
        if found.totals is None:
            following = await _following(current_organization().organization_id, found.gauges, page)
        slices = Slices(current_organization().organization_id)
        slices.begin_at_once()
        shown = await customer_alert_message(found, slices, room, following[: page.size])
        count = len(shown.gauges)
        shown.gauges_truncated = len(following) > count
        if not shown.gauges_truncated or not count:
            return messages.GetCustomerAlertResponse(customer_alert=shown)
        last = following[count - 1]
        token = page.token((int(position_of(last).is_other), last.gauge.gauge_id.hex))
        return messages.GetCustomerAlertResponse(customer_alert=shown, next_page_token=token)

    async def ListCustomerAlerts(
        self, request: messages.ListCustomerAlertsRequest, context: Context
    ) -> messages.ListCustomerAlertsResponse:
        """A page of the alerts that cover one customer, the oldest first; or of the alerts of many customers."""
        if not request.customer_id:
            return await self._list_of_many(request)
        violations = Violations()
        for path in ("customer_ids", "alert_ids"):
            if getattr(request, path):
                violations.add(path, "it is a filter for many customers: leave it unset, or leave customer_id unset")
        customer_id = violations.identifier("customer_id", request.customer_id)
        states = read_states(violations, "states", request.states) or _NOT_ARCHIVED
        statuses = read_statuses(violations, request.statuses)
        bound_to = (customer_id, *sorted(set(states)), *canonical_numbers(request.statuses))
        page = read_page(violations, request.page_size, request.page_token, "ListCustomerAlerts", bound_to, BY_TIME)
        room = read_room(violations, request.max_answer_bytes)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
            read = functools.partial(
                view.list_page, states, max_gauges=self._page_gauges, most_examined=self._most_examined
            )
            found, following = await _of_customer(read, statuses, page, is_filtered=bool(request.statuses))
        shown = await _shown(organization_id, found, room)
        answer = messages.ListCustomerAlertsResponse()
        fitting = (await page.cut_into(answer.customer_alerts, shown, room)).size
        if fitting < len(found):
            following = _age(found[fitting - 1].definition)
        answer.next_page_token = "" if following is None else page.token(following)
        return answer

    async def SummarizeCustomerAlerts(
        self, request: messages.SummarizeCustomerAlertsRequest, context: Context
    ) -> messages.SummarizeCustomerAlertsResponse:
        """The number of customers in alarm, for each alert."""
        violations = Violations()
        narrowed = read_narrowed(violations, request)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            found = await alarms.totals(
                connection, current_organization().organization_id, narrowed, self._clock.now()
            )
        return messages.SummarizeCustomerAlertsResponse(
            alerts=[
                customer_alert_pb2.CustomerAlertSummary(
                    alert_id=one.alert_id,
                    alert_display_name=one.name,
                    gauge_count=one.gauge_count,
                    customer_count=one.customer_count,
                    evaluating=one.evaluating,
                )
                for one in found.alerts
            ],
            customer_count=found.customer_count,
            truncated=found.truncated,
        )

    async def _list_of_many(self, request: messages.ListCustomerAlertsRequest) -> messages.ListCustomerAlertsResponse:
        violations = Violations()
        narrowed = read_narrowed(violations, request)
        states = read_states(violations, "states", request.states) or _NOT_ARCHIVED
        statuses = read_statuses(violations, request.statuses)
        bound_to = (
            "many",
            "\n".join(sorted(set(narrowed.customer_ids))),
            "\n".join(sorted(set(narrowed.alert_ids))),
            ",".join(sorted(set(states))),
            ",".join(canonical_numbers(request.statuses)),
        )
        page = read_page(
            violations, request.page_size, request.page_token, "ListCustomerAlerts", bound_to, CURSOR_OF_MANY
        )
        after = after_entry(violations, page)
        room = read_room(violations, request.max_answer_bytes)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            entries, following = await customer_alert_lists.page(
                connection,
                organization_id,
                ListFilter(narrowed, states, statuses),
                self._clock.now(),
                after=after,
                room=PageRoom(page.size, self._page_gauges, self._most_examined),
            )
        shown = await _shown(organization_id, [entry.found for entry in entries], room)
        answer = messages.ListCustomerAlertsResponse()
        fitting = (await page.cut_into(answer.customer_alerts, shown, room)).size
        if fitting < len(entries):
            following = entries[fitting - 1].cursor
        answer.next_page_token = token_after(page, following)
        return answer


async def _shown(
    organization_id: int, found: Sequence[CustomerAlert], room: int
) -> list[customer_alert_pb2.CustomerAlert]:
    """The messages of a page, made in slices."""
    shown, slices = list[customer_alert_pb2.CustomerAlert](), Slices(organization_id)
    for one in found:
        await slices.pause()
        shown.append(await customer_alert_message(one, slices, room))
    return shown


def _after(page: Page) -> tuple[bool, UUID] | None:
    """The gauge after which a page begins. Raises InvalidArgument."""
    match page.after:
        case (int() as is_other, str() as gauge_id):
            try:
                return bool(is_other), UUID(hex=gauge_id)
            except ValueError:  # a forged token
                raise invalid_page_token() from None
    return None


async def _following(organization_id: int, gauges: Sequence[GaugeState], page: Page) -> list[GaugeState]:
    """The gauges of the page in order, and one more if there is one.

    Raises InvalidArgument if the last gauge of the page before is gone, for example because its period has ended.
    """
    slices, after = Slices(organization_id), None
    await slices.begin()
    match page.after:
        case (int() as is_other, str() as gauge_id):
            for item in gauges:
                if item.gauge.gauge_id.hex == gauge_id:
                    # As it was then: a gauge that has changed since does not move the end of the page before.
                    after = position_of(item)._replace(is_other=bool(is_other))
                    break
                await slices.pause()
            else:
                raise invalid_page_token()
    return await first_in_order(gauges, page.limit, slices, after)


async def _of_customer(
    read: Callable[..., Awaitable[AlertsOfCustomer]],
    statuses: Sequence[CustomerAlertStatus | None],
    page: Page,
    *,
    is_filtered: bool,
) -> tuple[list[CustomerAlert], tuple[datetime, str] | None]:
    """The alerts of one customer for a page, and after which alert the next one continues; None at the end.

    read: `list_page` of the customer's view. Without a filter by status, the first read fills the page, or ends it
    because its alerts have many gauges.
    """
    found: list[CustomerAlert] = []
    after = after_time_and_id(page)
    limit = max(page.limit, ALERTS_READ) if is_filtered else page.limit
    for _ in range(MAX_READS):
        part = await read(after=after, limit=limit)
        for number, one in enumerate(part.alerts):
            if one.status not in statuses:
                continue
            if len(found) == page.size:
                return found, _age(part.alerts[number - 1].definition) if number else after
            found.append(one)
        after = part.following
        if after is None or part.is_short or len(found) == page.size:
            break
    return found, after


def _age(definition: AlertDefinition) -> tuple[datetime, str]:
    return definition.create_time, definition.alert_id
