"""AlertService: how much the organization does at present."""

from datetime import timedelta

from engine.activity import INTERVAL, last_complete
from generated.tidemark.v1 import activity_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import Clock
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from store.usage import activity

SHOWN = 60  # intervals of usage


class ActivityHandlers:
    """Serves GetActivity. It reads some rows by index, whatever the organization has."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def GetActivity(
        self, request: messages.GetActivityRequest, context: Context
    ) -> messages.GetActivityResponse:
        """The activity of the organization."""
        organization_id, now = current_organization().organization_id, self._clock.now()
        last = last_complete(now)
        starts = [last - INTERVAL * number for number in range(SHOWN - 1, -1, -1)]
        async with self._database.transaction() as connection:
            counted = await activity.read(connection, organization_id, starts[0], last + INTERVAL)
            hours, truncated = await activity.notifications(connection, organization_id, now)
            waiting = await activity.waiting(connection, organization_id)
        found = activity_pb2.Activity(
            read_time=to_timestamp(now),
            notifications_truncated=truncated,
            waiting_delivery_count=waiting.count,
            oldest_due_time=None if waiting.oldest_due is None else to_timestamp(waiting.oldest_due),
        )
        for start in starts:
            one = counted.get(start, activity.Counted())
            shown = found.usage.add(
                start_time=to_timestamp(start), event_count=one.events, transition_count=one.transitions
            )
            if one.events:
                shown.wait.FromTimedelta(timedelta(seconds=max(one.wait, 0.0) / one.events))
        for hour in hours:
            found.notifications.add(
                start_time=to_timestamp(hour.start),
                reached_count=hour.reached,
                resolved_count=hour.resolved,
                other_count=hour.other,
            )
        return messages.GetActivityResponse(activity=found)
