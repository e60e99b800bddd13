"""The slow integral: what error remains between target and estimate, while the estimate can tell.

What is known to have dropped out is replaced by the levels themselves; the trim is for what nobody
told. It must not learn from anything else: not from devices that are still on their way, not from
what the plant holds back on purpose, and not from what no level could bring.
"""

from math import exp, isnan

from kapelle.dispatch.memory import Cycle, Running
from kapelle.fleet.plant import Aggregate
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S

_WAITING = (Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.CANCELLED)
"""Asked, and not known to follow: under way, or held back by the limits of the last hop."""


def step_trim(
    running: Running, cycle: Cycle, known: Aggregate, committed_w: float, target_w: float
) -> None:
    """Take up a part of the error.

    It stands still while a partition is not summed up anew and when a device was just excluded. It
    rests while measurements still lag behind a plan that moved, while too little is measured, and
    while the last hop holds commands back. Within the estimate's own error it fades.

    Args:
        running: What the loop remembers of the order.
        cycle: What every order of the cycle has in common.
        known: The resource as it is.
        committed_w: What is promised now; it bounds the trim. [W]
        target_w: Where the resource should be. [W]
    """
    settings, now_ns = cycle.settings, cycle.now_ns
    # Counted in ticks: while a partition tells nothing new, no more of its old error is taken up.
    elapsed_s = (known.tick_ns - running.trimmed_ns) / NS_PER_S if running.trimmed_ns else 0.0
    running.trimmed_ns = max(known.tick_ns, running.trimmed_ns)
    if elapsed_s <= 0.0 or not known.age_s <= settings.summary_age_s_max:
        return
    error_w = target_w - known.net_w
    if abs(error_w) <= known.std_w:
        running.trim_w *= exp(-elapsed_s / settings.trim_fades_s)
        return
    waiting = sum(known.phases[phase] for phase in _WAITING)
    if now_ns < running.settled_at_ns or waiting > settings.waiting_max * sum(known.phases):
        return
    if isnan(known.measured_share) or known.measured_share < settings.measured_share_min:
        return
    if sum(known.excluded.values()) > running.uncounted >= 0:
        return
    most_w = settings.trim_max * abs(committed_w)
    step_w = settings.trim_per_s * min(elapsed_s, 5.0) * error_w
    running.trim_w = min(max(running.trim_w + step_w, -most_w), most_w)


def unwind(trim_w: float, beyond_w: float) -> float:
    """Return the trim without the part that no level can bring (anti-windup). [W]

    Args:
        trim_w: As it is.
        beyond_w: How far the target with the trim lies outside the range; signed.
    """
    if trim_w * beyond_w <= 0.0:
        return trim_w
    return max(trim_w - beyond_w, 0.0) if trim_w > 0.0 else min(trim_w - beyond_w, 0.0)
