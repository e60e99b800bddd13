"""How much of a replacement has to wait because those to be replaced may still act (R-17)."""

from collections.abc import Sequence

from kapelle.model.summaries import ResourceSummary


def held_back_w(
    parts: Sequence[ResourceSummary], committed_w: float, overshoot_budget: float
) -> float:
    """Return what the devices counted on must leave undone, as a change of their power. [W]

    With everyone who may still act acting, the resource then does what was promised and at most the
    budget more: a part of the promise, or the one device that could do most. In the direction of
    the promise alone: what may be missing is made good when it is. Nothing promised (an interval of
    a profile) has no direction.

    Args:
        parts: What each partition last said about the resource.
        committed_w: What was promised, signed. [W]
        overshoot_budget: As a part of it. 0-1
    """
    one_w = max((part.doubt_most_w for part in parts), default=0.0)
    budget_w = max(overshoot_budget * abs(committed_w), one_w)
    if committed_w == 0.0:
        return 0.0
    if committed_w > 0.0:
        return -max(sum(part.doubt_up_w for part in parts) - budget_w, 0.0)
    return max(sum(part.doubt_down_w for part in parts) - budget_w, 0.0)
