"""The event that a webhook reports, read from its body."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class ReportedTransition:
    """One threshold that was reached or resolved.

    kind: REACHED or RESOLVED. level: of the threshold. code: the caller's.

    fields: all of it as it came.
    """

    kind: str
    level: Decimal
    value: Decimal
    code: str
    severity: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class WebhookEvent:
    """One event. Ignore an id that you have seen before: delivery is at least once.

    id: as in the header webhook-id. type: such as `alert.reached`; new ones may be added. time: when it was found.
    data: what happened, as docs/events describes it; new fields may be added.
    """

    id: str
    type: str
    time: datetime
    data: Mapping[str, Any]

    @classmethod
    def parse(cls, webhook_id: str, body: bytes) -> WebhookEvent:
        """The event of a body that was verified. Raises ValueError."""
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON ({error})") from None
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        kind, time, data = found.get("type"), found.get("timestamp"), found.get("data")
        if not isinstance(kind, str) or not isinstance(time, str) or not isinstance(data, dict):
            raise ValueError("type, timestamp or data is missing")
        # The header is signed, as the body is; they say the same.
        return cls(str(found.get("id", webhook_id)), kind, parse_time(time), data)

    @property
    def is_test(self) -> bool:
        """Whether it is an example, and nothing has happened."""
        return self.data.get("test") is True

    @property
    def alert_id(self) -> str:
        """The alert; empty if the event is about something else."""
        return self._text("alert_id")

    @property
    def customer_id(self) -> str:
        """The customer; empty if the event is about no single one."""
        return self._text("customer_id")

    @property
    def sequence(self) -> int:
        """The number of the event among those of the same alert and gauge: the higher one is newer.

        0: it has none.
        """
        found = self.data.get("sequence", 0)
        return int(found) if isinstance(found, (int, str)) else 0

    @property
    def value(self) -> Decimal | None:
        """The value of the gauge; None if the event is not about a gauge."""
        return _decimal(self.data.get("value"))

    @property
    def previous_value(self) -> Decimal | None:
        """The value before; None if the event is not about a gauge."""
        return _decimal(self.data.get("previous_value"))

    @property
    def transitions(self) -> Sequence[ReportedTransition]:
        """The thresholds that were reached or resolved, in order."""
        found = self.data.get("transitions", ())
        return [_transition(one) for one in found if isinstance(one, dict)]

    def _text(self, name: str) -> str:
        found = self.data.get(name)
        return found if isinstance(found, str) else ""


def parse_time(text: str) -> datetime:
    """A time of a body. Raises ValueError."""
    time = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _transition(fields: Mapping[str, Any]) -> ReportedTransition:
    threshold = fields.get("threshold")
    given = threshold if isinstance(threshold, dict) else {}
    return ReportedTransition(
        kind=str(fields.get("kind", "")),
        level=_decimal(fields.get("level")) or Decimal(0),
        value=_decimal(fields.get("value")) or Decimal(0),
        code=str(given.get("code", "")),
        severity=str(given.get("severity", "")),
        fields=fields,
    )


def _decimal(text: object) -> Decimal | None:
    return Decimal(text) if isinstance(text, str) and text else None
