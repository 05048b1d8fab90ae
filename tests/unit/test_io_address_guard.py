"""The address guard: no notation of an internal address gets past it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.io.address_guard import AddressGuard

GUARD = AddressGuard()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        # Not what a socket takes, though some resolvers do: decimal, octal, hexadecimal, short forms, names.
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.1",
        "localhost",
        "",
        "[::1]",
        "127.0.0.1 ",
    ],
)
def test_internal_addresses_and_odd_notations_are_refused(address: str) -> None:
    assert not GUARD.is_allowed(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_addresses_of_the_internet_are_allowed(address: str) -> None:
    assert GUARD.is_allowed(address)


def test_an_allowed_network_wins_over_a_denied_one() -> None:
    guard = AddressGuard(allowed=["10.1.0.0/16", "fd00::/8"])
    assert guard.is_allowed("10.1.2.3")
    assert guard.is_allowed("::ffff:10.1.2.3")
    assert guard.is_allowed("fd00::1")
    assert not guard.is_allowed("10.2.0.1")


def test_a_network_that_is_none_is_an_error_of_configuration() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        AddressGuard(denied=["nonsense"])


@given(st.ip_addresses())
def test_nothing_that_python_knows_as_internal_is_allowed(address) -> None:
    """The list is our own, so that it does not change with the version of Python; it must not be weaker."""
    embeds_ipv4 = address.version == 6 and address in ipaddress.ip_network("64:ff9b::/96")
    if GUARD.is_allowed(str(address)) and not embeds_ipv4:
        mapped = getattr(address, "ipv4_mapped", None) or address
        assert mapped.is_global
