"""Finds the caller of each call by its API key, checks its role, and ends streams that the key allows no more."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from generated.tidemark.v1 import error_reason_pb2
from server.authentication.access import check_role
from server.authentication.api_keys import Authenticator
from server.authentication.certificates import TrustedProxies, certificate_of
from server.calls import current_call, errors
from server.calls.context import Context, when_over
from server.calls.tracebacks import free_after_call
from server.interceptors.wrapping import Around

METADATA_KEY = "authorization"

logger = logging.getLogger(__name__)


class Authenticate(Around):
    """Sets the caller of every call of the API from its `authorization` metadata, or from its client certificate."""

    def __init__(self, authenticator: Authenticator, proxies: TrustedProxies) -> None:
        """proxies: the peers that may say by which certificate a client has identified itself."""
        self._authenticator = authenticator
        self._proxies = proxies
        self._ending = set[asyncio.Task[None]]()  # references, so that Python does not collect tasks that wait

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Identifies the caller, and checks its role, before a byte of the request is decoded."""
        call, certificate = current_call.get(), None
        if not call.is_infrastructure:
            try:
                if call.is_unknown_socket:
                    raise errors.Unauthenticated(
                        error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
                        "only the server itself makes calls through this socket: use its port",
                    )
                certificate = certificate_of(context, self._proxies, call.forwarded)
                if certificate is not None and certificate.identities:
                    call.client_identity = certificate.identities[0]
                call.caller = await self._authenticator.identify(_authorization(context), certificate)
                check_role(call.caller, method)
            except Exception as error:
                await errors.abort(context, error)
        if call.caller is None or not streaming:
            yield  # a unary call is too short to be cut
            return
        call.stream = stream = self._authenticator.open_stream(call.caller, method, certificate)
        answered = False

        def over(_: object) -> None:
            self._authenticator.streams.close(stream)
            call.stream = None  # it refers to the task, and the context of the task to the call
            if stream.cut and stream.refusal is not None and not answered:
                # gRPC's own write was cancelled, and gRPC sends no status then: the client would wait for ever.
                ending = asyncio.create_task(_send_refusal(context, stream.refusal), name="revoked")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)

        when_over(over)
        try:
            yield
            answered = True
        except asyncio.CancelledError:
            if not stream.cut or stream.refusal is None:
                raise
            answered = True
            stream.task.uncancel()
            await errors.abort(context, stream.refusal)
        except Exception:
            answered = True  # with the status of the exception
            raise
        finally:
            self._authenticator.streams.close(stream)


def _authorization(context: Context) -> str | None:
    """The `authorization` metadata of a call; None without any.

    Two different values are as good as an empty one, which is refused: chance would decide for which organization the
    call acts.
    """
    sent = [value for key, value in context.invocation_metadata() or () if key == METADATA_KEY]
    if len(set(sent)) > 1:
        return ""
    return str(sent[0]) if sent else None


async def _send_refusal(context: Context, refusal: Exception) -> None:
    """Ends a call whose handler has ended. Waits until the client has read the messages before it, or has gone."""
    try:
        await errors.abort(context, refusal)
    except Exception as error:  # gRPC raises one of its own after an abort
        free_after_call(error)
        logger.debug("a cut stream has ended: %r", error)
