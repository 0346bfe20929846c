"""The digest of a reservation's request: a repeated request must have the same content."""

from datetime import timedelta
from hashlib import blake2b

import orjson

from engine.enforcement.requests import Reserve
from evaluator.amounts import format_decimal

MICROSECOND = timedelta(microseconds=1)
_DIGEST_BYTES = 16


def digest_of(request: Reserve) -> str:
    """A digest of all that the caller chose, in 32 hexadecimal digits; the same in every version.

    Equal amounts are the same content, however they are written, and so are equal times.
    """
    usage = request.usage
    content = [
        usage.metric_id,
        format_decimal(usage.quantity),
        None if usage.cost is None else format_decimal(usage.cost),
        usage.currency,
        usage.subscription_id,
        usage.properties,
        usage.event_time,
        request.policy.value,
        request.expire_time,
        None if request.ttl is None else request.ttl // MICROSECOND,
    ]
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).hexdigest()
