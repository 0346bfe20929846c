"""Gives every organization its share of the server, and no more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.calls import call as calls
from server.calls import errors
from server.calls.shares import CallShares
from server.interceptors.around import Around, Context, when_over

# It uses no connection of its own: its events wait in the pipeline, where each organization has its share.
_USAGE_BATCH = "/tidemark.v1.AlertService/EvaluateUsageBatch"
_USAGE_STREAM = "/tidemark.v1.AlertService/EvaluateUsage"


class Shares(Around):
    """Lets a call wait for its organization's turn, and refuses those that are too many.

    Watchers have shares of their own (`server.alerts.watching.feeds`).
    """

    def __init__(self, shares: CallShares) -> None:
        self._shares = shares

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Runs the call in its organization's share."""
        caller = calls.current().caller
        if caller is None:  # health, reflection
            yield
            return
        organization_id = caller.organization.organization_id
        if streaming:
            if method == _USAGE_STREAM:
                try:
                    stream = self._shares.open_stream(organization_id)
                except errors.ResourceExhausted as error:
                    await errors.abort(context, error)
                # Not in `finally`: a generator that was dropped in the middle of a write runs it only when Python
                # collects it, while gRPC calls back at once.
                when_over(context, lambda _: stream.close())
            yield
            return
        share = self._shares.counted if method == _USAGE_BATCH else self._shares.served
        entered = False
        try:
            async with share(organization_id):
                entered = True
                yield
        except errors.ResourceExhausted as error:
            if entered:
                raise
            await errors.abort(context, error)
