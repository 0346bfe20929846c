"""Finds out for whom a call acts, and refuses those it cannot tell."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server import calls, errors
from server.identity import Identity
from server.interceptors.around import Around, Context, when_over
from server.open_streams import refusal

METADATA_KEY = "authorization"


class Identify(Around):
    """Sets the caller of every call of the API from its `authorization` metadata."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Identifies the caller before a byte of the request is decoded."""
        call = calls.current()
        if not call.is_infrastructure:
            sent = [value for key, value in context.invocation_metadata() or () if key == METADATA_KEY]
            try:
                # Two different keys in one call would make the organization a matter of chance.
                if len(set(sent)) > 1:
                    sent = [""]
                call.caller = await self._identity.identify(str(sent[0]) if sent else None)
            except Exception as error:
                await errors.abort(context, error)
        if call.caller is None or not streaming:
            yield  # a unary call is over soon
            return
        stream = self._identity.streams.open(call.caller.key_id)
        call.revoked = stream.revoked
        # Not in `finally` only: a generator that was dropped in the middle of a write runs it when it is collected.
        when_over(context, lambda _: self._identity.streams.close(stream))
        try:
            yield
        except asyncio.CancelledError:
            if not stream.cut:
                raise
            stream.task.uncancel()
            await errors.abort(context, refusal(stream.key_id))
        finally:
            self._identity.streams.close(stream)
