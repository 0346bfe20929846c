"""The span of an attempt, by OpenTelemetry's conventions for HTTP clients. It continues the notification's trace."""

from urllib.parse import urlsplit

from notifier.sending import Answer
from runtime.tracing import spans
from runtime.tracing.spans import NO_SPAN, Kind, Span, Value
from store.deliveries.claims import Claim
from webhooks.deliveries import AttemptOutcome

_PORTS = {"http": 80, "https": 443}


def begin(claim: Claim) -> Span:
    """The span of an attempt; it records nothing while tracing is off, or if the notification belongs to no trace."""
    if claim.trace is None or not spans.are_recorded():
        return NO_SPAN
    attributes: dict[str, Value] = {
        "http.request.method": "POST",
        "http.request.resend_count": claim.attempt_count,
        "tidemark.organization_id": claim.organization_id,
        "tidemark.endpoint_id": claim.endpoint_id,
        "tidemark.delivery_id": claim.delivery_id,
        "tidemark.notification_id": claim.notification_id,
    }
    # Not the URL: it often carries a token.
    url = urlsplit(claim.endpoint.url)
    if url.hostname is not None:
        attributes |= {
            "url.scheme": url.scheme,
            "server.address": url.hostname,
            "server.port": url.port or _PORTS.get(url.scheme, 0),
        }
    return spans.begin("POST", Kind.CLIENT, claim.trace, attributes=attributes)


def note(span: Span, answer: Answer) -> None:
    """Adds how the attempt ended."""
    if not span.is_recorded:
        return
    if answer.http_status is not None:
        span.note("http.response.status_code", answer.http_status)
    if answer.remote_address:
        span.note("network.peer.address", answer.remote_address)
    if answer.outcome is not AttemptOutcome.DELIVERED:
        status = "" if answer.http_status is None else str(answer.http_status)
        span.fail(status or answer.outcome.lower())
