"""An owner's app on `tesla-fleet-api`, which nobody here wrote: renews its token, reads, commands.

Run by an interpreter that has that library. Arguments: the address of a vendor, client id, refresh
token, site, mode. Prints what it was answered.
"""

import asyncio
import json
import sys
from typing import Any

import aiohttp
from tesla_fleet_api import TeslaFleetOAuth


class Elsewhere(aiohttp.ClientSession):
    """Leads what goes to Tesla's own addresses to the vendor on trial."""

    def post(self, url: str, **more: Any) -> Any:
        return super().post(sys.argv[1] + "/" + url.split("/", 3)[3], **more)


async def main() -> None:
    base_url, client_id, refresh_token, site, mode = sys.argv[1:]
    async with Elsewhere() as session:
        api = TeslaFleetOAuth(session, "eu", client_id, refresh_token=refresh_token)
        api.server = base_url
        home = api.energySites.create(int(site))
        print(json.dumps([await home.live_status(), await home.operation(mode)]))


asyncio.run(main())
