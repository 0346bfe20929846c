"""What a server must not do with bad requests: fail, or show its inside."""

import re
from collections import Counter
from dataclasses import dataclass, field

import grpc

MOST_SHOWN = 20  # findings

# Answers with these codes are faults of the service, whatever was sent.
FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
# Sent by gRPC itself, and so without a google.rpc.Status of Tidemark.
BY_GRPC = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})

# Text of the inside: statements, names of Python and its modules, paths, addresses of objects.
_INSIDE = re.compile(
    rb"SELECT\s|INSERT INTO|UPDATE \w+ SET|psycopg|sqlalchemy|Traceback|\.py\b|site-packages|/home/|/usr/"
    rb"|(?:Key|Value|Type|Attribute|Index|Assertion|Runtime|Unicode\w*|Recursion|Overflow)Error|NoneType"
    rb"|object at 0x|google\.protobuf\.|pg_catalog|relation \"|duplicate key"
)


@dataclass(slots=True)
class Findings:
    """The codes of all answers, and what was wrong."""

    codes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    requests: int = 0

    def add(self, problem: str) -> None:
        """Notes a problem; the first ones are shown."""
        if len(self.problems) < MOST_SHOWN:
            self.problems.append(problem)

    def note_answer(self, path: str) -> None:
        """Notes that a call was answered."""
        self.requests += 1
        self.codes["OK"] += 1

    def note_error(self, path: str, error: grpc.aio.AioRpcError, sent: bytes) -> None:
        """Notes how a call ended, and checks its status."""
        self.requests += 1
        code = error.code()
        self.codes[code.name] += 1
        where = f"{path}: {code.name} {error.details()!r} after {sent[:400]!r}"
        if code in FAULTS and not _is_of_client(error):
            self.add(f"a fault: {where}")
        details = b" ".join(
            value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata() or ()
        )
        self.check_text(where, (error.details() or "").encode() + details, sent)

    def note_bytes(self, what: str, answer: bytes, sent: bytes) -> None:
        """Notes the answer to bytes that are no call."""
        self.requests += 1
        self.codes["bytes"] += 1
        self.check_text(what, answer, sent)

    def check_text(self, where: str, answer: bytes, sent: bytes) -> None:
        """Notes text of the inside, unless it was sent itself."""
        found = _INSIDE.search(answer)
        if found is not None and found[0] not in sent:
            self.add(f"text of the inside, {found[0]!r}: {where}")


def _is_of_client(error: grpc.aio.AioRpcError) -> bool:
    """Whether the client's own library made the error, and not the server.

    A stream that the server refuses before its first message is sent ends with "Internal error from Core".
    """
    return any(text in (error.details() or "") for text in ("Exception deserializing", "Internal error from Core"))
