"""The mapping of CloudEvents: rules of a file, and the identity of an event."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cloudevents.events import CloudEvent
from gateway.cloudevents.mapping import BadMapping, default_mapping, event_id, load_mapping, parse_mapping

TIME = "2026-03-15T12:00:00Z"


def event(data: Any = None, **attributes: Any) -> CloudEvent:
    stated = {"specversion": "1.0", "id": "1", "source": "/s", "type": "calls", "subject": "acme", "time": TIME}
    return CloudEvent({**stated, **attributes}, data, [])


def test_the_convention() -> None:
    data = {
        "quantity": "2",
        "cost": "0.1",
        "currency": "USD",
        "subscription_id": "s",
        "model": "m",
        "n": 7,
        "ok": True,
    }
    found, problems = default_mapping().arguments(event({**data, "nested": {}, "list": [], "none": None}))
    assert problems == []
    assert found == {
        "event_id": event_id("/s", "1"),
        "metric_id": "calls",
        "customer_id": "acme",
        "subscription_id": "s",
        "quantity": "2",
        "cost": "0.1",
        "currency": "USD",
        "event_time": {"seconds": 1_773_576_000, "nanos": 0},
        "properties": {"model": "m", "n": "7", "ok": "true"},
    }


@pytest.mark.parametrize("data", [None, "text", 7, [], True])
def test_data_that_is_no_object_has_no_members(data: Any) -> None:
    found, problems = default_mapping().arguments(event(data))
    assert (found["quantity"], problems) == ("1", [])
    assert "properties" not in found


def test_two_events_have_one_id_only_if_source_and_id_are_the_same() -> None:
    texts = ("", "a", "b", "ab", "1", "1:", "1:a", ":", "é", "\ud800", "x" * 500)
    pairs = [(source, number) for source in texts for number in texts]
    ids = {event_id(*pair) for pair in pairs}
    assert len(ids) == len(pairs)
    assert {len(one) for one in ids} == {46}


def test_the_id_never_changes() -> None:
    # Events that were counted before an upgrade count once after it.
    assert event_id("/shop", "e-1") == "ce_NIrDur_9FI9iC4k4JN1eCPESNsXCGJVuYWwjpF8qwXI"


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ([], "no mapping"),
        ({}, "no mapping"),
        ({"rules": []}, "no mapping"),
        ({"rules": [{}], "more": 1}, "no mapping"),
        ({"rules": [7]}, r"rules\[0\] is no object"),
        ({"rules": [{}, {"customer": "subject"}]}, r"rules\[1\] has 'customer'"),
        ({"rules": [{"types": "x"}]}, "list of patterns"),
        ({"rules": [{"types": []}]}, "list of patterns"),
        ({"rules": [{"quantity": 7}]}, "must be a path"),
        ({"rules": [{"quantity": ""}]}, "must be a path"),
        ({"rules": [{"quantity": "data..x"}]}, "must be a path"),
        ({"rules": [{"quantity": {"default": "1"}}]}, "must be a path"),
        ({"rules": [{"quantity": {"value": 1}}]}, "must be a path"),
        ({"rules": [{"quantity": "subject.x"}]}, "no members"),
        ({"rules": [{"properties": []}]}, "no object"),
        ({"rules": [{"other_data": "no"}]}, "true or false"),
    ],
)
def test_a_mapping_that_is_wrong_is_refused_with_the_place(stated: Any, problem: str) -> None:
    with pytest.raises(BadMapping, match=problem):
        parse_mapping(stated)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    with pytest.raises(BadMapping, match="cannot be read"):
        load_mapping(path)
    path.write_text("{")
    with pytest.raises(BadMapping, match="is not JSON"):
        load_mapping(path)
    path.write_text('{"rules": []}')
    with pytest.raises(BadMapping, match=str(path)):
        load_mapping(path)
    path.write_text(json.dumps({"rules": [{"customer_id": {"path": "tenant", "default": "nobody"}}]}))
    mapping = load_mapping(path)
    assert mapping.arguments(event())[0]["customer_id"] == "nobody"
    assert mapping.arguments(event(tenant="acme"))[0]["customer_id"] == "acme"


def test_rules_are_tried_in_their_order() -> None:
    mapping = parse_mapping(
        {
            "rules": [
                {"types": ["a.*"], "metric_id": {"value": "one"}},
                {"types": ["a.b"], "metric_id": {"value": "two"}},
            ]
        }
    )
    assert mapping.arguments(event(type="a.b"))[0]["metric_id"] == "one"
    assert [one.path for one in mapping.arguments(event(type="c"))[1]] == ["type"]
