"""What the plant would promise now, before anything is ordered."""

from dataclasses import dataclass

from kapelle.fleet.plant import PlantView, total


@dataclass(frozen=True, slots=True)
class Preview:
    """The part of a target that is there at this moment, and what binds the rest."""

    committed_w: float
    declined_w: float
    reason: str
    baseline_w: float
    headroom_up_w: float
    headroom_down_w: float
    devices: int
    excluded: dict[str, int]


def preview(view: PlantView, resource: str, target_w: float) -> Preview:
    """Return what would be committed of a target that started now. Nothing is written."""
    now = total(view, resource)
    room_w = now.headroom_up_w if target_w >= 0 else -now.headroom_down_w
    committed_w = min(target_w, room_w) if target_w >= 0 else max(target_w, room_w)
    declined_w = target_w - committed_w
    reason = ""
    if declined_w:
        way = "towards export" if target_w > 0 else "towards consumption"
        reason = f"headroom: {abs(room_w):.0f} W {way} is all that can be held for 15 minutes"
    return Preview(
        committed_w=committed_w,
        declined_w=declined_w,
        reason=reason,
        baseline_w=now.power_w,
        headroom_up_w=now.headroom_up_w,
        headroom_down_w=now.headroom_down_w,
        devices=now.devices,
        excluded=now.excluded,
    )
