"""Resume tokens of the audit log: the number of an entry, for a stream of this organization with the same filters."""

from server.alerts.subscribers.resume_tokens import MAX_TOKEN_LENGTH, invalid_token
from server.calls import tokens
from store.audit.log import AuditFilter, canonical

_VERSION = 1
_MAX_NUMBER = 2**63 - 1


class AuditTokens:
    """Writes and reads the resume tokens of one stream."""

    def __init__(self, wanted: AuditFilter) -> None:
        """For the current organization."""
        self._digest = tokens.digest_of("WatchAuditEntries", list(canonical(wanted)))

    def write(self, number: int) -> str:
        """The token of a stream that has reached that number."""
        return tokens.encode(_VERSION, self._digest, number)

    def read(self, token: str) -> int:
        """The number in a token. Raises InvalidArgument for a token of another stream, and for any other text."""
        match tokens.decode(token, MAX_TOKEN_LENGTH):
            case [int(version), str(digest), int(number)]:
                if version == _VERSION and digest == self._digest and 0 <= number <= _MAX_NUMBER:
                    return number
        raise invalid_token()
