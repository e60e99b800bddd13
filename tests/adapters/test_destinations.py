"""Where callbacks may go, judged as whoever would have the plant call its own networks sees it."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.destinations import Place, is_allowed, networks, place


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("240.0.0.1", "::1", "::", "fe80::1%eth0", "fec0::1", "fc00::1", "ff02::1"),
        *("::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a00:1::1"),
        *("2001:0:7f00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1", "100::1"),
        *("localhost", "0x7f.1", "2130706433", "127.1", "0177.0.0.1", ""),
    ],
)
def test_addresses_of_our_own_networks_are_not_called(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0"])
def test_another_way_to_write_an_address_is_judged_by_what_it_resolves_to(host: str) -> None:
    found = place(f"https://{host}/")
    assert isinstance(found, Place)
    try:
        resolved = socket.getaddrinfo(found.host, found.port, type=socket.SOCK_STREAM)
    except OSError:
        return
    assert not any(is_allowed(str(one[4][0]), ()) for one in resolved)


def test_public_addresses_are_called_and_private_ones_where_the_settings_say_so() -> None:
    assert is_allowed("93.184.216.34", ())
    assert is_allowed("2606:2800:220:1:248:1893:25c8:1946", ())
    assert is_allowed("10.1.2.3", networks(["10.1.0.0/16"]))
    assert not is_allowed("10.2.2.3", networks(["10.1.0.0/16", "fc00::/7"]))
    # What is allowed as IPv4 is not so by another name.
    assert not is_allowed("::ffff:10.1.2.3", networks(["10.1.0.0/16"]))


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.test/",
        "ftp://gateway.test/",
        "//gateway.test/",
        "https:///nowhere",
        "https://user:secret@gateway.test/",
        "https://@gateway.test/",
        "https://gateway.test:99999/",
        "https://gateway.test:0/",
        "https://gateway.test/\r\nX: y",
        "https://gateway.test/ HTTP/1.1",
        "https://gateway.test\\@127.0.0.1/",
        "https://gateway\u3002test/",
    ],
)
def test_what_names_no_place_for_callbacks_says_why(url: str) -> None:
    assert isinstance(place(url), str)


@given(st.text(max_size=60) | st.from_regex(r"https://[^ ]{0,40}"))
def test_no_url_is_too_odd_to_be_judged(url: str) -> None:
    found = place(url)
    assert isinstance(found, str) or (found.host and found.path.isprintable())


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_no_address_is_allowed_that_the_registries_call_special(packed: bytes) -> None:
    address = ipaddress.ip_address(packed)
    if is_allowed(str(address), ()):
        assert address.is_global
        assert not address.is_multicast
