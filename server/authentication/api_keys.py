"""API keys: which organization a call acts for, and how callers are treated before the first key exists."""

import asyncio
import functools
import ipaddress
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta

from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from server.authentication.access import refusal_of_stream
from server.authentication.certificates import ClientCertificate
from server.authentication.revocation import (
    GRACE,
    OpenStream,
    OpenStreams,
    certificate_expired,
    expired,
    refusal,
)
from server.calls import errors
from store.identity import keys
from store.identity.callers import Caller, callers_of, find_caller, hash_identity, hash_key
from store.identity.key_changes import note_uses
from store.identity.organizations import DEFAULT_ORGANIZATION
from store.postgres.database import Database, DatabaseUnavailable

CACHE_LIFETIME = timedelta(seconds=3)  # how long a revoked key may still be accepted
POLL_INTERVAL = 1.5  # seconds between checks for revoked keys, while this process uses any
POLL_TIMEOUT = 3.0  # seconds for one check
CACHE_SIZE = 4096  # keys, including unknown ones

USES_INTERVAL = timedelta(minutes=1)  # between two notes of when keys were used last

MAX_SHOWN = 200  # characters of a certificate's identities that a message quotes

_SCHEME = "bearer "

logger = logging.getLogger(__name__)


class UnsafeListen(Exception):
    """The server would listen to other machines, but no API key exists to authenticate callers."""


class Authenticator:
    """Finds the caller of each call by its API key.

    Until the first key exists, and only when the server listens to this machine alone, callers without a key act for
    the organization `default`. After that every call needs a key.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        listens_to_loopback_only: bool,
        cache_size: int = CACHE_SIZE,
        revocation_grace: float = GRACE,
    ) -> None:
        """cache_size: keys, including unknown ones. revocation_grace: see `OpenStreams`."""
        self._database = database
        self._clock = clock
        self._anonymous_possible = listens_to_loopback_only
        self._cache_size = cache_size
        self._cache: dict[bytes, tuple[datetime, Caller | None]] = {}
        self._reading: dict[bytes, asyncio.Task[Caller | None]] = {}  # keys that are being read from the database
        self._default: tuple[datetime, Caller] | None = None
        self._reviewed: dict[str, Caller] = {}  # of the keys that have streams, as last read
        self._uses: dict[str, datetime] = {}  # of keys, since `_noted_time`
        self._noted_time = clock.now()
        self.streams = OpenStreams(revocation_grace)

    async def start(self) -> None:
        """Checks whether a key exists. Raises UnsafeListen when other machines could call without a key."""
        async with self._database.transaction() as connection:
            key_exists = await keys.any_key_exists(connection)
        if key_exists:
            self._anonymous_possible = False
        elif self._anonymous_possible:
            logger.warning(
                "no API key exists: every caller on this machine acts for the organization %r;"
                " `tidemark keys create --organization NAME` creates a key; every call needs one then",
                DEFAULT_ORGANIZATION,
                extra={"action": LogAction.IDENTITY},
            )
        else:
            raise UnsafeListen(
                "no API key exists, so the server can only listen to this machine: create a key first"
                " (tidemark keys create --organization NAME), or listen on 127.0.0.1"
            )

    async def identify(self, authorization: str | None, certificate: ClientCertificate | None = None) -> Caller:
        """The caller with this `authorization` metadata, or without any, with this client certificate.

        Raises errors.Unauthenticated, and DatabaseUnavailable when the key is not cached and cannot be read.
        """
        if certificate is not None and certificate.end is not None and certificate.end <= self._clock.now():
            raise certificate_expired()
        if authorization is None:
            if certificate is None or not certificate.identities:
                return await self._without_key()
            return await self._of_certificate(certificate)
        if not authorization.lower().startswith(_SCHEME):
            raise errors.Unauthenticated(
                error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
                "`authorization`, in the metadata over gRPC, a header over HTTP, is not of the form `Bearer KEY`",
            )
        caller = await self._caller_of(hash_key(authorization[len(_SCHEME) :].strip()))
        if caller is None:
            raise errors.Unauthenticated(
                error_reason_pb2.ERROR_REASON_UNAUTHENTICATED, "the API key is unknown or revoked"
            )
        return self._accepted(caller)

    async def _of_certificate(self, certificate: ClientCertificate) -> Caller:
        """The caller of the first identity that is known."""
        for identity in certificate.identities:
            caller = await self._caller_of(hash_identity(identity))
            if caller is not None:
                return self._accepted(caller)
        if self._anonymous_possible:
            return await self._without_key()
        raise errors.Unauthenticated(
            error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
            f"no organization knows the client certificate of {', '.join(certificate.identities)[:MAX_SHOWN]}"
            " (`tidemark keys create --organization NAME --identity IDENTITY`), and the call carries no API key",
        )

    def open_stream(self, caller: Caller, method: str, certificate: ClientCertificate | None) -> OpenStream:
        """Registers the stream that the current task serves. It ends with the client's certificate."""
        stream = self.streams.open(caller, method)
        if certificate is not None and certificate.end is not None:
            left = (certificate.end - self._clock.now()).total_seconds()
            self.streams.end_later(stream, left, certificate_expired())
        return stream

    def _accepted(self, caller: Caller) -> Caller:
        """The caller, if its key has not expired; notes the use."""
        now = self._clock.now()
        if caller.is_expired(now):
            raise errors.Unauthenticated(
                error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
                f"the API key {caller.key_id} has expired at {caller.expire_time:%Y-%m-%d %H:%M:%S} UTC:"
                " use another key (`tidemark keys rotate` creates a successor in time), or let this one expire later"
                " (`tidemark keys update`)",
            )
        self._uses[caller.key_id] = now
        return caller

    def revocations(self, database: Database, interval: float = POLL_INTERVAL) -> BackgroundTask:
        """The task that ends streams whose keys allow them no more, and streams without a key after the first exists.

        One check serves the whole process. It has a connection pool of its own, so that a busy service does not delay
        it. While the database is unavailable, cached keys stay valid. interval: seconds between checks.
        """

        async def check() -> None:
            async with asyncio.timeout(POLL_TIMEOUT):
                await self.check_revocations(database)

        return BackgroundTask(
            check,
            FailureLog(
                logger,
                "the check for revoked keys failed",
                LogAction.IDENTITY,
                (DatabaseUnavailable, TimeoutError),  # the health service reports them
            ),
            name="revocations",
            interval=interval,
            first_pause=interval,
            backoff=Backoff(longest=interval),
        )

    async def check_revocations(self, database: Database) -> None:
        """Checks once what the keys that this process uses are still allowed, and notes their use.

        Raises DatabaseUnavailable.
        """
        cached = {
            caller.key_id: caller
            for time, caller in self._cache.values()
            if caller is not None and self._is_fresh(time)
        }
        open_ids = self.streams.key_ids
        used = (open_ids | cached.keys()) - {""}
        anonymous = "" in open_ids or self._default is not None
        now = self._clock.now()
        self._uses.update(dict.fromkeys(open_ids - {""}, now))
        noted = now - self._noted_time >= USES_INTERVAL or now < self._noted_time
        uses = dict(self._uses) if noted else {}
        if not used and not anonymous and not uses:
            return
        current: dict[str, Caller] = {}
        first_key = False
        async with database.transaction() as connection:
            if used:
                current = await callers_of(connection, used)
            if anonymous:
                first_key = await keys.any_key_exists(connection)
        # Of a key that has streams, the object with which they were reviewed counts more than a newer cached one. All
        # its streams would be reviewed again for each equal object.
        self._keep_unchanged(current, {**cached, **self._reviewed})
        self._reviewed = {key_id: current[key_id] for key_id in open_ids if key_id in current}
        self._end_streams(open_ids, current, first_key=first_key)
        if noted:
            await self._note_uses(database, uses, now)

    async def _note_uses(self, database: Database, uses: Mapping[str, datetime], now: datetime) -> None:
        """Notes the uses. The review comes before it, so that a failure here keeps no stream open."""
        done = set[str]()
        if uses:
            async with database.transaction() as connection:
                done = await note_uses(connection, uses)
        self._noted_time = now
        self._uses = {
            key_id: time for key_id, time in self._uses.items() if key_id not in done or uses.get(key_id) != time
        }

    def _keep_unchanged(self, current: dict[str, Caller], known: Mapping[str, Caller]) -> None:
        """Caches the current callers. Of those that have not changed it keeps the known objects, see `review`."""
        for key_id, caller in current.items():
            before = known.get(key_id, caller)
            if caller is not before and caller == before:
                current[key_id] = before
        self._cache = {
            key: (time, None if caller is None else current[caller.key_id])
            for key, (time, caller) in self._cache.items()
            if caller is None or caller.key_id in current
        }

    def _end_streams(self, open_ids: set[str], current: Mapping[str, Caller], *, first_key: bool) -> None:
        """Requests the streams to end that their keys do not allow any more."""
        if first_key:
            self._anonymous_possible, self._default = False, None  # keys are never deleted
        now, count = self._clock.now(), 0
        for key_id in open_ids:
            if not key_id and not first_key:
                continue
            caller = current.get(key_id)

            def refusal_of(stream: OpenStream, caller: Caller | None = caller) -> errors.ApiError | None:
                if caller is None:
                    return refusal(stream.caller.key_id)
                if caller.is_expired(now):
                    return expired(caller.key_id)
                return refusal_of_stream(caller, stream.caller, stream.method)

            # An object that was reviewed before is not reviewed again, but time goes on.
            seen = None if caller is None or caller.is_expired(now) else caller
            count += self.streams.review(key_id, seen, refusal_of)
        if count:
            logger.info(
                "ending %d streams whose keys do not allow them", count, extra={"action": LogAction.KEY_REVOKED}
            )

    async def _caller_of(self, key_hash: bytes) -> Caller | None:
        cached = self._cache.get(key_hash)
        if cached is not None and self._is_fresh(cached[0]):
            return cached[1]
        # One read serves all calls that wait for this key. When its entry is too old, hundreds of calls of one caller
        # would each take a connection, and the first call of another key would wait for all of them.
        reading = self._reading.get(key_hash)
        if reading is None:
            reading = self._reading[key_hash] = asyncio.create_task(self._read_caller(key_hash), name="read-key")
            reading.add_done_callback(functools.partial(self._was_read, key_hash))
        return await asyncio.shield(reading)

    def _was_read(self, key_hash: bytes, reading: "asyncio.Task[Caller | None]") -> None:
        del self._reading[key_hash]
        # Where every call was cancelled, no code reads the result: asyncio would log an exception as never retrieved.
        if not reading.cancelled():
            reading.exception()

    async def _read_caller(self, key_hash: bytes) -> Caller | None:
        now = self._clock.now()
        async with self._database.transaction() as connection:
            caller = await find_caller(connection, key_hash)
        self._cache.pop(key_hash, None)
        while len(self._cache) >= self._cache_size:
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
            self._anonymous_possible = False  # keys are never deleted
        raise errors.Unauthenticated(
            error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
            "the call carries no API key: send `authorization: Bearer KEY`, in the metadata over gRPC, as a header"
            " over HTTP (`tidemark keys create --organization NAME` creates one)",
        )

    def _is_fresh(self, time: datetime) -> bool:
        # After the clock was set back, an entry can have a time in the future: it is not fresh.
        return timedelta(0) <= self._clock.now() - time < CACHE_LIFETIME


def is_loopback(host: str) -> bool:
    """Whether only callers on this machine reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
