"""A gateway in front of a model, with the Python client: usage is reserved before the work, and settled afterwards.

`AsyncGuard` repeats, extends, settles in the background, and decides by itself while Tidemark is away. See
docs/enforcement.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tidemark_client import AsyncGuard

METRIC = "tokens"
MAX_TOKENS = 1_000  # of one answer


@dataclass(frozen=True)
class Completion:
    """What the model answers. tokens: how many it took."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Response:
    """What the gateway answers, as HTTP has it. retry_after: seconds, where waiting helps."""

    status: int
    text: str = ""
    retry_after: float | None = None


Model = Callable[[str, int], Awaitable[Completion]]  # the prompt, and how many tokens the answer may take


async def complete(guard: AsyncGuard, customer_id: str, prompt: str, model: Model) -> Response:
    """Answers a prompt, if the customer has the tokens for it."""
    async with guard.reserve(customer_id, METRIC, MAX_TOKENS) as hold:
        if not hold.allowed:
            # Tidemark has refused; or it is away, and the guard fails closed.
            return Response(429 if hold.decided else 503, retry_after=hold.retry_after)
        completion = await model(prompt, int(hold.quantity))
        hold.settle(completion.tokens)
    return Response(200, completion.text)
