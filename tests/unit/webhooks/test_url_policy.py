"""Which URLs can be saved, and which addresses can be dialled."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.url_policy import UrlPolicy, UrlRefused

STRICT = UrlPolicy()
INTERNAL = UrlPolicy(allow_http=True, allow_networks=(ipaddress.ip_network("10.1.0.0/16"),))

REFUSED_ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "2620:4f:8000::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456:789a::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC_ADDRESSES = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:800::200e",
]


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_special_addresses_are_refused(address: str) -> None:
    reason = STRICT.refusal(address)
    assert reason is not None
    assert "not a public address" in reason


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_public_addresses_are_allowed(address: str) -> None:
    assert STRICT.refusal(address) is None


@given(st.ip_addresses())
def test_what_the_registry_calls_private_is_never_allowed(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    # The registry in the standard library is not strict enough, but everything it refuses is refused here.
    unwrapped = getattr(address, "ipv4_mapped", None) or address
    if not unwrapped.is_global or unwrapped.is_multicast:
        nat64 = address in ipaddress.ip_network("64:ff9b::/96")
        sixtofour = getattr(address, "sixtofour", None) is not None
        assert nat64 or sixtofour or STRICT.refusal(str(address)) is not None


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203"])
def test_the_operator_can_open_networks(address: str) -> None:
    assert STRICT.refusal(address) is not None
    assert INTERNAL.refusal(address) is None


def test_the_networks_beside_an_open_one_stay_closed() -> None:
    assert INTERNAL.refusal("10.2.0.1") is not None


def test_a_text_that_is_not_an_address_is_refused() -> None:
    assert STRICT.refusal("hooks.example.com") == "hooks.example.com is not an IP address"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://hooks.example.com/tidemark?token=abc",
        "https://hooks.example.com:8443/a/b",
        "https://hooks.example.com:80/",
        "https://bücher.example/hook",
        "https://1.1.1.1/hook",
        "https://[2606:4700:4700::1111]/hook",
        "https://example.com.",
        "HTTPS://EXAMPLE.COM/",
    ],
)
def test_ordinary_urls_can_be_saved(url: str) -> None:
    STRICT.check_url(url)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "is required"),
        ("https://example.com/" + "a" * 2_048, "longer than 2048"),
        ("https://example.com/a b", "blank"),
        ("https://example.com/\r\nHost: x", "control character"),
        ("https://example.com/\x00", "control character"),
        ("example.com/hook", "begin with https"),
        ("/hook", "begin with https"),
        ("ftp://example.com/hook", "begin with https"),
        ("file:///etc/passwd", "begin with https"),
        ("http://example.com/hook", "without TLS"),
        ("https://", "not a URL|names no host"),
        ("https:///hook", "not a URL|names no host"),
        ("https://[::1", "not a URL"),
        ("https://example.com:99999/", "not a URL"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:25/", "port 25"),
        ("https://user@example.com/", "user name or a password"),
        ("https://user:secret@example.com/", "user name or a password"),
        ("https://:secret@example.com/", "user name or a password"),
        ("https://example.com/#part", "fragment"),
        ("https://localhost/", "no public name"),
        ("https://receiver:8443/", "no public name"),
        ("https://127.0.0.1/", "loopback"),
        ("https://127.0.0.1:8443/", "loopback"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:127.0.0.1]/", "loopback"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://10.1.2.3/", "private"),
        ("https://0x7f.1/", "four decimal numbers"),
        ("https://0x7f000001/", "four decimal numbers"),
        ("https://2130706433/", "four decimal numbers"),
        ("https://127.1/", "four decimal numbers"),
        ("https://017700000001/", "four decimal numbers"),
        ("https://①②⑦.0.0.1/", "loopback|four decimal numbers"),
    ],
)
def test_urls_that_break_a_rule_are_refused_with_its_name(url: str, complaint: str) -> None:
    with pytest.raises(UrlRefused, match=complaint):
        STRICT.check_url(url)


@pytest.mark.parametrize("url", ["http://example.com/", "http://10.1.2.3:8080/", "http://receiver:8080/hook"])
def test_an_operator_who_opens_networks_and_http_can_save_internal_urls(url: str) -> None:
    INTERNAL.check_url(url)


def test_an_operator_who_opens_one_network_cannot_save_urls_of_another() -> None:
    with pytest.raises(UrlRefused, match="private"):
        INTERNAL.check_url("http://10.2.0.1/")


@given(st.text(max_size=100))
def test_whatever_the_url_the_check_answers_with_a_sentence_or_with_none(text: str) -> None:
    for url in (text, "https://" + text):
        complaint = _complaint(url)
        assert complaint is None or len(complaint) > 5


def _complaint(url: str) -> str | None:
    try:
        STRICT.check_url(url)
    except UrlRefused as error:
        return str(error)
    return None
