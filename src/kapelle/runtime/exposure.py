"""Who can reach an address: listeners elsewhere than on this machine need TLS."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address. A name that is not one is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
