"""Builds the API: routes, bounds, and one form for every error."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from kapelle import __version__
from kapelle.adapters.http import problems
from kapelle.adapters.http.problems import Fault, Refused
from kapelle.api import capacity as capacity_routes
from kapelle.api import devices as device_routes
from kapelle.api import energy as energy_routes
from kapelle.api import envelopes as envelope_routes
from kapelle.api import history as history_routes
from kapelle.api import quarantine as quarantine_routes
from kapelle.api import reports as report_routes
from kapelle.api import routes
from kapelle.api import why as why_routes
from kapelle.api.asgi import Application, Message, Receive, Scope, Send
from kapelle.api.desk import OrderDesk, Stop
from kapelle.api.energy_desk import EnergyDesk
from kapelle.api.envelope_desk import EnvelopeDesk
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.metrics import IngestCounters, SessionCounters
from kapelle.api.openapi import complete
from kapelle.api.plant import Plant
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.api.requests import Timed
from kapelle.api.settings import ApiSettings
from kapelle.api.sources import Sources
from kapelle.api.watch import Watch
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.ports import Clock, Directory, Journal
from kapelle.registry.persons import People
from kapelle.safety.settings import SafetySettings

TELEMETRY_PATH = "/v1/telemetry"


def build(
    *,
    journal: Journal,
    watch: Watch,
    clock: Clock,
    settings: ApiSettings,
    token: str,
    telemetry: Application | None = None,
    webhooks: Mapping[str, Application] | None = None,
    counters: Mapping[str, IngestCounters] | None = None,
    sessions: Mapping[str, SessionCounters] | None = None,
    quarantine: QuarantineDesk | None = None,
    history: HistoryDesk | None = None,
    directory: Directory | None = None,
    fleets: Callable[[], Mapping[int, Fleet]] = dict,
    sources: Sources | None = None,
    stop: Stop | None = None,
    persons: Mapping[str, str] | None = None,
    people: People | None = None,
    safety: SafetySettings | None = None,
    dispatch: DispatchSettings | None = None,
) -> Application:
    """Return the API as an ASGI application.

    Args:
        journal: Where orders go.
        watch: The plant view; whoever builds runs it.
        clock: The time.
        settings: The bounds.
        token: The bearer token.
        telemetry: Raw application for bulk telemetry (`adapters.http.route.HttpTelemetry`).
        webhooks: Raw applications vendors deliver to, by path (`adapters.cloud.endpoint.Cloud`).
        counters: What ingest counts, by protocol; read at each request.
        sessions: What adapters that keep sessions count, by protocol; read at each request.
        quarantine: What stands behind the quarantine's routes; None: they answer 503.
        history: The same for the long record.
        directory: The names of devices.
        fleets: Returns the live picture of each partition this process keeps.
        sources: What else status and metrics are drawn from; read at each request.
        stop: Holds the plant before the journal has heard of it; None without a last hop here.
        persons: Tokens of further persons, by name.
        people: Those who have tokens in the registry; None: nobody.
        safety: What takes two persons.
        dispatch: How much is kept in reserve.
    """
    desk = OrderDesk(
        journal=journal,
        watch=watch,
        clock=clock,
        settings=settings,
        stop=stop,
        safety=safety,
        dispatch=dispatch,
    )
    app = application()
    app.state.plant = Plant(
        watch=watch,
        desk=desk,
        clock=clock,
        token=token,
        persons=persons if persons is not None else {},
        people=people if people is not None else People(),
        counters=counters if counters is not None else {},
        sessions=sessions if sessions is not None else {},
        damage=journal.damage,
        quarantine=quarantine,
        history=history,
        energy=_energy_desk(journal, history, directory, clock),
        envelopes=EnvelopeDesk(
            journal=journal,
            watch=watch,
            clock=clock,
            standing=dispatch.caps if dispatch is not None else (),
            fleets=fleets,
        ),
        directory=directory,
        fleets=fleets,
        sources=(known := sources if sources is not None else Sources()),
    )
    raw = dict(webhooks if webhooks is not None else {})
    if telemetry is not None:
        raw[TELEMETRY_PATH] = telemetry
    front = _Front(app, raw, settings)
    return Timed(front, known.requests, clock, {path: path for path in raw})


def _energy_desk(
    journal: Journal, history: HistoryDesk | None, directory: Directory | None, clock: Clock
) -> EnergyDesk | None:
    if history is None or directory is None:
        return None
    return EnergyDesk(journal=journal, history=history, directory=directory, clock=clock)


def application() -> FastAPI:
    """Return the routes with nothing behind them yet: enough for the OpenAPI document."""
    app = FastAPI(
        title="Kapelle",
        version=__version__,
        summary="A virtual power plant: telemetry in, one target out, and proof that it happened.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.include_router(routes.guarded)
    app.include_router(report_routes.router)
    app.include_router(why_routes.router)
    app.include_router(quarantine_routes.router)
    app.include_router(capacity_routes.router)
    app.include_router(envelope_routes.router)
    app.include_router(device_routes.router)
    app.include_router(history_routes.router)
    app.include_router(energy_routes.router)
    app.include_router(routes.open_to_all)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    complete(app)
    return app


class _Front:
    """Sends telemetry and deliveries past FastAPI, and bounds the body of everything else."""

    def __init__(
        self, app: Application, raw: Mapping[str, Application], settings: ApiSettings
    ) -> None:
        self._app = app
        self._raw = raw
        """By path; these bound what they read themselves."""
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if (raw := self._raw.get(scope["path"])) is not None:
                await raw(scope, receive, send)
                return
            try:
                first = await self._read(receive)
            except Refused as refused:
                await _answer(refused)(scope, receive, send)
                return
            if first is not None:
                await self._app(scope, _after(first, receive), send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def _read(self, receive: Receive) -> Message | None:
        """Return the whole request body as one message; None when the client has gone."""
        parts: list[bytes] = []
        left = self._settings.body_bytes_max
        try:
            async with asyncio.timeout(self._settings.request_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    part: bytes = message.get("body", b"")
                    parts.append(part)
                    left -= len(part)
                    if left < 0:
                        most = self._settings.body_bytes_max
                        raise Refused(413, "body-too-large", f"at most {most} bytes are read")
                    if not message.get("more_body", False):
                        return {"type": "http.request", "body": b"".join(parts)}
        except TimeoutError:
            raise Refused(408, "body-slow", "the body did not arrive in time") from None


def _after(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _answer(refused: Refused) -> Response:
    return Response(refused.body(), refused.status, refused.headers, media_type=problems.MEDIA_TYPE)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(error)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[:20]
    if any(tuple(one["loc"]) == ("body",) for one in found) and not _is_json(request):
        remedy = "send it with Content-Type: application/json (curl --json)"
        return _answer(Refused(415, "content-type-wrong", f"the body is no JSON; {remedy}"))
    faults = [_fault(one["loc"], str(one["msg"])) for one in found if one["type"] != "json_invalid"]
    where = (
        f"{faults[0].pointer or 'the body'}: {faults[0].detail}"
        if faults
        else "the body is no JSON"
    )
    return _answer(Refused(422, "request-invalid", where, faults=faults))


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _fault(place: Sequence[str | int], message: str) -> Fault:
    source, *rest = place
    if source == "body":
        pointer = "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in rest)
    else:
        pointer = f"{source} {'.'.join(map(str, rest))}"
    return Fault(pointer, message)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "route-unknown", 405: "method-unknown"}.get(error.status_code, "request-refused")
    headers, text = dict(error.headers or {}), str(error.detail)
    if allowed := headers.get("Allow"):
        text = f"{request.url.path} takes {allowed}"
    return _answer(Refused(error.status_code, code, text, headers=headers))


async def _failed(_: Request, __: Exception) -> Response:
    return _answer(Refused(500, "internal", "an error of ours; it is in the log"))
