"""Runs the API: follows the plant's topic and serves HTTP; signals stay the process's own."""

import asyncio
import contextlib
import socket

import uvicorn

from kapelle.api.asgi import Application
from kapelle.api.settings import ApiSettings
from kapelle.api.watch import Watch
from kapelle.errors import Invalid
from kapelle.runtime.exposure import is_loopback
from kapelle.runtime.sockets import listen
from kapelle.runtime.web import WebServer, bounded


class Api:
    """One HTTP server inside the plant's event loop."""

    def __init__(
        self, *, application: Application, watch: Watch | None, settings: ApiSettings
    ) -> None:
        check_exposure(settings)
        self.port = settings.port
        """The real one once the API runs."""
        self.ready = asyncio.Event()
        self._application = application
        self._watch = watch
        self._settings = settings

    async def run(self) -> None:
        """Serve until cancelled; requests under way then get `shutdown_s` to end."""
        settings = self._settings
        listening = _listen(settings.host, settings.port)
        self.port = listening.getsockname()[1]
        server = WebServer(
            uvicorn.Config(
                self._application,
                http=bounded(settings.request_s),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
                limit_concurrency=settings.connections_max,
                h11_max_incomplete_event_size=64 * 1024,
                ssl_certfile=settings.tls_certificate or None,
                ssl_keyfile=settings.tls_key or None,
            ),
            self.ready,
        )
        async with asyncio.TaskGroup() as tasks:
            watching = None
            if self._watch is not None:
                watching = tasks.create_task(self._watch.run(), name="api watch")
            serving = tasks.create_task(server.serve([listening]), name="api serve")
            try:
                await asyncio.shield(serving)
            finally:
                server.should_exit = True
                if not serving.done():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(settings.shutdown_s + 1):
                            await asyncio.shield(serving)
                if watching is not None:
                    watching.cancel()


def check_exposure(settings: ApiSettings) -> None:
    """Refuse to show plain HTTP, and with it the token, to a network (S-17).

    Raises:
        Invalid: The address is not loopback, there is no TLS, and nobody said `insecure`.
    """
    if settings.tls_certificate and settings.tls_key:
        return
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise Invalid("[api] tls_certificate and tls_key go together; give both or none")
    if not settings.insecure and not is_loopback(settings.host):
        raise Invalid(
            f"[api] host {settings.host} can be reached by others and would speak plain HTTP; "
            "give tls_certificate and tls_key, keep host = 127.0.0.1, or say insecure = true "
            "when a proxy in front ends TLS"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise Invalid(f"[api] cannot listen on {host}:{port}: {error.strerror or error}") from error
