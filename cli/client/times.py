"""Times of the contract as datetimes."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def to_datetime(timestamp: Timestamp) -> datetime:
    """The aware UTC time of a protobuf timestamp."""
    time: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return time
