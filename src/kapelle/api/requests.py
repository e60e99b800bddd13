"""Times requests by route and answer, whatever serves them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kapelle.api.asgi import Application, Message, Receive, Scope, Send
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.histogram import Histogram

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
UNKNOWN = "unknown"
"""Whatever is asked for that is no route."""


@dataclass(slots=True)
class Requests:
    """Requests answered since the start, by (route, code)."""

    took: dict[tuple[str, str], Histogram] = field(default_factory=dict)

    def note(self, route: str, code: int, seconds: float) -> None:
        """Count a request. [s]"""
        key = (route, str(code))
        if key not in self.took:
            self.took[key] = Histogram(BOUNDS_S)
        self.took[key].note(seconds)


class Timed:
    """An application whose requests are timed. Routes are as written, never as asked for."""

    def __init__(
        self, app: Application, requests: Requests, clock: Clock, raw: Mapping[str, str]
    ) -> None:
        """Wrap an application. `raw`: paths that are served past the routes, and their names."""
        self._app = app
        self._requests = requests
        self._clock = clock
        self._raw = raw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve and time one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_ns, code = self._clock.now_ns(), 0

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # Whoever hung up before the answer has none.
            if code:
                seconds = (self._clock.now_ns() - began_ns) / NS_PER_S
                self._requests.note(self._route(scope), code, seconds)

    def _route(self, scope: Scope) -> str:
        raw = self._raw.get(scope["path"])
        if raw is not None:
            return raw
        return str(getattr(scope.get("route"), "path", UNKNOWN))
