"""What a client asks about orders: giving, previewing, changing and explaining them."""

from kapelle.api.connection import LONG_WAIT_S, Connection, once, said
from kapelle.api.report_shapes import ReportTold
from kapelle.api.shapes import OrdersTold, OrderTold, PreviewTold, SelectionTold
from kapelle.api.why_shapes import OrderWhyTold


class OrderCalls(Connection):
    """The part of `Client` that is about orders."""

    def create_order(
        self,
        *,
        target_w: float | None = None,
        profile: list[dict[str, float]] | None = None,
        resource: str = "all",
        duration_s: float | None = None,
        starts_at: str | None = None,
        ends_at: str | None = None,
        tolerance: float = 0.02,
        product: str = "manual",
        why: str = "",
        key: str = "",
        staged: bool | None = None,
        randomise_s: float | None = None,
    ) -> OrderTold:
        """Order a change of power. `key`: sending the same again gives the same order. [W] [s]

        `profile` instead of `target_w` and an end: intervals, each `duration_s` and `target_w`.
        """
        asked = said(
            target_w=target_w,
            profile=profile,
            resource=resource,
            duration_s=duration_s,
            starts_at=starts_at,
            ends_at=ends_at,
            tolerance=tolerance,
            product=product,
            why=why,
            staged=staged,
            randomise_s=randomise_s,
        )
        return self._ask(OrderTold, "POST", "/v1/orders", asked, once(key))

    def select_order(
        self,
        *,
        target_w: float,
        resource: str = "all",
        duration_s: float = 900.0,
        starts_at: str | None = None,
        staged: bool | None = None,
        randomise_s: float | None = None,
    ) -> SelectionTold:
        """Keep an order for a second person to operate; say what it would do."""
        asked = said(
            target_w=target_w,
            resource=resource,
            duration_s=duration_s,
            starts_at=starts_at,
            staged=staged,
            randomise_s=randomise_s,
        )
        return self._ask(SelectionTold, "POST", "/v1/selections", asked)

    def selection(self, selection_no: int) -> SelectionTold:
        """Return an order that waits for a second person, and what it would do now."""
        return self._ask(SelectionTold, "GET", f"/v1/selections/{selection_no}")

    def operate_order(self, selection_no: int) -> OrderTold:
        """Give the order that somebody else selected."""
        return self._ask(OrderTold, "POST", f"/v1/selections/{selection_no}/operate")

    def why_order(self, order_no: int) -> OrderWhyTold:
        """Say what bound an order, now and over its life."""
        return self._ask(OrderWhyTold, "GET", f"/v1/orders/{order_no}/why")

    def preview_order(
        self,
        *,
        target_w: float | None = None,
        profile: list[dict[str, float]] | None = None,
        resource: str = "all",
        duration_s: float | None = None,
    ) -> PreviewTold:
        """Say what would be promised now, for 15 minutes unless said; order nothing."""
        asked = said(
            target_w=target_w,
            profile=profile,
            resource=resource,
            duration_s=900.0 if duration_s is None and profile is None else duration_s,
            dry_run=True,
        )
        return self._ask(PreviewTold, "POST", "/v1/orders", asked)

    def amend_order(
        self,
        order_no: int,
        *,
        target_w: float | None = None,
        profile: list[dict[str, float]] | None = None,
        duration_s: float | None = None,
        ends_at: str | None = None,
    ) -> OrderTold:
        """Change an order's target, end or profile (from now, as `duration_s` is)."""
        asked = said(target_w=target_w, profile=profile, duration_s=duration_s, ends_at=ends_at)
        return self._ask(OrderTold, "PATCH", f"/v1/orders/{order_no}", asked)

    def cancel_order(self, order_no: int) -> OrderTold:
        """Cancel an order; its devices are released."""
        return self._ask(OrderTold, "DELETE", f"/v1/orders/{order_no}")

    def order(self, order_no: int) -> OrderTold:
        """Return one order."""
        return self._ask(OrderTold, "GET", f"/v1/orders/{order_no}")

    def report(self, order_no: int) -> ReportTold:
        """Return what the long record holds of an order, and whether it delivered."""
        return self._ask(ReportTold, "GET", f"/v1/orders/{order_no}/report", wait_s=LONG_WAIT_S)

    def orders(self, limit: int = 100) -> OrdersTold:
        """Return the newest orders."""
        return self._ask(OrdersTold, "GET", f"/v1/orders?limit={limit}")
