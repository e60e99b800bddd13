"""Looks at the certificates, keys and authorities a plant names, before it opens anything.

What listens would find out by itself, but as a lost link that is tried for ever, and in OpenSSL's
words, which name no file.
"""

import ssl
from collections.abc import Iterator

from kapelle.config import Config
from kapelle.errors import Invalid, Problem

_SECTIONS = (
    "mqtt",
    "broker",
    "ocpp",
    "openadr",
    "openadr_upstream",
    "ieee2030",
    "sparkplug",
    "topics",
    "api",
)
_AUTHORITIES = ("tls_client_authority", "tls_authority", "authority")


def check_certificates(config: Config) -> None:
    """Refuse files that TLS cannot be done with. Which settings must be set is not looked at.

    Raises:
        Invalid: With every file that is not there, cannot be read, or does not fit its key.
    """
    problems = [
        problem
        for section in _SECTIONS
        if (settings := getattr(config, section)) is not None
        for problem in _problems(section, settings)
    ]
    if problems:
        raise Invalid("the files of TLS cannot be used", problems)


def _problems(section: str, settings: object) -> Iterator[Problem]:
    certificate = getattr(settings, "tls_certificate", "")
    key = getattr(settings, "tls_key", "")
    if certificate and key:
        yield from _pair(section, certificate, key)
    for name in _AUTHORITIES:
        file = getattr(settings, name, "")
        if not file:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError as error:
            what, remedy = _said(file, error), "name a PEM file of certificates"
            yield Problem(f"[{section}] {name}", what, remedy)
        except OSError as error:
            yield Problem(f"[{section}] {name}", *_missing(file, error))


def _pair(section: str, certificate: str, key: str) -> Iterator[Problem]:
    for name, file in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            with open(file, "rb"):
                pass
        except OSError as error:
            yield Problem(f"[{section}] {name}", *_missing(file, error))
            return
    try:
        # A key with a passphrase would be asked for at the terminal, by whatever listens.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        remedy = "name a certificate and its own key, both PEM, the key without a passphrase"
        yield Problem(f"[{section}] tls_certificate", _said(f"{certificate}, {key}", error), remedy)


def _missing(file: str, error: OSError) -> tuple[str, str]:
    what = f"{file} cannot be read: {error.strerror or error}"
    return what, "make the file readable for this user; paths count from where the plant is started"


def _said(file: str, error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return f"{file} cannot be used: {str(reason or error).replace('_', ' ').lower()}"
