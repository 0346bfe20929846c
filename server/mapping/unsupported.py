"""Fields that the contract has and this version of the service does not act on: refused, never ignored."""

from generated.tidemark.v1 import error_reason_pb2
from server.errors import FieldViolation, Unimplemented

_WHY = "this version of the service does not act on it; leave it unset"


class Unsupported:
    """The fields of one request that ask for what the service does not do."""

    def __init__(self) -> None:
        self._paths: list[str] = []

    def add(self, path: str) -> None:
        """Notes that the field at `path` is set."""
        self._paths.append(path)

    def raise_if_any(self) -> None:
        """Raises Unimplemented with every field noted, or does nothing when there is none."""
        if not self._paths:
            return
        more = f" (and {len(self._paths) - 1} more)" if len(self._paths) > 1 else ""
        raise Unimplemented(
            error_reason_pb2.ERROR_REASON_FIELD_NOT_SUPPORTED,
            f"{self._paths[0]}: {_WHY}{more}",
            metadata={"field": self._paths[0]},
            violations=[FieldViolation(path, _WHY) for path in self._paths],
        )
