"""The limits of the HTTP port that have no setting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Tests pass smaller values than the defaults.

    header_bytes: of the request line, and of one header. headers: in one request. idle: seconds that a connection may
    take to send the head of a request, from its begin or from the end of the last answer. body: seconds that a body
    may take to arrive. write: seconds that a client may take to accept a part of an answer. linger: seconds in which
    the rest of a body is read that is not needed, so that its client gets the answer. plain_body: bytes of a body
    that is read before its caller is known. large_bodies: bodies above that, which are read at the same time.
    gzip_from: bytes of an answer that is compressed. streams_per_channel: of one connection to the server behind;
    gRPC lets further calls wait.
    """

    header_bytes: int = 16_384
    headers: int = 100
    idle: float = 60.0
    body: float = 30.0
    write: float = 60.0
    linger: float = 2.0
    plain_body: int = 65_536
    large_bodies: int = 32
    gzip_from: int = 1_024
    streams_per_channel: int = 500


DEFAULT_HTTP_LIMITS = HttpLimits()
