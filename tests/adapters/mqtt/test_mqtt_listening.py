"""Where the endpoint listens, and where it refuses to."""

import asyncio
import socket
from typing import Any

import pytest

from kapelle.errors import Invalid, LinkLost


def test_plaintext_is_refused_where_others_can_reach_it(open_plant: Any) -> None:
    with pytest.raises(Invalid, match="insecure"):
        open_plant(host="0.0.0.0")
    open_plant(host="0.0.0.0", insecure=True)
    open_plant(host="::1")
    with pytest.raises(Invalid, match="name both files"):
        open_plant(tls_certificate="cert.pem")


def test_a_taken_port_is_a_lost_link(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            with pytest.raises(LinkLost, match="cannot listen"):
                async with open_plant(port=plant.port):
                    pass

    asyncio.run(check())


def test_what_is_written_to_a_device_leaves_at_once(open_plant: Any) -> None:
    """Without TCP_NODELAY a command right behind an acknowledgement waits 40 ms for the device."""

    async def check() -> None:
        async with open_plant() as plant:
            await plant.device(3)
            (session,) = plant.endpoint._sessions.values()
            ours = session._transport.get_extra_info("socket")
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    asyncio.run(check())
