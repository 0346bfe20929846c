"""Events that are put together by hand are those that protobuf encodes."""

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cli.replay import encoding
from cli.replay.row_ids import row_id
from evaluator.ids import digest_id
from generated.tidemark.v1.usage_pb2 import UsageEvent

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(TEXTS, TEXTS, st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
def test_an_event_is_encoded_as_protobuf_does(name: str, value: str, seconds: int, nanos: int) -> None:
    content = b"".join(
        (
            encoding.field(encoding.EVENT_ID, name),
            encoding.optional(encoding.CUSTOMER, value),
            encoding.optional(encoding.COST, ""),
            encoding.time(seconds, nanos),
            encoding.entry(encoding.prefix(name), value),
            encoding.entry(encoding.prefix("long"), value * 20),
            encoding.field(encoding.NAME, value),
        )
    )
    event = UsageEvent(
        event_id=name,
        customer_id=value,
        event_time=Timestamp(seconds=seconds, nanos=nanos),
        properties={"long": value * 20} | {name: value},
        event_name=value,
    )
    assert UsageEvent.FromString(content) == event
    assert len(content) == event.ByteSize() or name == "long"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_is_the_digest_that_other_parts_write(text: str) -> None:
    assert row_id(text) == digest_id("row_", text, size=15)
