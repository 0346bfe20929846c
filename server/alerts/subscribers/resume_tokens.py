"""Resume tokens: a position in an organization's feed, for a stream of this organization with the same filters."""

from generated.tidemark.v1 import error_reason_pb2
from server.calls import tokens
from server.calls.errors import FieldViolation, InvalidArgument
from store.notifications.feed import NotificationFilter

MAX_TOKEN_LENGTH = 256  # characters

_VERSION = 1
_MAX_POSITION = 2**63 - 1


class ResumeTokens:
    """Writes and reads the resume tokens of one stream."""

    def __init__(self, wanted: NotificationFilter) -> None:
        """For the current organization."""
        # The order of a filter's values does not matter, nor does a repeated value.
        filters = [
            sorted(set(values))
            for values in (wanted.customer_ids, wanted.alert_ids, wanted.condition_types, wanted.event_types)
        ]
        self._digest = tokens.digest_of("WatchNotifications", filters)

    def write(self, position: int) -> str:
        """The token of a stream that has reached that position."""
        return tokens.encode(_VERSION, self._digest, position)

    def read(self, token: str) -> int:
        """The position in a token. Raises InvalidArgument for a token of another stream, and for any other text."""
        match tokens.decode(token, MAX_TOKEN_LENGTH):
            case [int(version), str(digest), int(position)]:
                if version == _VERSION and digest == self._digest and 0 <= position <= _MAX_POSITION:
                    return position
        raise invalid_token()


def invalid_token() -> InvalidArgument:
    """The error for a token that is not a position of this stream."""
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_RESUME_TOKEN_INVALID,
        "the resume token does not belong to this stream: repeat the filters of the request that returned it,"
        " or begin with a start_time",
        violations=[FieldViolation("resume_token", "not a token of this stream")],
    )
