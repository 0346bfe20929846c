"""Labels: the caller's own keys and values on definitions, by which lists are filtered."""

import re
from collections.abc import Mapping

from server.calls.validation import Violations

MAX_LABELS = 64  # of one definition
MAX_LABEL_KEY = 63  # characters
MAX_LABEL_VALUE = 256  # characters

_KEY = re.compile(r"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?", re.ASCII)


def read_labels(violations: Violations, path: str, sent: Mapping[str, str]) -> dict[str, str]:
    """The labels of a definition, or of a filter."""
    if len(sent) > MAX_LABELS:
        violations.add(path, f"there are {len(sent)}; at most {MAX_LABELS} are kept")
        return {}
    # A map has no order on the wire. In sorted order, the same request gets the same answer.
    for key in sorted(sent):
        at = f"{path}[{key[:MAX_LABEL_KEY]!r}]"
        if len(key) > MAX_LABEL_KEY or not _KEY.fullmatch(key):
            violations.add(
                at,
                f"a key has 1 to {MAX_LABEL_KEY} lower-case letters, digits and _ . -, and begins and ends with a"
                " letter or a digit",
            )
        else:
            violations.text(at, sent[key], max_length=MAX_LABEL_VALUE)
    return dict(sent)
