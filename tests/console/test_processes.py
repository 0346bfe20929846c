"""The console beside real processes: as `tidemark up` starts it, with TLS, and again after it was killed."""

import os
import re
import signal
import ssl
import urllib.request
from pathlib import Path

from tests.support.processes.programs import SETTINGS
from tests.support.processes.up import Up, eventually, started_by
from tests.support.server.certificates import Authority


def shown(url: str, context: ssl.SSLContext) -> str:
    """A page, without a session."""
    with urllib.request.urlopen(url.replace("127.0.0.1", "localhost"), timeout=30, context=context) as answer:
        return str(answer.read().decode())


def test_up_prints_the_address_of_a_console_that_needs_no_key_and_starts_it_again(
    tmp_path: Path, database_url: str
) -> None:
    authority = Authority()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.server().write(certificate, key)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    up = Up(
        tmp_path,
        "--console-listen",
        "127.0.0.1:0",
        **SETTINGS,
        TIDEMARK_DATABASE_URL=database_url,  # which starts faster than one of its own
        TIDEMARK_TLS_CERTIFICATE=str(certificate),
        TIDEMARK_TLS_KEY=str(key),
    )
    try:
        url = up.wait_for(r"console +(https://127\.0\.0\.1:\d+/)").group(1)
        page = shown(url, context)
        assert "<title>Overview · Tidemark</title>" in page
        assert "No key needed on this machine" in page
        [console] = [pid for pid, arguments in started_by(up.process.pid).items() if "cli.main console" in arguments]
        os.kill(console, signal.SIGKILL)
        eventually(lambda: bool(re.search("the console runs again", up.said())), up.said)
        assert "<title>Overview · Tidemark</title>" in shown(url, context), "on the same address"
    finally:
        up.stop()
    assert up.process.returncode == 0
