"""Mutual TLS as IEEE 2030.5 demands it, and a trial at start of whether OpenSSL here can do it."""

import ssl

from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.errors import Invalid, Problem

CCM8 = "ECDHE-ECDSA-AES128-CCM8"
"""IEEE 2030.5-2018, 6.11.3: every server and client has this suite."""
GCM = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384")
_STEPS_MAX = 20


def check(settings: Ieee2030Settings) -> None:
    """Refuse settings without which nobody could tell who is who."""
    needed = ("tls_certificate", "tls_key", "tls_client_authority")
    problems = [
        Problem(
            f"ieee2030.{key}", "is not set; IEEE 2030.5 is always mutual TLS", "name a PEM file"
        )
        for key in needed
        if not getattr(settings, key)
    ]
    if problems:
        raise Invalid("the IEEE 2030.5 settings cannot be used", problems)


def server_context(settings: Ieee2030Settings) -> ssl.SSLContext:
    """Return how clients are let in: with a certificate, by the suites of the standard.

    Raises:
        OSError: A file cannot be read, or OpenSSL cannot do what the standard demands; the message
            says which.
    """
    suites = (CCM8, *GCM) if settings.gcm else (CCM8,)
    context = _context(ssl.PROTOCOL_TLS_SERVER, suites)
    _load(context, settings)
    context.load_verify_locations(settings.tls_client_authority)
    context.verify_mode = ssl.CERT_REQUIRED
    # Utilities hand out the authority that signs devices, which need not be a root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _try_ccm8(settings)
    return context


def client_context(settings: Ieee2030Settings) -> ssl.SSLContext:
    """Return how notifications are sent: we show our own certificate. Raises OSError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, (CCM8, *GCM))
    # A client is known by its certificate; its address is whatever its network gave it.
    context.check_hostname = False
    context.load_verify_locations(settings.tls_client_authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, settings)
    return context


def _context(protocol: int, suites: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    # 6.11.2: TLS 1.2. With 1.3 neither the suites of the standard nor ours would be used.
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        # OpenSSL counts the 64-bit tag of CCM8 as 64 bits of strength and hides it above level 0.
        # What the level would keep out else is kept out by naming the suites.
        context.set_ciphers(":".join(suites) + ":@SECLEVEL=0")
    except ssl.SSLError:
        raise OSError(_CANNOT) from None
    if CCM8 not in {cipher["name"] for cipher in context.get_ciphers()}:
        raise OSError(_CANNOT)
    return context


_CANNOT = (
    f"{ssl.OPENSSL_VERSION} does not have {CCM8}, without which IEEE 2030.5 cannot be served; "
    "use a Python whose OpenSSL has it"
)


def _load(context: ssl.SSLContext, settings: Ieee2030Settings) -> None:
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except ssl.SSLError as error:
        raise OSError(f"{settings.tls_certificate} and its key cannot be used: {error}") from error


def _try_ccm8(settings: Ieee2030Settings) -> None:
    """Shake hands with ourselves, in memory: an RSA key, say, only fails with a first client."""
    server = _context(ssl.PROTOCOL_TLS_SERVER, (CCM8,))
    _load(server, settings)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, (CCM8,))
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(down, up, server_side=False),
        server.wrap_bio(up, down, server_side=True),
    ]
    left = {0, 1}
    for step in range(_STEPS_MAX):
        try:
            sides[step % 2].do_handshake()
            left.discard(step % 2)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            why = f"a trial with {CCM8} and {settings.tls_certificate} failed: {error.reason}"
            raise OSError(f"{why}; it needs an ECDSA key on the curve P-256") from error
        if not left:
            return
    raise OSError(f"a trial with {CCM8} did not come to an end")
