"""The steps that each peer's script does, with a peer that counts in memory."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.peers.script import Peer, run
from bench.peers.task import Event, Step, Task, write_events


class InMemory(Peer):
    """Counts at once."""

    batch_events = 2
    callers = 1

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._totals: dict[str, int] = {}

    async def open(self) -> None:
        pass

    def encode(self, events: Sequence[Event]) -> Any:
        return events

    async def count(self, caller: int, call: Any) -> None:
        for event in call:
            self._totals[event.customer_id] = self._totals.get(event.customer_id, 0) + event.quantity
            if event.quantity >= self.task.recurring:
                self.reached(event.customer_id)

    async def totals(self) -> dict[str, int]:
        return self._totals

    async def close(self) -> None:
        pass


EVENTS = [
    Event("1", "acme", 1, 0, 0.0),
    Event("2", "bolt", 100, 1, 0.001),
    Event("3", "acme", 2, 2, 0.002),
]


@pytest.fixture
def events(tmp_path: Path) -> str:
    """The path of a file of events."""
    write_events(tmp_path / "events", EVENTS)
    return str(tmp_path / "events")


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: Sequence[Step]) -> list[str]:
    """What a script prints for these steps."""
    task = Task("", "", [], recurring=100, stored=0, steps=steps)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asdict(task)) + "\n"))
    run(InMemory)
    return capsys.readouterr().out.splitlines()


def test_totals_have_the_sum_of_each_customer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: str
) -> None:
    found = printed(monkeypatch, capsys, [Step("send", events), Step("totals")])
    assert json.loads(found[1]) == {"totals": {"acme": 3, "bolt": 100}}


def test_acknowledge_prints_the_first_event_and_the_number_of_each_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: str
) -> None:
    assert printed(monkeypatch, capsys, [Step("acknowledge", events)])[:2] == ["acknowledged 0 2", "acknowledged 2 1"]


def test_rate_begins_no_call_after_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: str
) -> None:
    [line] = printed(monkeypatch, capsys, [Step("rate", events, seconds=0.0)])
    assert json.loads(line)["events"] == 2


def test_pace_has_a_delay_for_each_event_that_reaches_a_threshold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: str
) -> None:
    [line] = printed(monkeypatch, capsys, [Step("pace", events)])
    found = json.loads(line)
    assert len(found["delays"]) == 1
    assert found["missed"] == 0
