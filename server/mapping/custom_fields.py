"""Custom fields that callers attach to what they send: checked, and kept as they are."""

from collections.abc import Mapping

from server.calls.validation import MAX_ID_LENGTH, Violations, id_problem

MAX_CUSTOM_FIELDS = 64  # of one thing
MAX_CUSTOM_FIELD_LENGTH = 256  # characters of a value


def read_custom_fields(violations: Violations, path: str, sent: Mapping[str, str]) -> dict[str, str]:
    """The custom fields that were sent; a violation names the field that is wrong."""
    if len(sent) > MAX_CUSTOM_FIELDS:
        violations.add(path, f"there are {len(sent)}; at most {MAX_CUSTOM_FIELDS} are kept")
        return {}
    fields = dict(sent)
    # A map has no order on the wire. In sorted order, the same request gets the same answer.
    for key in sorted(fields):
        if (problem := id_problem(key)) is not None:
            violations.add(path, f"the key {key[:MAX_ID_LENGTH]!r}: {problem}")
        else:
            violations.text(f"{path}[{key!r}]", fields[key], max_length=MAX_CUSTOM_FIELD_LENGTH)
    return fields
