"""Simulated IEEE 2030.5 clients: each has a certificate, and a connection of mutual TLS."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kapelle.adapters.ieee2030.identity import lfdi_of
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.adapters.ieee2030.tls import CCM8
from kapelle.config import Config
from kapelle.errors import Invalid, Problem
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, Metric
from kapelle.model.ids import Ints
from kapelle.sim.agents import Answers
from kapelle.sim.peers.ieee2030 import CANNOT, OPTED_OUT, Client, Nameplate
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Setpoints, Tally
from kapelle.sim.telemetry import Reports

_FOLDER = "ieee2030"
_FIRST_S = 1.0
_ATTEMPTS_MAX = 10
_HANDSHAKES_PER_S = 80.0
"""Connections begun at the same time would wait for each other: a handshake costs milliseconds."""
_AT_ONCE = 4
"""Certificates made at the same time."""
_MEASURED = (Metric.POWER_W, Metric.SOC, Metric.EXPORT_WH, Metric.IMPORT_WH)
_RESPONSES = {AckStatus.APPLIED: None, AckStatus.OPTED_OUT: OPTED_OUT, AckStatus.REJECTED: CANNOT}
"""By what a device says of a command: what its client responds. None: as the control has it."""


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: an authority, and a certificate of it for the plant and for each client.

    Raises:
        Invalid: There is no openssl to make them with.
    """
    if shutil.which("openssl") is None:
        what = "needs the command openssl, which makes the certificates of its devices"
        raise Invalid("--mix cannot be followed", [Problem("ieee2030", what, "install openssl")])
    folder = meeting.directory / _FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    addresses = _certify(folder, len(meeting.names))
    settings = Ieee2030Settings(
        port=0,
        tls_certificate=str(folder / "server.pem"),
        tls_key=str(folder / "server.key"),
        tls_client_authority=str(folder / "ca.pem"),
        poll_s=2,
        poll_spread_s=1,
        post_s=2,
        silence_s=10.0,
    )
    return Hearing(replace(config, ieee2030=settings), addresses)


def party(ground: Ground) -> Party:
    """See `Side`."""
    return DerClients(ground)


def _certify(folder: Path, clients: int) -> tuple[str, ...]:
    """Make every certificate; return the LFDI of each client."""
    _openssl(folder, _made("ca", "/CN=authority", ""))
    _openssl(folder, _made("server", "/CN=server", "ca"))
    # Keys cost more than certificates, and clients are told apart by these.
    _openssl(folder, ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout",
                      "-out", "client.key"])  # fmt: skip
    for first in range(0, clients, _AT_ONCE):
        _openssl(
            folder,
            *(
                ["openssl", "req", "-x509", "-key", "client.key", "-subj", f"/CN=client-{number}",
                 "-CA", "ca.pem", "-CAkey", "ca.key", "-out", f"client-{number}.pem"]
                for number in range(first, min(first + _AT_ONCE, clients))
            ),
        )  # fmt: skip
    pems = ((folder / f"client-{number}.pem").read_text() for number in range(clients))
    return tuple(lfdi_of(ssl.PEM_cert_to_DER_cert(pem)) for pem in pems)


def _made(name: str, subject: str, by: str) -> list[str]:
    """Return the command that makes a key and its certificate."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    words += ["-nodes", "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.pem"]
    return [*words, "-CA", f"{by}.pem", "-CAkey", f"{by}.key"] if by else words


def _openssl(folder: Path, *commands: Sequence[str]) -> None:
    quiet = subprocess.DEVNULL
    # The words are ours: names of files, and numbers.
    running = [subprocess.Popen(words, cwd=folder, stderr=quiet) for words in commands]  # noqa: S603
    for process, words in zip(running, commands, strict=True):
        if process.wait() != 0:
            raise Invalid(
                "--mix cannot be followed",
                [Problem("ieee2030", f"{' '.join(words)} failed", "use OpenSSL 3")],
            )


def _tls(folder: Path, number: int) -> ssl.SSLContext:
    """Return how a client connects: with the one suite of the standard."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{CCM8}:@SECLEVEL=0")
    # The authority signs for this plant alone, and the plant has no name.
    context.check_hostname = False
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / f"client-{number}.pem", folder / "client.key")
    return context


class DerClients:
    """The party of IEEE 2030.5 clients. Listener of each."""

    is_read = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        self._tally = Tally()
        folder = Path(ground.start.directory) / _FOLDER
        block = ground.devices.enrolled
        self._clients = [
            Client(
                index,
                lfdi_of(ssl.PEM_cert_to_DER_cert((folder / f"client-{index}.pem").read_text())),
                _tls(folder, index),
                Nameplate(float(block.nameplate_up_w[row]), float(block.nameplate_down_w[row])),
                self,
                now_ns=ground.now_ns,
            )
            for index, row in enumerate(ground.rows.tolist())
        ]
        self._place = {row: index for index, row in enumerate(ground.rows.tolist())}
        self._free = [asyncio.Event() for _ in self._clients]
        """Set while a client has its network."""
        self._attempts = [0] * len(self._clients)
        for free in self._free:
            free.set()

    async def run(self) -> None:
        """See `Party`."""
        secrets = self._ground.secrets
        async with asyncio.TaskGroup() as group:
            for client, secret in zip(self._clients, secrets, strict=True):
                # Who has none was not enrolled, and stays out.
                if secret:
                    group.create_task(self._stay(client))

    async def _stay(self, client: Client) -> None:
        start, rng, index = self._ground.start, self._ground.rng, client.index
        per_s = min(start.connects_per_s, _HANDSHAKES_PER_S)
        await asyncio.sleep(rng.uniform(0.0, len(self._clients) / per_s))
        while True:
            await self._free[index].wait()
            try:
                await client.run(start.host, start.ports[self._ground.protocol])
            except ConnectionRefusedError:
                self._tally.refused += 1
            except OSError:
                self._tally.drops += 1
            pause_s = min(start.back_off_s_max, _FIRST_S * 2.0 ** self._attempts[index])
            self._attempts[index] = min(self._attempts[index] + 1, _ATTEMPTS_MAX)
            await asyncio.sleep(rng.uniform(0.0, pause_s))

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        columns = [reports.values[metric].tolist() for metric in _MEASURED]
        for row, at_ns, *values in zip(
            reports.rows.tolist(), reports.at_ns.tolist(), *columns, strict=True
        ):
            measured = dict(zip(_MEASURED, values, strict=True))
            self._clients[self._place[row]].measure(measured, at_ns)
            self._tally.published += 1

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a device that acts is responded to as started, or as cancelled."""
        rows = zip(
            answers.rows.tolist(), answers.revision.tolist(), answers.status.tolist(), strict=True
        )
        for row, number, status in rows:
            if status in _RESPONSES:
                client = self._clients[self._place[row]]
                client.answered(number, _RESPONSES[AckStatus(status)])

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`. The deaf keep a connection on which they say nothing."""
        for row in rows:
            index = self._place[row]
            self._free[index].clear()
            if self._ground.rng.random() < share_deaf:
                self._clients[index].hears.clear()
            else:
                self._clients[index].cut()

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`. Old connections are found dead, and others opened."""
        loop = asyncio.get_running_loop()
        for row in rows:
            index = self._place[row]
            self._attempts[index] = 0
            self._clients[index].cut()
            self._clients[index].hears.set()
            loop.call_later(self._ground.rng.uniform(0.0, within_s), self._free[index].set)

    def leave(self) -> None:
        """See `Party`."""
        for client in self._clients:
            client.cut()

    def connected(self) -> int:
        """See `Party`."""
        return sum(client.up and client.hears.is_set() for client in self._clients)

    def tally(self) -> Tally:
        """See `Party`."""
        waits_s, self._tally.waits_s = self._tally.waits_s, []
        forgotten = sum(client.overwritten for client in self._clients)
        return replace(
            self._tally, commands=self._setpoints.count, forgotten=forgotten, waits_s=waits_s
        )

    def on_up(self, index: int) -> None:
        """Count it."""
        self._tally.connects += 1
        self._attempts[index] = 0

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> int:
        """Keep it for the next step; `Setpoints` numbers them as they come."""
        self._setpoints.on_setpoint(index, setpoint_w, until_ns)
        return self._setpoints.count

    def on_acked(self, index: int, waited_s: float) -> None:
        """Note how long it took."""
        self._tally.wait(waited_s)
