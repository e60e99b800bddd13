"""Serves the VTN's routes over HTTP, and refuses settings under which it must not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from kapelle.adapters.destinations import networks
from kapelle.adapters.openadr.clients import ADAPTER
from kapelle.adapters.openadr.route import Routes
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.errors import Invalid, LinkLost, Problem
from kapelle.runtime.background import background
from kapelle.runtime.exposure import is_loopback
from kapelle.runtime.sockets import listen
from kapelle.runtime.web import WebServer, bounded

_GOODBYE_S = 2.0


@asynccontextmanager
async def served(routes: Routes, settings: OpenAdrSettings) -> AsyncIterator[int]:
    """Serve as long as the block lasts; yields the port. Raises LinkLost where there is none."""
    where = f"{settings.host}:{settings.port}"
    try:
        listening = listen(settings.host, settings.port)
    except OSError as error:
        raise LinkLost(ADAPTER, f"cannot listen on {where}: {error}") from error
    ready = asyncio.Event()
    config = uvicorn.Config(
        routes,
        http=bounded(settings.body_s),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(_GOODBYE_S)),
        limit_concurrency=settings.connections_max,
        h11_max_incomplete_event_size=64 * 1024,
        ssl_certfile=settings.tls_certificate or None,
        ssl_keyfile=settings.tls_key or None,
    )
    try:
        config.load()
    except OSError as error:
        listening.close()
        what = f"{settings.tls_certificate} and its key cannot be used: {error}"
        raise LinkLost(ADAPTER, what) from error
    server = WebServer(config, ready)
    async with background() as beside:
        try:
            serving = beside.start(server.serve([listening]), "OpenADR serve")
            await ready.wait()
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _GOODBYE_S):
                    await asyncio.shield(serving)


def check(settings: OpenAdrSettings) -> None:
    """Refuse what must not be served.

    Raises:
        Invalid: Secrets would travel in the clear, or a file or network is none.
    """
    problems = []
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        what = "certificate and key belong together"
        problems.append(Problem("openadr.tls_key", what, "name both files"))
    if not (settings.tls_certificate or settings.insecure or is_loopback(settings.host)):
        what = f"{settings.host} is reachable from other machines and there is no TLS"
        remedy = "set tls_certificate and tls_key, or insecure = true behind a proxy that ends TLS"
        problems.append(Problem("openadr.host", what, remedy))
    try:
        networks(settings.callback_networks)
    except ValueError as error:
        remedy = 'write networks as "10.1.0.0/16"'
        problems.append(Problem("openadr.callback_networks", str(error), remedy))
    try:
        if settings.callback_authority:
            ssl.create_default_context(cafile=settings.callback_authority)
    except (OSError, ssl.SSLError) as error:
        remedy = "name a PEM file of certificates"
        problems.append(Problem("openadr.callback_authority", str(error), remedy))
    if problems:
        raise Invalid("the OpenADR settings cannot be used", problems)
