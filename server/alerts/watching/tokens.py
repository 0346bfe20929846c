"""Resume tokens: a place in an organization's feed, bound to the organization and to the filters of its stream."""

import base64
import binascii
import hashlib

import orjson

from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import FieldViolation, InvalidArgument
from server.calls.identity import current_organization
from store.notifications.feed import NotificationFilter

MAX_TOKEN_LENGTH = 256  # characters

_VERSION = 1
_DIGEST_BYTES = 12
_MAX_PLACE = 2**63 - 1


class ResumeTokens:
    """Writes and reads the tokens of one stream."""

    def __init__(self, wanted: NotificationFilter) -> None:
        """For the current organization."""
        # The order of a filter's values, and naming one twice, change nothing about what passes.
        filters = [
            sorted(set(values))
            for values in (wanted.customer_ids, wanted.alert_ids, wanted.condition_types, wanted.event_types)
        ]
        bound_to = orjson.dumps([current_organization().organization_id, "WatchNotifications", *filters])
        self._digest = hashlib.sha256(bound_to).digest()[:_DIGEST_BYTES].hex()

    def write(self, place: int) -> str:
        """The token of a stream that has come to that place."""
        return base64.urlsafe_b64encode(orjson.dumps([_VERSION, self._digest, place])).decode().rstrip("=")

    def read(self, token: str) -> int:
        """The place in a token; raises InvalidArgument for one of another stream, or of none at all."""
        try:
            if len(token) > MAX_TOKEN_LENGTH:
                raise ValueError
            padded = token + "=" * (-len(token) % 4)
            parts = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            raise invalid_token() from None
        match parts:
            case [int(version), str(digest), int(place)]:
                if version == _VERSION and digest == self._digest and 0 <= place <= _MAX_PLACE:
                    return place
        raise invalid_token()


def invalid_token() -> InvalidArgument:
    """The refusal of a token that belongs to no place of this stream."""
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_RESUME_TOKEN_INVALID,
        "the resume token does not belong to this stream: repeat the filters of the request that returned it,"
        " or begin with a start_time",
        violations=[FieldViolation("resume_token", "not a token of this stream")],
    )
