"""Certificates as IEEE 2030.5 wants them (ECDSA on P-256), made once for all tests."""

import shutil
import ssl
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from kapelle.adapters.ieee2030.identity import lfdi_of

CCM8 = "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"
_CURVE = ("-pkeyopt", "ec_paramgen_curve:prime256v1")


class Pair(NamedTuple):
    certificate: Path
    key: Path

    @property
    def lfdi(self) -> str:
        return lfdi_of(ssl.PEM_cert_to_DER_cert(self.certificate.read_text()))


@cache
def folder() -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: it makes certificates")
    return Path(tempfile.mkdtemp(prefix="kapelle-ieee2030-"))


def authority(name: str = "authority") -> Pair:
    return _authority(name)


@cache
def _authority(name: str) -> Pair:
    made = Pair(folder() / f"{name}.pem", folder() / f"{name}.key")
    _openssl("req", "-x509", "-newkey", "ec", *_CURVE, "-nodes", "-days", "3650", "-subj",
             f"/CN={name}", "-keyout", str(made.key), "-out", str(made.certificate))  # fmt: skip
    return made


def signed(name: str, by: str = "authority") -> Pair:
    """Return a certificate for a server on 127.0.0.1, or for a client."""
    return _signed(name, by)


@cache
def _signed(name: str, by: str) -> Pair:
    made, signer = Pair(folder() / f"{name}.pem", folder() / f"{name}.key"), authority(by)
    request, extension = folder() / f"{name}.csr", folder() / f"{name}.ext"
    extension.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
    _openssl("req", "-newkey", "ec", *_CURVE, "-nodes", "-subj", f"/CN={name}",
             "-keyout", str(made.key), "-out", str(request))  # fmt: skip
    _openssl("x509", "-req", "-in", str(request), "-CA", str(signer.certificate), "-CAkey",
             str(signer.key), "-CAcreateserial", "-days", "3650", "-extfile", str(extension),
             "-out", str(made.certificate))  # fmt: skip
    return made


def client_tls(pair: Pair | None, ciphers: str = CCM8) -> ssl.SSLContext:
    """Return how a client connects, by default with the one suite of the standard."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    context.load_verify_locations(authority().certificate)
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
