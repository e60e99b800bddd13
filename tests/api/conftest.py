"""A real API on a loopback port, over the journal in memory, with a stand-in for dispatch."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from tests.serving import in_thread

from kapelle.api.client import Client
from kapelle.api.server import build
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.api.watch import Watch
from kapelle.dispatch.settings import DispatchSettings
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body, Kind
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import PLANT
from kapelle.model.orders import Amend, Cancel, Order, Plan
from kapelle.model.summaries import Curve, ResourceSummary, Summary
from kapelle.runtime.clock import SystemClock
from kapelle.safety.settings import SafetySettings

TOKEN = "test-token-of-32-characters-here"


def summary(partition: int, tick_ns: int, *, headroom_w: float = 1_000.0) -> Summary:
    curve = Curve([-1.0, 0.0, 1.0], [-headroom_w, 0.0, headroom_w])
    flat = Curve([-1.0, 1.0], [0.0, 0.0])
    values: dict[str, object] = {
        "resource": "all", "devices": 5, "power_w": 100.0, "variance_w2": 16.0,
        "shared_std_w": {"acme": 3.0}, "measured_w": 80.0, "measured_nameplate_w": 9_000.0,
        "freshness": [0, 4, 1, 0, 0], "oldest_age_s": 2.5, "nameplate_w": 10_000.0,
        "uncontrolled_w": 10.0, "headroom_up_w": headroom_w, "headroom_down_w": headroom_w,
        "commanded_w": 0.0, "continuous": curve, "blocks": flat, "phases": [0] * 18,
        "excluded": {"silent": 1}, "by_kind_w": {"battery": 100.0}, "vendors": {"acme": [5, 5]},
    }  # fmt: skip
    return Summary(partition, tick_ns, 1, [ResourceSummary(**values)])  # type: ignore[arg-type]  # fields by name


@dataclass
class Running:
    url: str
    journal: MemoryJournal
    clock: SystemClock
    loop: asyncio.AbstractEventLoop
    plans: bool = True
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
        )

    summary = staticmethod(summary)

    def client(self) -> Client:
        return Client(self.url, TOKEN)

    def append(self, *bodies: Body, writer: str = "dispatch") -> None:
        asyncio.run_coroutine_threadsafe(
            self.journal.append(PLANT, bodies, writer=writer), self.loop
        ).result(5)

    def written(self, *kinds: Kind) -> list[Body]:
        read = self.journal.read(PLANT, 0, 10_000, kinds)
        return [e.body for e in asyncio.run_coroutine_threadsafe(read, self.loop).result(5)]


@contextmanager
def running(
    settings: ApiSettings | None = None,
    *,
    summaries: bool = True,
    plans: bool = True,
    journal: MemoryJournal | None = None,
    persons: Mapping[str, str] | None = None,
    safety: SafetySettings | None = None,
    dispatch_settings: DispatchSettings | None = None,
) -> Iterator[Running]:
    clock = SystemClock()
    journal = journal if journal is not None else MemoryJournal(clock)
    settings = settings if settings is not None else ApiSettings(port=0, plan_wait_s=1.0)
    watch = Watch(journal=journal, clock=clock, partitions=2)
    application = build(
        journal=journal,
        watch=watch,
        clock=clock,
        settings=settings,
        token=TOKEN,
        persons=persons,
        safety=safety,
        dispatch=dispatch_settings,
    )
    api = Api(application=application, watch=watch, settings=settings)

    async def dispatch() -> None:
        """Commits up to 2 kW of every order, as the summaries allow."""
        orders: dict[int, Order] = {}
        async for entries in journal.follow(PLANT, 0, [Kind.ORDER, Kind.AMEND, Kind.CANCEL]):
            for body in (entry.body for entry in entries):
                assert isinstance(body, Order | Amend | Cancel)
                if isinstance(body, Order):
                    orders[body.order_no] = body
                target_w = orders[body.order_no].target_w
                if isinstance(body, Amend):
                    target_w = body.target_w
                is_cancelled = isinstance(body, Cancel)
                most = 0.0 if is_cancelled else min(target_w, 2_000.0)
                status = OrderStatus.CANCELLED if is_cancelled else OrderStatus.ACTIVE
                reason = "headroom" if target_w > most else ""
                plan = Plan(
                    body.order_no, clock.now_ns(), 1, status, 200.0, most, target_w - most, reason
                )
                if plans:
                    await journal.append(PLANT, [plan], writer="dispatch")

    async def speak() -> None:
        if summaries:
            now = clock.now_ns()
            await journal.append(PLANT, [summary(0, now), summary(1, now)], writer="owner")

    with in_thread(api, dispatch, before=speak) as loop:
        live = Running(f"http://127.0.0.1:{api.port}", journal, clock, loop)
        with live.http:
            yield live


@pytest.fixture(scope="session")
def run_api() -> Callable[..., AbstractContextManager[Running]]:
    """Return what starts an API."""
    return running
