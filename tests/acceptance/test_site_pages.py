"""What the guides of the site show is what happens: each page is followed against a real server and notifier."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.databases import Template
from tests.support.processes.programs import Program, running
from tests.support.site.blocks import DOCS, guides
from tests.support.site.following import SERVER, is_part_of, is_printed, reader

# First lines of blocks that are not typed, each with the reason.
LEFT_OUT = {
    "git clone https://git.example.com/tidemark && cd tidemark": "the test has the folder and its packages",
}


def free_port() -> str:
    """A port of this machine that no program listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@asynccontextmanager
async def service(template: Template, folder: Path) -> AsyncIterator[Program]:
    """A server and a notifier on a database of their own."""
    with template.lent_database(months=False) as url:
        async with running(url, folder) as programs:
            server = await programs.serve()
            await programs.notify()
            yield server


@pytest.fixture(scope="module")
async def server(template: Template, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Program]:
    """The server of all guides: each has customers and metrics of its own."""
    async with AsyncExitStack() as exits:
        yield await exits.enter_async_context(service(template, tmp_path_factory.mktemp("service")))


FIRST = DOCS / "start" / "five-minutes.md"


@pytest.mark.parametrize("page", [page for page in guides() if page != FIRST], ids=lambda page: page.stem)
async def test_a_guide_can_be_followed(page: Path, server: Program, tmp_path: Path) -> None:
    address = server.address.server
    with reader(tmp_path, {SERVER: address, "8080": free_port(), "8081": free_port()}) as one:
        one.environment["TIDEMARK_SERVER"] = address
        await asyncio.to_thread(one.follow, page)


def test_the_first_five_minutes_can_be_followed(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with reader(tmp_path, {SERVER: address, "8080": free_port()}, frozenset(LEFT_OUT)) as one:
        one.environment |= {"TIDEMARK_LISTEN": address, "TIDEMARK_SERVER": address}
        one.follow(FIRST)


def test_what_is_left_out_is_on_a_page() -> None:
    lines = {line for page in guides() for line in page.read_text().splitlines()}
    assert set(LEFT_OUT) <= lines


@pytest.mark.parametrize(
    ("shown", "answer", "expected"),
    [
        ({"a": "1"}, {"a": "1", "b": "2"}, True),
        ({"a": "2"}, {"a": "1"}, False),
        ({"a": "alt_…"}, {"a": "alt_7"}, True),
        ({"a": "alt_…"}, {"a": "ntf_7"}, False),
        ([{"a": 1}, {"b": 2}], [{"a": 1}, {"c": 0}, {"b": 2}], True),
        ([{"b": 2}, {"a": 1}], [{"a": 1}, {"b": 2}], False),
        ({"a": 1}, {"a": True}, False),
        ({}, [], False),
    ],
)
def test_an_answer_has_all_that_is_shown(shown: object, answer: object, expected: bool) -> None:
    assert is_part_of(shown, answer) is expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("one … three\nfour", True), ("four\none two three", False), ("one", False), ("four", True)],
)
def test_what_is_printed_has_the_shown_lines_in_their_order(shown: str, expected: bool) -> None:
    assert is_printed(shown, "one two three\n\nelse\nfour\n") is expected
