"""The error of a batch of usage when too many events are pending."""

from engine.ingest.pending import Overloaded
from generated.tidemark.v1 import error_reason_pb2
from server.alerts.errors import RETRY_OVERLOAD, overloaded


def test_an_organization_above_its_share_reads_how_much_is_pending() -> None:
    error = overloaded(Overloaded(10, 50))
    assert error.reason == error_reason_pb2.ERROR_REASON_OVERLOADED
    assert error.metadata == {"share_of": "organization", "pending_events": "50"}
    assert error.retry_after == RETRY_OVERLOAD


def test_an_error_of_a_full_server_shows_no_counts_of_others() -> None:
    error = overloaded(Overloaded(20, None))
    assert error.reason == error_reason_pb2.ERROR_REASON_OVERLOADED
    assert error.metadata == {"share_of": "server"}
    assert error.retry_after == RETRY_OVERLOAD
