"""The receiver that docs/webhooks.md shows works as it stands there, and so do its numbers."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import WebhookVerificationError

from notifier.sending import Timeouts
from webhooks.retry_schedule import DELAYS
from webhooks.signature import signed_headers

TEXT = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def test_the_receiver_in_python_accepts_what_is_signed_and_nothing_else() -> None:
    code, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("whsec_…", SECRET), names)
    headers = signed_headers([SECRET], "ntf_1", datetime.now(UTC), b'{"type": "alert.reached"}')
    assert names["receive"](headers, b'{"type": "alert.reached"}') == {"type": "alert.reached"}
    with pytest.raises(WebhookVerificationError):
        names["receive"](headers, b'{"type": "alert.resolved"}')


def test_the_receiver_with_a_public_key_accepts_what_is_signed_and_nothing_else() -> None:
    _, code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    seed = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    names: dict[str, Any] = {}
    exec(code.replace('b64decode("…")', f'b64decode("{base64.b64encode(public).decode()}")'), names)
    private = "whsk_" + base64.b64encode(seed + public).decode()
    headers = signed_headers([SECRET, private], "ntf_1", datetime.now(UTC), b"{}")
    names["verify"](headers, b"{}")
    with pytest.raises(InvalidSignature):
        names["verify"](headers, b"[]")


def test_the_table_of_waits_is_the_schedule() -> None:
    [row] = re.findall(r"^\| waits \|(.*)\|$", TEXT, re.MULTILINE)
    units = {"s": 1, "min": 60, "h": 3600}
    waits = [cell.split() for cell in row.split("|")]
    seconds = [0 if wait == ["–"] else int(wait[0]) * units[wait[1]] for wait in waits]
    assert seconds == [delay.total_seconds() for delay in DELAYS]


def test_the_lease_is_as_long_as_it_says() -> None:
    assert f"({Timeouts().lease.total_seconds():.0f} seconds with the timeouts above)" in TEXT
