"""`tidemark listen`: answers as they are written, what verifies, and a receiver on a real socket."""

import base64
import os
import socket
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from click.testing import CliRunner
from standardwebhooks import Webhook
from yarl import URL

from cli.listen.answers import Answer, MalformedAnswer, in_turn, parse_answer
from cli.listen.endpoint import is_left_behind, labels_of_this_process, runs
from cli.listen.forwarding import Forwarder
from cli.listen.labels import LISTEN_LABEL, PROCESS_LABEL
from cli.listen.receiver import Arrival, Receiver
from cli.main import tidemark
from runtime.clock import ManualClock
from tidemark_client import WebhookVerifier

# The vectors that are known to other implementations.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(signature: str, **changes: str) -> dict[str, str]:
    usual = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": signature,
    }
    return usual | {f"webhook-{name}": value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("204", [Answer()]),
        ("503,retry-after=30", [Answer(503, retry_after="30")]),
        ("503,retry-after=soon*2", [Answer(503, retry_after="soon")] * 2),
        ("200,delay=2.5*2", [Answer(200, delay=2.5)] * 2),
        ("hang", [Answer(None, silent="hang")]),
        ("close,delay=1", [Answer(None, delay=1.0, silent="close")]),
    ],
)
def test_answers_as_they_are_written(text: str, answers: list[Answer]) -> None:
    assert parse_answer(text) == answers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "99",
        "600",
        "2xx",
        "204*0",
        "204*",
        "204,delay=-1",
        "204,delay=9999",
        "hang,delay=1",
        "204,slow",
        "hang,retry-after=1",
    ],
)
def test_a_malformed_answer_is_refused(text: str) -> None:
    with pytest.raises(MalformedAnswer):
        parse_answer(text)
    assert CliRunner().invoke(tidemark, ["listen", "--answer", text]).exit_code == 2


def test_the_last_answer_is_given_for_ever() -> None:
    turns = in_turn([Answer(500), Answer(200)])
    assert [next(turns).status for _ in range(4)] == [500, 200, 200, 200]
    assert next(in_turn([])).status == 204


class Posting:
    """A receiver, what arrived at it, and a way to post to it."""

    def __init__(self, *answers: Answer) -> None:
        self.arrivals: list[Arrival] = []
        self.clock = ManualClock(NOW)
        self.receiver = Receiver(WebhookVerifier([SECRET]), in_turn(answers), self.clock, self.arrivals.append)

    async def __aenter__(self) -> "Posting":
        await self.receiver.start("127.0.0.1", 0)
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.receiver.stop()

    async def post(self, message_id: str = "ntf_1", *, secret: str = SECRET) -> tuple[int, str | None]:
        body = '{"type": "alert.reached"}'
        signed = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(NOW.timestamp())),
            "webhook-signature": Webhook(secret).sign(message_id, NOW, body),
        }
        async with self.session.post(self.receiver.url + "any/path", data=body, headers=signed) as response:
            return response.status, response.headers.get("Retry-After")


async def test_it_answers_in_turn_and_counts_what_comes_again() -> None:
    async with Posting(Answer(503, retry_after="7"), Answer(200)) as it:
        assert await it.post() == (503, "7")
        assert await it.post() == (200, None)
        assert await it.post("ntf_2") == (200, None)
    assert [(arrival.webhook_id, arrival.count) for arrival in it.arrivals] == [
        ("ntf_1", 1),
        ("ntf_1", 2),
        ("ntf_2", 1),
    ]
    assert {(arrival.scheme, arrival.event_type, arrival.fault) for arrival in it.arrivals} == {
        ("v1", "alert.reached", "")
    }
    shown = it.arrivals[0].as_json()
    assert (shown["verified"], shown["answer"], shown["body"]) == ("v1", 503, {"type": "alert.reached"})


async def test_a_request_that_does_not_verify_gets_401_and_uses_up_no_answer() -> None:
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    async with Posting(Answer(503), Answer(200)) as it:
        assert await it.post(secret=other) == (401, None)
        assert await it.post() == (503, None)
        it.clock.advance(timedelta(minutes=6))
        assert await it.post() == (401, None)
    assert ["no signature" in arrival.fault for arrival in it.arrivals] == [True, False, False]


async def test_the_receiver_hangs_and_closes_by_its_answers_and_can_be_stopped() -> None:
    async with Posting(Answer(None, silent="hang"), Answer(None, silent="close"), Answer()) as it:
        with pytest.raises(TimeoutError):
            await it.post()
        with pytest.raises(aiohttp.ClientConnectionError):
            await it.post()
        assert (await it.post())[0] == 204


async def test_two_on_one_port_is_an_error() -> None:
    async with Posting() as it:
        port = int(it.receiver.url.rsplit(":", 1)[1].strip("/"))
        again = Receiver(None, in_turn([]), it.clock, it.arrivals.append)
        with pytest.raises(OSError):
            await again.start("127.0.0.1", port)
        await again.stop()


def test_listen_without_a_server_reports_the_problem() -> None:
    result = CliRunner().invoke(tidemark, ["listen", "--server", "127.0.0.1:1"])
    assert result.exit_code == 5
    assert "no server answers at 127.0.0.1:1" in result.output


async def test_what_cannot_be_forwarded_is_tried_again_by_the_notifier() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        async with Forwarder(f"http://127.0.0.1:{taken.getsockname()[1]}/hooks") as forwarder:
            status, what = await forwarder.forward(URL("/"), {"Host": "elsewhere", "Content-Length": "9"}, b"{}")
    assert status == 502
    assert what.startswith("cannot be reached: ")


@pytest.mark.parametrize("url", ["ftp://a/", "http://", "localhost:port"])
def test_a_url_to_which_nothing_can_be_forwarded_is_a_usage_error(url: str) -> None:
    result = CliRunner().invoke(tidemark, ["listen", "--forward-to", url])
    assert result.exit_code == 2
    assert "is no URL" in result.output


def test_answers_and_forwarding_exclude_each_other() -> None:
    result = CliRunner().invoke(tidemark, ["listen", "--forward-to", "localhost:1", "--answer", "500"])
    assert result.exit_code == 2
    assert "leave out --answer" in result.output


def test_an_endpoint_is_left_behind_when_its_process_of_this_machine_does_not_run() -> None:
    mine = labels_of_this_process()
    assert not is_left_behind(mine)
    assert is_left_behind(mine, lambda process: process != os.getpid())
    assert not is_left_behind({**mine, LISTEN_LABEL: "another machine"}, lambda process: False)
    for process in ("", "0", "-1", "many", "\u0663"):
        assert not is_left_behind({**mine, PROCESS_LABEL: process}, lambda process: False)
    assert not is_left_behind({}, lambda process: False)
    assert not runs(10**30)
