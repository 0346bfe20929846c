"""The first lines of a request: the URL exactly as it was given, seen as bytes by a receiver on a socket."""

import asyncio

import pytest

from notifier.request_headers import HEADERS
from notifier.sending import Sender
from runtime.clock import SystemClock
from tests.support.notifier.wire import BODY, ON_THIS_MACHINE, PATIENT, server
from webhooks.url_policy import UrlPolicy, UrlRefused, request_target

AS_GIVEN = [
    "/",
    "/hook?sig=ab%2Bc%2Fd%3D",
    "/user%40example.com",
    "/a%2fb%2Fc",
    "/%7Euser/~user",
    "/a+b?c+d=%20",
    "/a;v=1?x;y",
    "/hook?next=https://example.com/?a=b",
    "//double//slash/",
    "/a/../b/./c",
    "/%2e%2e/%2E",
    "/hook?",
    "/hook??a",
    "/hook?a&&b=&=c",
    "/hook?a[]=1&b[2]=3",
    "/100%",
    "/%zz?%",
    "/a:b@c!$&'()*,;=",
    "/hook?email=a@b",
]
CHANGED = {
    "": "/",
    "?a=b": "/?a=b",
    "/größe?ö=é": "/gr%C3%B6%C3%9Fe?%C3%B6=%C3%A9",
    "/%C3%B6ö": "/%C3%B6%C3%B6",
    '/{id}|"<>^`\\': "/%7Bid%7D%7C%22%3C%3E%5E%60%5C",
    "/\N{IDEOGRAPHIC SPACE}": "/%E3%80%80",
}


async def first_lines(urls: list[str], host: str = "127.0.0.1") -> list[tuple[bytes, bytes]]:
    """The request line and the Host header of a post to each of the URLs, without their scheme, host and port."""
    seen: list[tuple[bytes, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, host, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            await reader.readexactly(len(BODY))
            seen.append((line, host))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        for url in urls:
            answer = await sender.post(f"http://{host}:{port}{url}", HEADERS, BODY)
            assert answer.http_status == 204, (url, answer)
    assert {host for _, host in seen} == {f"Host: {host}:{port}".lower().replace("host", "Host", 1).encode()}
    return seen


async def test_the_target_is_sent_exactly_as_given() -> None:
    lines = [line.decode() for line, _ in await first_lines(AS_GIVEN)]
    assert lines == [f"POST {target} HTTP/1.1" for target in AS_GIVEN]


async def test_only_characters_that_no_url_may_contain_are_encoded() -> None:
    lines = [line.decode() for line, _ in await first_lines([*CHANGED])]
    assert lines == [f"POST {target} HTTP/1.1" for target in CHANGED.values()]


async def test_the_host_is_named_in_lower_case_with_its_port() -> None:
    assert len(await first_lines(["/"], "LocalHost")) == 1


@pytest.mark.parametrize("target", [*AS_GIVEN, *CHANGED])
def test_every_header_that_is_sent_can_be_saved(target: str) -> None:
    policy = UrlPolicy()
    if "\N{IDEOGRAPHIC SPACE}" not in target:
        policy.check_url("https://hooks.example.com" + target)


@pytest.mark.parametrize("url", ["/hook", "example.com/hook", "https:/example.com/", "", "https:example.com"])
def test_a_url_that_is_not_absolute_has_no_request_target(url: str) -> None:
    with pytest.raises(ValueError, match="absolute"):
        request_target(url)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://@example.com/", "user name"),
        ("https://:@example.com/", "user name"),
        ("https://a%40b@example.com/", "user name"),
        ("https://example.com/#", "fragment"),
        ("https://example.com/a?b#", "fragment"),
        ("https://exa%6dple.com/", "percent-encodes"),
        ("https:example.com", "host"),
        ("https:/example.com/", "host"),
    ],
)
def test_a_url_that_could_not_be_sent_as_given_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(UrlRefused, match=complaint):
        UrlPolicy().check_url(url)
