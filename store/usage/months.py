"""Calendar months (UTC) in statements about events.

PostgreSQL adds a month to a time with a zone in the TimeZone of the session. In New York, March begins (UTC) in the
evening of 28 February, and a month later it is 28 March. Sessions of Tidemark set UTC. Those that the nodes of a
cluster open to one another have the TimeZone of the node, so statements calculate with times without a zone.
"""

_START = "date_trunc('month', {time} AT TIME ZONE 'UTC')"


def in_month_of(time: str) -> str:
    """A condition that the time of a row `e` is in the calendar month of another. time: an SQL expression."""
    start = _START.format(time=time)
    return (
        f"e.event_time >= {start} AT TIME ZONE 'UTC'"
        f" AND e.event_time < ({start} + interval '1 month') AT TIME ZONE 'UTC'"
    )
