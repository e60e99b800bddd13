"""Simulated IEEE 2030.5 clients: each has a certificate, and a connection of mutual TLS."""

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
from kapelle.model.enums import AckStatus, Metric
from kapelle.sim.agents import Answers
from kapelle.sim.peers.callers import Callers
from kapelle.sim.peers.ieee2030 import CANNOT, OPTED_OUT, Client, Nameplate
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party
from kapelle.sim.telemetry import Reports

_FOLDER = "ieee2030"
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
    running = [
        subprocess.Popen(words, cwd=folder, stderr=quiet)  # noqa: S603  # names of files, numbers
        for words in commands
    ]
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


class DerClients(Callers[Client]):
    """The party of IEEE 2030.5 clients, which respond to each control when their device has."""

    def _made(self, index: int, name: str, secret: str) -> Client:
        folder = Path(self._ground.start.directory) / _FOLDER
        certificate = (folder / f"client-{index}.pem").read_text()
        block, row = self._ground.devices.enrolled, self._ground.rows[index]
        return Client(
            index,
            lfdi_of(ssl.PEM_cert_to_DER_cert(certificate)),
            _tls(folder, index),
            Nameplate(float(block.nameplate_up_w[row]), float(block.nameplate_down_w[row])),
            self,
            now_ns=self._ground.now_ns,
        )

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        columns = [reports.values[metric].tolist() for metric in _MEASURED]
        for row, at_ns, *values in zip(
            reports.rows.tolist(), reports.at_ns.tolist(), *columns, strict=True
        ):
            measured = dict(zip(_MEASURED, values, strict=True))
            self._callers[self._place[row]].measure(measured, at_ns)
            self._tally.published += 1

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a device that acts is responded to as started, or as cancelled."""
        rows = zip(
            answers.rows.tolist(), answers.revision.tolist(), answers.status.tolist(), strict=True
        )
        for row, number, status in rows:
            if status in _RESPONSES:
                client = self._callers[self._place[row]]
                client.answered(number, _RESPONSES[AckStatus(status)])

    def told(self, index: int, setpoint_w: float, until_ns: int) -> int:
        """Keep a setpoint; return its number: `Setpoints` counts them as they come."""
        self.on_setpoint(index, setpoint_w, until_ns)
        return self._setpoints.count
