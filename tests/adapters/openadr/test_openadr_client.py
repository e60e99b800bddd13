"""A gateway nobody here wrote: `python-oa3-client` 0.5 as VEN, in an environment of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, opened, until
from tests.adapters.foreign import python_environment
from tests.adapters.openadr.trial import OpenAdrTrial, report

from kapelle.adapters.openadr.route import BASE
from kapelle.adapters.openadr.vtn import Vtn
from kapelle.model.enums import AckStatus

_VEN = Path(__file__).with_name("ven.py")
_PINNED = ("python-oa3-client==0.5.0", "openadr3==0.5.0")
_PATIENCE_S = 30.0


class Ven:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, what: str, **more: object) -> object:
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None
        assert writer is not None
        writer.write(json.dumps({"do": what} | more).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE_S):
            line = await reader.readline()
        return json.loads(line)

    async def told(self) -> list[dict]:
        events = await self.do("events")
        assert isinstance(events, list)
        return [event for event in events if event["id"] != "kapelle-telemetry"]


@asynccontextmanager
async def started(python: Path, vtn: Vtn) -> AsyncIterator[Ven]:
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(_VEN),
        f"http://127.0.0.1:{vtn.port}{BASE}",
        DEVICE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"VEN_SECRET": SECRET},
    )
    try:
        yield Ven(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.integration
def test_a_ven_of_others_reports_is_told_and_acknowledges() -> None:
    python = python_environment("python-oa3-client", _PINNED)

    async def run() -> None:
        vtn, directory = OpenAdrTrial().adapter()
        assert isinstance(vtn, Vtn)
        async with opened(vtn, directory) as plant, started(python, vtn) as ven:
            resources = await ven.do("resources")
            assert [one["resourceName"] for one in resources] == [DEVICE]

            assert await ven.do("report", report=report(-2_000.0)) == 201
            assert await plant.power_w() == [-2_000.0]

            async def written() -> bool:
                await ven.do("events")
                return await plant.send(-2_000.0)

            await until(written)
            (event,) = await ven.told()
            assert event["targets"] == [DEVICE]
            (interval,) = event["intervals"]
            assert interval == {"id": 1, "payloads": [["DISPATCH_SETPOINT", [2.0]]]}
            assert await plant.answers() == []

            said = report(-2_000.0, event["id"])
            said["resources"][0]["intervals"][0]["id"] = interval["id"]
            said["resources"][0]["intervals"][0]["payloads"].append(
                {"type": "OPERATING_STATE", "values": ["RUNNING_CURTAILED"]}
            )
            assert await ven.do("report", report=said) == 201
            assert await plant.answers() == [(1, AckStatus.APPLIED)]

            assert await plant.send(float("nan"), revision=2)
            (ended,) = await ven.told()
            assert (ended["id"], ended["intervals"]) == (event["id"], [{"id": 2, "payloads": []}])

    asyncio.run(run())
