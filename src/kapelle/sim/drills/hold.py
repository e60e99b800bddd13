"""The drill of the hold: a plant of its own, real connections, and four ways to stop it (S-24).

`kapelle up` runs in a temporary directory. What was sent when is read from its journal afterwards:
the last hop writes the time at which it looked at each hand-over. Short timers make a stream of
refreshes that never pauses, so that silence tells something.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from kapelle.api.client import Client
from kapelle.errors import KapelleError
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Phases
from kapelle.model.entries import Kind
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, partition_topic
from kapelle.runtime.clock import SystemClock
from kapelle.sim.devices import FleetPlan, make_fleet
from kapelle.sim.drills.verdict import Criterion, Report
from kapelle.sim.peers.leash import Peers, started
from kapelle.sim.peers.messages import Start, Truth
from kapelle.sim.ports import free_port

_CLI = (sys.executable, "-m", "kapelle.cli")
_PARTITIONS = 2
_REVERT_S = 12.0
_WITHIN_S = 1.0
"""S-24."""
_BACK_S = 8.0
"""Beyond their timers devices take so long to be back: their own step, and being seen. [s]"""
_FOLLOWING = 0.25
"""Part of the devices that must follow before a hold tells anything."""
_AGAIN_S = 30.0
"""So long after a release commands leave again."""
_WAIT_S = 60.0
_LOOK_S = 0.1
_BEFORE_S = 10.0
_LEAVING_MIN = 10


@dataclass(slots=True)
class _Stop:
    """One hold. Times are those of the host. [s]"""

    way: str
    held_s: float = 0.0
    """When it was asked for; from a command, when it said that it was done."""
    back_s: float | None = None
    """When the last device was back on its own schedule."""
    released_s: float = 0.0
    again_s: float | None = None
    """When devices followed again."""


@dataclass(slots=True)
class _Site:
    """A plant that is up, and the devices at it."""

    directory: Path
    environment: dict[str, str]
    process: asyncio.subprocess.Process
    client: Client
    peers: Peers


async def run_hold(devices: int, seed: int, say: Callable[[str], None]) -> Report:
    """Hold and release a plant in each way there is.

    Raises:
        KapelleError: The drill could not be played; the message says what was in the way.
    """
    plan = FleetPlan(
        devices=devices, partitions=_PARTITIONS, telemetry_period_s=1.0, revert_s=_REVERT_S
    )
    with tempfile.TemporaryDirectory(prefix="kapelle-drill-", ignore_cleanup_errors=True) as made:
        directory = Path(made)
        stops = [_Stop(way) for way in ("API", "command line", "file", "signal")]
        async with _site(directory, plan, seed) as site:
            await _order(site, devices)
            for stop in stops:
                say(f"hold by {stop.way} …")
                await _play(site, stop, devices)
        sent_s = await _sent_s(directory / "data" / "journal")
    return Report(
        drill="hold",
        title="every command of the plant is stopped, in four ways",
        seeds=[seed],
        fleet=f"{devices} simulated devices over MQTT, timers of {_REVERT_S:g} s",
        criteria=[each for stop in stops for each in _judge(stop, sent_s)],
    )


async def _play(site: _Site, stop: _Stop, devices: int) -> None:
    """Hold in one way, wait until all are back, release, and wait until they follow."""
    await _until(site, lambda truth: truth.following > _FOLLOWING * devices, "devices follow")
    await asyncio.sleep(_BEFORE_S / 2)
    file = site.directory / "data" / "HOLD"
    holds: dict[str, Callable[[], Awaitable[object]]] = {
        "API": lambda: asyncio.to_thread(site.client.hold, "drill"),
        "command line": lambda: _kapelle(site, "hold", "--reason", "drill"),
        "file": lambda: asyncio.to_thread(file.touch),
        "signal": lambda: _signal(site),
    }
    asked_s = time.time()
    await holds[stop.way]()
    # The command line takes a while to start: what counts is when it says that it is done.
    stop.held_s = time.time() if stop.way == "command line" else asked_s
    stop.back_s = await _until(site, lambda truth: truth.following == 0)
    file.unlink(missing_ok=True)
    stop.released_s = time.time()
    if stop.way == "command line":
        await _kapelle(site, "release")
    else:
        await asyncio.to_thread(site.client.release_hold, "drill")
    stop.again_s = await _until(site, lambda truth: truth.following > _FOLLOWING * devices)


async def _signal(site: _Site) -> None:
    site.process.send_signal(signal.SIGUSR1)


def _judge(stop: _Stop, sent_s: list[float]) -> list[Criterion]:
    before = [at_s for at_s in sent_s if stop.held_s - _BEFORE_S < at_s < stop.held_s]
    after_s = [at_s - stop.held_s for at_s in sent_s if stop.held_s < at_s < stop.released_s]
    last_s = max(after_s, default=0.0)
    back_s = None if stop.back_s is None else stop.back_s - stop.held_s
    again_s = None if stop.again_s is None else stop.again_s - stop.released_s
    # Silence where nothing was being said proves nothing.
    is_proof = len(before) >= _LEAVING_MIN
    return [
        Criterion(
            name=f"{stop.way}: last command left after",
            measured=last_s if is_proof else None,
            limit=_WITHIN_S,
            unit="s",
        ),
        Criterion(
            name=f"{stop.way}: devices back by their timers after",
            measured=back_s,
            limit=_REVERT_S + _BACK_S,
            unit="s",
        ),
        Criterion(
            name=f"{stop.way}: following again after release",
            measured=again_s,
            limit=_AGAIN_S,
            unit="s",
        ),
    ]


async def _order(site: _Site, devices: int) -> None:
    await _until(site, lambda truth: truth.connected == devices, "every device is connected")
    await _until_known(site, devices)
    target_w = 1000.0 * devices
    await asyncio.to_thread(lambda: site.client.create_order(target_w=target_w, duration_s=1800.0))


async def _until_known(site: _Site, devices: int) -> None:
    """Wait until the plant has headroom to give: it counts on who has reported."""
    async with asyncio.timeout(_WAIT_S):
        while True:
            told = await asyncio.to_thread(site.client.resource, "all")
            if told.headroom_up_w >= 1000.0 * devices:
                return
            await asyncio.sleep(_LOOK_S)


async def _until(site: _Site, holds: Callable[[Truth], bool], must: str = "") -> float | None:
    """Return when something first held; None where it did not, unless it must."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        if site.process.returncode is not None:
            log = (site.directory / "log").read_text()[-2_000:]
            raise KapelleError(f"kapelle up ended with {site.process.returncode}: {log}")
        truth = site.peers.truth
        if truth is not None and holds(truth):
            return time.time()
        await asyncio.sleep(_LOOK_S)
    if must:
        raise KapelleError(f"{must}: not within {_WAIT_S:g} s")
    return None


@asynccontextmanager
async def _site(directory: Path, plan: FleetPlan, seed: int) -> AsyncIterator[_Site]:
    mqtt, api = free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
    (directory / "kapelle.toml").write_text(
        f'[plant]\ndata_dir = "data"\npartitions = {plan.partitions}\n'
        f"[mqtt]\nport = {mqtt}\n[api]\nport = {api}\n[history]\nenabled = false\n"
    )
    secrets = await _enrol(directory, environment, plan, seed)
    with (directory / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *_CLI, "up", cwd=directory, env=environment, stderr=log, start_new_session=True
        )
    try:
        token = directory / "data" / "api.token"
        await _wait_up(process, directory, api)
        start = Start(
            host="127.0.0.1",
            port=mqtt,
            plan=plan,
            seed=seed,
            secrets=secrets,
            keep_alive_s=10,
            back_off_s_max=2.0,
        )
        with Client(f"http://127.0.0.1:{api}", token.read_text().strip()) as client:
            async with started(start) as peers, asyncio.TaskGroup() as group:
                site = _Site(directory, environment, process, client, peers)
                telling = group.create_task(peers.run(lambda _: None))
                yield site
                telling.cancel()
    finally:
        await _end(process)


async def _enrol(
    directory: Path, environment: dict[str, str], plan: FleetPlan, seed: int
) -> dict[str, str]:
    rows = make_fleet(plan, np.random.default_rng(seed)).rows()
    fleet = [{key: value for key, value in row.items() if value is not None} for row in rows]
    (directory / "fleet.json").write_text(json.dumps(fleet))
    secrets = directory / "secrets.json"
    await _run(directory, environment, "devices", "import", "fleet.json", "--secrets", str(secrets))
    return msgspec.json.decode(secrets.read_bytes(), type=dict[str, str])


async def _wait_up(process: asyncio.subprocess.Process, directory: Path, port: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline and process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(_LOOK_S)
        else:
            writer.close()
            return
    raise KapelleError(f"kapelle up does not answer: {(directory / 'log').read_text()[-2_000:]}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_WAIT_S):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise


async def _kapelle(site: _Site, *arguments: str) -> None:
    await _run(site.directory, site.environment, *arguments)


async def _run(directory: Path, environment: dict[str, str], *arguments: str) -> None:
    """Run a command of ours to its end. Raises KapelleError where it failed."""
    done = await asyncio.create_subprocess_exec(
        *_CLI,
        *arguments,
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await done.communicate()
    if done.returncode:
        raise KapelleError(f"kapelle {' '.join(arguments)}: {said.decode(errors='replace')}")


async def _sent_s(directory: Path) -> list[float]:
    """Return when each command left, in order. [s]"""
    found: list[int] = []
    async with open_journal(JournalSettings(directory=directory), SystemClock()) as journal:
        for partition in range(_PARTITIONS):
            topic = partition_topic(partition)
            for entry in await journal.read(topic, 0, 1_000_000, {Kind.PHASES}):
                assert isinstance(entry.body, Phases)
                found += entry.body.at_ns[entry.body.phase == Phase.SENT].tolist()
    return sorted(at_ns / NS_PER_S for at_ns in found)
