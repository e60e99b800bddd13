"""Where the endpoint listens, and where it refuses to."""

import asyncio
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
