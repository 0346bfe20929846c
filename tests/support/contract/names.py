"""The ids, tokens, secrets and times of a server's answers, as the examples of docs/api write them.

A server makes them anew in each run. In the examples the first alert is alt_00000000000000000000000001, whatever its
id is in a run, and every token is "…": so the same calls always give the same examples. A time with a fraction of a
second is from the database's clock, which a test cannot set. The first of them is noon in the examples. The others
have the same distance from noon, in hours, as they have from the first.
"""

import re
from datetime import datetime, timedelta
from typing import Any

from tests.support.databases import NOON

_ID = re.compile(r"\b(alt|erased|erj|evt|ntf|rch|rdj|tst|whd|whe)_[0-9a-zA-Z]{26}\b")
_SECRET = re.compile(r"\b(whsec|whpk)_[0-9a-zA-Z+/=]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_OPAQUE = {"etag", "nextPageToken", "resumeToken", "peer", "requestId", "userAgent"}


class Names:
    """Which id of the server has which name in the examples."""

    def __init__(self) -> None:
        self._example_of: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._first_time: datetime | None = None

    def copy(self) -> "Names":
        """The same names; what is seen later is seen by only one of the two."""
        other = Names()
        other._example_of, other._counts = dict(self._example_of), dict(self._counts)
        other._first_time = self._first_time
        return other

    def of_server(self, request: Any) -> Any:
        """A request of the examples with the ids of the server."""
        ids = {example: actual for actual, example in self._example_of.items()}
        return _mapped(request, lambda text, _: _ID.sub(lambda found: ids.get(found[0], found[0]), text))

    def of_examples(self, answer: Any) -> Any:
        """An answer of the server as the examples write it."""
        return _mapped(answer, self._text)

    def _text(self, text: str, key: str) -> str:
        if key in _OPAQUE:
            return "…"
        if _TIME.fullmatch(text):
            return self._time(datetime.fromisoformat(text))
        return _ID.sub(self._example, _SECRET.sub(r"\1_…", text))

    def _time(self, time: datetime) -> str:
        if self._first_time is None:
            self._first_time = time
        hours = round((time - self._first_time) / timedelta(hours=1))
        return f"{NOON + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"

    def _example(self, found: "re.Match[str]") -> str:
        if found[0] not in self._example_of:
            count = self._counts[found[1]] = self._counts.get(found[1], 0) + 1
            self._example_of[found[0]] = f"{found[1]}_{count:026}"
        return self._example_of[found[0]]


def _mapped(value: Any, change: Any, key: str = "") -> Any:
    """The value with each text in it changed; `change` also gets the key under which the text stands."""
    if isinstance(value, dict):
        return {name: _mapped(each, change, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change, key) for each in value]
    return change(value, key) if isinstance(value, str) else value
