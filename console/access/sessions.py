"""Sessions: what the console knows of a visitor between two requests, encrypted in a cookie of the visitor.

Nothing is stored in the process but the sessions that were signed out, until they would have ended. So a console that
is started again, or another one with the same key, knows its visitors.
"""

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LIFETIME = timedelta(hours=12)
MAX_COOKIE = 4_000  # bytes; browsers refuse longer ones
MAX_SIGNED_OUT = 100_000  # sessions; the oldest is forgotten first

_NONCE = 12  # bytes
_PURPOSE = b"tidemark console sessions, version 1"


@dataclass(frozen=True)
class Session:
    """One visitor. key: the API key; None without one. is_open: whether the visitor may call without a key.

    csrf: what each form of the session has to contain.
    """

    session_id: str
    csrf: str = field(repr=False)
    start: datetime
    key: str | None = field(default=None, repr=False)
    is_open: bool = False

    @property
    def is_signed_in(self) -> bool:
        """Whether it may see anything but the sign-in."""
        return self.key is not None or self.is_open


class Sessions:
    """Makes sessions, and reads them from cookies."""

    def __init__(self, secret: bytes | None = None) -> None:
        """secret: 32 bytes that several consoles share; None: random ones, which end with the process."""
        derived = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(secret or secrets.token_bytes(32))
        self._cipher = AESGCM(derived)
        self._signed_out: dict[str, datetime] = {}

    def new(self, now: datetime, key: str | None = None, *, is_open: bool = False) -> Session:
        """A session with an id and a token of its own."""
        return Session(secrets.token_urlsafe(16), secrets.token_urlsafe(32), now, key, is_open)

    def cookie(self, session: Session) -> str:
        """The value of the cookie."""
        content = {
            "id": session.session_id,
            "csrf": session.csrf,
            "start": int(session.start.timestamp()),
            "key": session.key,
            "open": session.is_open,
        }
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, json.dumps(content).encode(), _PURPOSE)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def read(self, cookie: str | None, now: datetime) -> Session | None:
        """The session of a cookie; None if there is none, if it has ended, or if the cookie is not one of ours."""
        if not cookie or len(cookie) > MAX_COOKIE:
            return None
        try:
            sealed = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            content = json.loads(self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _PURPOSE))
        except (ValueError, binascii.Error, InvalidTag):
            return None
        start = datetime.fromtimestamp(content["start"], UTC)
        if not start - timedelta(minutes=5) <= now < start + LIFETIME or content["id"] in self._signed_out:
            return None
        return Session(content["id"], content["csrf"], start, content["key"], content["open"])

    def sign_out(self, session: Session, now: datetime) -> None:
        """Ends a session: its cookie is not accepted any more."""
        for session_id, end in list(self._signed_out.items()):
            if end > now and len(self._signed_out) < MAX_SIGNED_OUT:
                break
            del self._signed_out[session_id]
        self._signed_out[session.session_id] = session.start + LIFETIME
