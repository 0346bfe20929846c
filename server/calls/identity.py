"""Who is calling: API keys to organizations, and what holds while nobody made a key yet."""

import asyncio
import ipaddress
import logging
from datetime import datetime, timedelta

from generated.tidemark.v1 import error_reason_pb2
from runtime.clock import Clock
from server.calls import call as calls
from server.calls import errors
from server.calls.open_streams import OpenStreams
from store.alerts.history import Author
from store.identity import keys
from store.identity.callers import Caller, find_caller, hash_key
from store.identity.organizations import DEFAULT_ORGANIZATION, Organization
from store.postgres.database import Database, DatabaseUnavailable

CACHE_LIFETIME = timedelta(seconds=3)  # how long a revoked key may still be taken
POLL_INTERVAL = 1.5  # seconds between looks for keys that have ended, while any is in use here
POLL_TIMEOUT = 3.0  # seconds that a look may take
CACHE_SIZE = 4096  # keys; unknown ones count too

_SCHEME = "bearer "

logger = logging.getLogger(__name__)


class UnsafeListen(Exception):
    """The server would listen to other machines while it cannot tell callers apart."""


def current_organization() -> Organization:
    """The organization that the current call acts for. Every statement of a handler is bounded by it."""
    return _current_caller().organization


def current_author() -> Author:
    """Who asks for what the current call does, for the history."""
    return Author(_current_caller().key_id)


def _current_caller() -> Caller:
    caller = calls.current().caller
    if caller is None:
        raise RuntimeError("the method is served without an identity")
    return caller


class Identity:
    """Tells callers apart by their API key.

    While nobody has made a key, and only when the server listens to this machine alone, callers without a key
    act for the organization `default`. From the first key on, nobody gets in without one.
    """

    def __init__(self, database: Database, clock: Clock, *, listens_to_loopback_only: bool) -> None:
        self._database = database
        self._clock = clock
        self._anonymous_possible = listens_to_loopback_only
        self._cache: dict[bytes, tuple[datetime, Caller | None]] = {}
        self._default: tuple[datetime, Caller] | None = None
        self.streams = OpenStreams()

    async def start(self) -> None:
        """Says how callers are identified; raises UnsafeListen when they cannot be."""
        async with self._database.transaction() as connection:
            locked = await keys.any_key_exists(connection)
        if locked:
            self._anonymous_possible = False
        elif self._anonymous_possible:
            logger.warning(
                "no API key exists: every caller on this machine acts for the organization %r;"
                " `tidemark keys create --organization NAME` makes a key and ends this",
                DEFAULT_ORGANIZATION,
                extra={"action": "identity"},
            )
        else:
            raise UnsafeListen(
                "no API key exists, so the server only listens to this machine: make a key first"
                " (tidemark keys create --organization NAME), or listen on 127.0.0.1"
            )

    async def identify(self, authorization: str | None) -> Caller:
        """Who makes a call with this `authorization` metadata.

        Raises errors.Unauthenticated, and DatabaseUnavailable when a key has to be looked up and cannot be.
        """
        if authorization is None:
            return await self._without_key()
        if not authorization.lower().startswith(_SCHEME):
            raise errors.Unauthenticated(
                error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
                "the authorization metadata is not of the form `Bearer KEY`",
            )
        caller = await self._owner_of(hash_key(authorization[len(_SCHEME) :].strip()))
        if caller is None:
            raise errors.Unauthenticated(
                error_reason_pb2.ERROR_REASON_UNAUTHENTICATED, "the API key is unknown or revoked"
            )
        return caller

    async def follow(self, database: Database) -> None:
        """Ends the streams of keys that are revoked, and anonymous ones once a key exists; until cancelled.

        One look for the whole process, on a pool of its own: a busy service must not keep a revoked key alive. While
        the database is away, what is known stays.
        """
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                async with asyncio.timeout(POLL_TIMEOUT):
                    await self.look(database)
            except (DatabaseUnavailable, TimeoutError):
                pass  # health says so
            except Exception:
                logger.exception("revoked keys could not be looked for", extra={"action": "identity"})

    async def look(self, database: Database) -> None:
        """Looks once for keys in use here that have ended. Raises DatabaseUnavailable."""
        cached = {
            caller.key_id for time, caller in self._cache.values() if caller is not None and self._is_fresh(time)
        }
        open_ids = self.streams.key_ids
        used = (open_ids | cached) - {""}
        anonymous = "" in open_ids or self._default is not None
        if not used and not anonymous:
            return
        ended = set[str]()
        async with database.transaction() as connection:
            if used:
                ended |= await keys.revoked_among(connection, used)
            if anonymous and await keys.any_key_exists(connection):
                ended.add("")
        if "" in ended:
            self._anonymous_possible, self._default = False, None  # keys are never unmade
        self._cache = {
            key: (time, caller)
            for key, (time, caller) in self._cache.items()
            if caller is None or caller.key_id not in ended
        }
        count = self.streams.end(ended)
        if count:
            logger.info("ending %d streams whose keys have ended", count, extra={"action": "revoked"})

    async def _owner_of(self, key_hash: bytes) -> Caller | None:
        cached = self._cache.get(key_hash)
        if cached is not None and self._is_fresh(cached[0]):
            return cached[1]
        now = self._clock.now()
        async with self._database.transaction() as connection:
            caller = await find_caller(connection, key_hash)
        self._cache.pop(key_hash, None)
        while len(self._cache) >= CACHE_SIZE:
            del self._cache[next(iter(self._cache))]  # the oldest
        self._cache[key_hash] = (now, caller)
        return caller

    async def _without_key(self) -> Caller:
        if self._anonymous_possible:
            if self._default is not None and self._is_fresh(self._default[0]):
                return self._default[1]
            now = self._clock.now()
            async with self._database.transaction() as connection:
                if await keys.no_key_exists(connection):
                    organization = await keys.get_or_create_organization(connection, DEFAULT_ORGANIZATION, now)
                    self._default = now, Caller(organization)
                    return self._default[1]
            self._anonymous_possible = False  # keys are never unmade
        raise errors.Unauthenticated(
            error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
            "the call carries no API key: send it as metadata `authorization: Bearer KEY`"
            " (`tidemark keys create --organization NAME` makes one)",
        )

    def _is_fresh(self, time: datetime) -> bool:
        # A clock that was set back makes an entry look younger than nothing: look it up again.
        return timedelta(0) <= self._clock.now() - time < CACHE_LIFETIME


def is_loopback(host: str) -> bool:
    """Whether only callers on this machine reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
