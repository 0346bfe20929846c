"""Identities that a proxy forwards, and the proxies that are believed."""

import pytest

from server.authentication.certificates import ClientCertificate, TrustedProxies, parse_forwarded

GATEWAY = "spiffe://acme.test/ns/mesh/sa/gateway"
SHOP = "spiffe://acme.test/ns/shop/sa/cart"


@pytest.mark.parametrize(
    ("header", "identities"),
    [
        (f"By={GATEWAY};Hash=abc;URI={SHOP}", (SHOP,)),
        (f'By={GATEWAY};Hash=abc;Subject="CN=a,O=b;c=d";URI={SHOP};DNS=shop.test;DNS=www.shop.test',
         (SHOP, "shop.test", "www.shop.test")),
        ("Hash=abc;DNS=shop.test", ("shop.test",)),
        (f"URI=spiffe://other;Hash=1, By=x;uri={SHOP}", (SHOP,)),
        (f'Subject="a\\"b,URI=spiffe://fake";URI={SHOP}', (SHOP,)),
        ("URI=spiffe://other,Hash=1", None),
        ("Hash=abc", None),
        ("URI=", None),
        ("", None),
        ("nonsense", None),
        (f"URI={SHOP};nonsense", None),
        (f'URI="{SHOP}', None),
        (f"URI={SHOP};;DNS=a", None),
    ],
)  # fmt: skip
def test_identities_are_those_of_the_last_element(header: str, identities: tuple[str, ...] | None) -> None:
    expected = None if identities is None else ClientCertificate(identities)
    assert parse_forwarded(header) == expected


def test_proxies_are_known_by_identity_or_address() -> None:
    proxies = TrustedProxies.of(["127.0.0.0/8", "fd00::/8", GATEWAY])
    for peer in ("ipv4:127.0.0.6:4711", "ipv6:[fd00::1]:4711", "ipv6:%5Bfd00::1%5D:4711"):
        assert proxies.include(peer, None), peer
    for peer in ("ipv4:10.0.0.1:4711", "ipv6:[::1]:4711", "unix:", "unix:/tmp/s", "", "ipv4:nonsense:1"):
        assert not proxies.include(peer, None), peer
    assert proxies.include("ipv4:10.0.0.1:4711", ClientCertificate((GATEWAY,)))
    assert not proxies.include("ipv4:10.0.0.1:4711", ClientCertificate((SHOP,)))
    assert not TrustedProxies().include("ipv4:127.0.0.1:4711", ClientCertificate((GATEWAY,)))
