"""An order desk of paper, for the VEN."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kapelle.adapters.openadr.upstream import Declined, NotNow
from kapelle.adapters.openadr.utility import Ask, Given


@dataclass
class PaperOrders:
    """Keeps what it is told; `declines` and `later` say why nothing is taken."""

    orders: list[Given] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    declines: str = ""
    later: str = ""
    now_ns: int = 0

    def power_w(self, resource: str) -> float:
        return -1_000.0

    def given(self, key: str) -> Sequence[Given]:
        return [one for one in self.orders if one.key.startswith(key)]

    async def place(self, resource: str, ask: Ask, key: str, author: str) -> None:
        self._refuse()
        self.calls.append("place")
        number = len(self.orders) + 1
        self.orders.append(
            Given(number, key, ask, float("nan"), ask.steps[0][1], "active", True, "", 0)
        )

    async def change(self, order_no: int, ask: Ask, author: str) -> None:
        self._refuse()
        self.calls.append("change")
        before = self.orders[order_no - 1]
        self.orders[order_no - 1] = before._replace(ask=ask, amended_at_ns=self.now_ns)

    async def end(self, order_no: int, author: str) -> None:
        self.calls.append("end")
        before = self.orders[order_no - 1]
        self.orders[order_no - 1] = before._replace(is_open=False, state="cancelled")

    def _refuse(self) -> None:
        if self.later:
            raise NotNow(self.later)
        if self.declines:
            raise Declined(self.declines)
