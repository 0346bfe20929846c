"""The limits of the HTTP port that have no setting."""

from dataclasses import dataclass

from runtime.http_connections import ConnectionLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits(ConnectionLimits):
    """Tests pass smaller values than the defaults.

    plain_body: bytes of a body that is read before its caller is known. large_bodies: bodies above that, which are
    read at the same time. gzip_from: bytes of an answer that is compressed. streams_per_channel: of one connection to
    the server behind; gRPC lets further calls wait.
    """

    plain_body: int = 65_536
    large_bodies: int = 32
    gzip_from: int = 1_024
    streams_per_channel: int = 500


DEFAULT_HTTP_LIMITS = HttpLimits()
