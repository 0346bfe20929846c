"""Finds out for whom a call acts, and refuses those it cannot tell."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.calls import call as calls
from server.calls import errors
from server.calls.identity import Identity
from server.calls.open_streams import OpenStream, refusal
from server.interceptors.around import Around, Context, when_over

METADATA_KEY = "authorization"

logger = logging.getLogger(__name__)


class Identify(Around):
    """Sets the caller of every call of the API from its `authorization` metadata."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._telling = set[asyncio.Task[None]]()  # or they would be collected while they wait

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
        answered = False

        # Not in `finally` only: a generator that was dropped in the middle of a write runs it when it is collected.
        def over(_: Context) -> None:
            self._identity.streams.close(stream)
            if stream.cut and not answered:
                # It was cut in gRPC's own write, which sends no status then: the client would wait for ever.
                telling = asyncio.create_task(_tell(context, stream), name="revoked")
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

        when_over(context, over)
        try:
            yield
            answered = True
        except asyncio.CancelledError:
            if not stream.cut:
                raise
            answered = True
            stream.task.uncancel()
            await errors.abort(context, refusal(stream.key_id))
        except Exception:
            answered = True  # with the status of what was raised
            raise
        finally:
            self._identity.streams.close(stream)


async def _tell(context: Context, stream: OpenStream) -> None:
    """Ends a call whose handler is gone; waits until its client has read what was sent before, or has gone."""
    try:
        await errors.abort(context, refusal(stream.key_id))
    except Exception as error:  # also gRPC's own, by which a handler learns that it was ended
        logger.debug("a cut stream has ended: %r", error)
