"""CloudEvents of files: each is read as the HTTP gateway reads it, whatever its shape and its values are."""

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.replay.cloud_events import of_cloud_events
from cli.replay.mapping import RowProblem
from cli.replay.rows import Row
from gateway.cloudevents.events import structured
from gateway.cloudevents.mapping import Mapping, default_mapping, parse_mapping
from generated.tidemark.v1.usage_pb2 import UsageEvent

RULES = {
    "rules": [
        {
            "types": ["llm.*"],
            "metric_id": {"value": "tokens"},
            "customer_id": "data.account",
            "quantity": "data.usage.tokens",
            "properties": {"model": "data.model", "region": {"path": "region", "default": "eu"}},
        },
        {
            "types": ["raw*"],
            "event_name": "type",
            "event_time": "data.at",
            "quantity": {"path": "data.n", "default": "1"},
            "properties": {"zone": {"path": "zone", "default": ""}, "kind": {"value": "raw"}},
            "other_data": False,
        },
        {},
    ]
}
MAPPINGS = {"convention": default_mapping(), "rules": parse_mapping(RULES)}
TIMES = st.sampled_from(
    [*["2026-03-01T10:00:00Z", "2026-03-01T10:00:00.123456789+02:00", "0001-01-01T00:00:00Z"] * 4, "10 o'clock", ""]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(
    TEXTS, st.integers(-(10**30), 10**30), st.decimals(allow_nan=False), st.booleans(), st.none(), TIMES
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(TEXTS, SCALARS, max_size=2))
# Mostly what a correct event has, so that most examples are read in full.
ATTRIBUTES = {
    "specversion": st.sampled_from(["1.0"] * 9 + ["0.3"]),
    "id": st.sampled_from([*["e-1", "e-2"] * 9, "", 5]),
    "source": st.sampled_from([*["/a", "/b"] * 9, ""]),
    "type": st.sampled_from([*["requests", "llm.answer", "raw"] * 5, ""]),
    "subject": st.one_of(st.just("acme"), st.just("globex"), TEXTS, SCALARS),
    "time": TIMES,
}
OPTIONAL = {
    "datacontenttype": st.sampled_from(["application/json", "text/plain", "application/x+json", 3]),
    "region": SCALARS,
    "zone": SCALARS,
    "data_base64": st.just("e30="),
}
DATA = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "account": st.one_of(st.just("acme"), SCALARS),
            "usage": st.one_of(st.fixed_dictionaries({"tokens": SCALARS}), SCALARS),
            "quantity": SCALARS,
            "n": SCALARS,
            "at": TIMES,
            "cost": SCALARS,
            "model": VALUES,
            "region": SCALARS,
            "other": VALUES,
        },
    ),
    VALUES,
)
EVENTS = st.fixed_dictionaries(ATTRIBUTES, optional={**OPTIONAL, "data": DATA})


def by_the_gateway(mapping: Mapping, event: dict[str, Any], shift: int) -> UsageEvent | str:
    """The usage event, or what is wrong."""
    arguments, problems = mapping.arguments(structured(deepcopy(event)))
    if problems:
        return f"{problems[0].path}: {problems[0].description}"
    arguments["event_time"]["seconds"] += shift * 86_400
    return UsageEvent(**arguments)


@pytest.mark.parametrize("name", sorted(MAPPINGS))
def test_an_event_is_read_as_the_gateway_reads_it(name: str) -> None:
    mapping, to_event = MAPPINGS[name], of_cloud_events(MAPPINGS[name], 2)
    read = 0

    @given(EVENTS)
    def check(event: dict[str, Any]) -> None:
        nonlocal read
        expected = by_the_gateway(mapping, event, 2)
        try:
            found: UsageEvent | str = UsageEvent.FromString(to_event(Row(1, 1, deepcopy(event))).content)
        except RowProblem as error:
            found = str(error)
        assert found == expected
        read += isinstance(found, UsageEvent)

    check()
    assert read > 5


def test_numbers_of_data_keep_all_their_digits() -> None:
    event = {
        "specversion": "1.0",
        "id": "e",
        "source": "/a",
        "type": "calls",
        "subject": "acme",
        "time": "2026-03-01T10:00:00Z",
        "data": {
            "quantity": Decimal("12345678901234567890.000000000000000001"),
            "cost": 10**25,
            "rate": Decimal("1E-7"),
        },
    }
    encoded = of_cloud_events(default_mapping(), 0)(Row(1, 1, event))
    found = UsageEvent.FromString(encoded.content)
    assert (found.quantity, found.cost) == ("12345678901234567890.000000000000000001", "10000000000000000000000000")
    assert dict(found.properties) == {"rate": "0.0000001"}
    assert encoded.seconds == found.event_time.seconds
