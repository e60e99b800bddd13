"""Where callbacks may go: by https, to addresses that are not in our own networks.

Otherwise whoever may subscribe could have the plant call what only the plant can reach (server-side
request forgery). A name is resolved once and the connection goes to the address that was looked at:
a name that resolves otherwise a moment later gains nothing.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

_PORT = 443
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Place(NamedTuple):
    """Where a callback goes."""

    host: str
    port: int
    path: str
    """With its query."""


def place(url: str) -> Place | str:
    """Return where a callback URL points to, or what is wrong with it."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "is no URL"
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else _PORT
    except ValueError:
        return "is no URL"
    if parts.scheme != "https":
        return "is not https"
    if not parts.hostname or port == 0:
        return "names no host"
    if parts.username is not None or parts.password is not None:
        return "carries credentials; use bearerToken"
    path = parts.path or "/"
    return Place(parts.hostname, port, f"{path}?{parts.query}" if parts.query else path)


def is_bearer(text: str) -> bool:
    """Tell whether a token may stand in a header, without becoming a further one."""
    return len(text) <= 4_096 and text.isascii() and text.isprintable()


def networks(given: Sequence[str]) -> tuple[Network, ...]:
    """Return networks as they stand in the settings. Raises ValueError."""
    return tuple(ipaddress.ip_network(one) for one in given)


def is_allowed(text: str, besides: Sequence[Network]) -> bool:
    """Tell whether a resolved address may be called: public ones, and what the settings allow."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if any(address in network for network in besides if network.version == address.version):
        return True
    return all(_is_public(one) for one in (address, *_inside(address)))


def _is_public(address: Address) -> bool:
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        # Out of use since RFC 3879, and still routed inside networks.
        or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )


def _inside(address: Address) -> Sequence[Address]:
    """Return the IPv4 addresses an IPv6 one stands for: mapped, 6to4, Teredo, NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found: list[Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
