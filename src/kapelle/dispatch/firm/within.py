"""What feeders, zones and vendors let a resource do over a window: no promise is for more."""

from kapelle.dispatch.caps.cells import Capped, told_by
from kapelle.dispatch.promise import parts_of
from kapelle.fleet.plant import PlantView
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Direction


def caps_within(
    view: PlantView, resource: str, direction: Direction, window_s: float
) -> Capped | None:
    """Return a resource's cells with the tightest caps known of a window from now on.

    Of groups that are limited now: others have no cells yet. None where no group is.
    """
    told = told_by(parts_of(view, resource))
    if not told:
        return None
    now_ns = max(summary.tick_ns for summary in view.summaries.values())
    tightest = view.envelopes.tightest(now_ns, now_ns + int(window_s * NS_PER_S))
    return Capped(told, 1 if direction == "up" else -1, besides=tightest)
