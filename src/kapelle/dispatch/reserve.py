"""The part of headroom that is never promised, so that it can do the part of who drops out."""

from dataclasses import dataclass

from kapelle.dispatch.promise import Room
from kapelle.dispatch.settings import DispatchSettings
from kapelle.words import power


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is kept free of one resource. [W]"""

    up_w: float
    down_w: float
    room: Room

    def bounded_w(self, power_w: float) -> float:
        """Return the part of a change that may be promised."""
        most_w, least_w = self.room.up_w - self.up_w, self.down_w - self.room.down_w
        return min(max(power_w, least_w), most_w)

    def reason(self, target_w: float, committed_w: float) -> str:
        """Say that the reserve binds; empty where more could not be promised without it either."""
        kept_w = self.up_w if target_w > 0 else self.down_w
        if kept_w <= 0.0 or abs(committed_w) >= abs(self.room.committed_w(target_w)):
            return ""
        asked = f"of {power(target_w)} asked {power(committed_w)} are promised"
        return f"reserve: {asked}; {power(kept_w)} of headroom are kept to replace who drops out"


def reserve_of(settings: DispatchSettings, resource: str, room: Room) -> Reserve:
    """Return what is kept free of a resource that has this much room."""
    share = share_of(settings, resource)
    return Reserve(share * room.up_w, share * room.down_w, room)


def share_of(settings: DispatchSettings, resource: str) -> float:
    """Return the part of a resource's headroom that is kept free. 0-1"""
    return settings.reserve.get(resource, settings.reserve_share)
