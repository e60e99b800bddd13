"""Sockets that listen, for whoever accepts connections itself."""

import socket


def listen(host: str, port: int, *, backlog: int = 2_048) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises OSError.

    `backlog`: how many connections wait to be accepted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio sends at once (TCP_NODELAY) on what is accepted here; else an
    # answer in two pieces waits 40 ms for the peer to acknowledge the first.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(backlog)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
