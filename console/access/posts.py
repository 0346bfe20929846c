"""The forms that visitors post: read within bounds, before anything of them is believed."""

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiDict, MultiDictProxy

MAX_BYTES = 2 * 1024 * 1024
MAX_GUEST_BYTES = 8 * 1024  # of who has not signed in: a key, and the page to show afterwards
MAX_FIELDS = 8_000  # the largest form of an alert has about 4,000
MAX_GUEST_FIELDS = 20
FORM = "application/x-www-form-urlencoded"

Form = MultiDictProxy[str]


class Unreadable(Exception):
    """The body is not a form of a page of this console."""


async def read_form(request: web.Request, *, is_guest: bool, seconds: float) -> Form:
    """The fields of a posted form. is_guest: its sender has not signed in. seconds: in which it has to arrive.

    Raises Unreadable, web.HTTPRequestEntityTooLarge and web.HTTPRequestTimeout. Reading many small fields would
    block the process for seconds, so their number has a bound that is checked before.
    """
    if request.content_type != FORM:
        raise Unreadable
    most_bytes, most_fields = (MAX_GUEST_BYTES, MAX_GUEST_FIELDS) if is_guest else (MAX_BYTES, MAX_FIELDS)
    if request.content_length is not None and request.content_length > most_bytes:
        raise web.HTTPRequestEntityTooLarge(most_bytes, request.content_length)
    try:
        async with asyncio.timeout(seconds):
            body = await request.clone(client_max_size=most_bytes).read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError:  # chunks that are none, or an end that is missing
        raise Unreadable from None
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most_fields)
    except ValueError:  # no ASCII, no UTF-8 behind the escapes, too many fields
        raise Unreadable from None
    return MultiDictProxy(MultiDict(fields))
