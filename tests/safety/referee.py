"""What was let out and what was not, judged slowly from the stream alone: no ledgers, no sums kept.

Nothing here is shared with the gate but the settings and the words for its rules.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import floor, inf, isnan

from kapelle.safety import gate
from kapelle.safety.settings import EACH, GroupLimit, SafetySettings

SLACK = 1e-3
"""Of watts: what sums of floats may be off by …"""
MOMENT = 1e-6
"""… and of seconds, and of credits."""
SWITCHING_S, SWITCHING_LOOSE_S = 10.0, 12.0
HOUR_S, HOUR_LOOSE_S = 3600.0, 4500.0
DAY_S, DAY_LOOSE_S = 86_400.0, 108_000.0
AUTHORITY_LOOSE_S = 4200.0
"""A limit over a time may be kept over a longer one, up to this."""


@dataclass(frozen=True)
class Device:
    number: int
    name: str
    up_w: float
    down_w: float
    switched: bool = False
    zone: str = ""
    feeder: str = ""
    site: str = ""
    is_enrolled: bool = True

    def label(self, level: str) -> str:
        return self.name if level == "device" else str(getattr(self, level, ""))


@dataclass(frozen=True)
class Told:
    """One command at the moment it was given."""

    at_s: float
    device: Device
    setpoint_w: float
    revert_s: float
    ttl_s: float
    issuer: str
    order_no: int = 0

    @property
    def is_setpoint(self) -> bool:
        return not isnan(self.setpoint_w)

    @property
    def sure_s(self) -> float:
        """When its timer ends at the earliest; never, without one."""
        return self.at_s + self.revert_s

    @property
    def until_s(self) -> float:
        """When it has certainly ended."""
        return self.sure_s + self.ttl_s

    def departs_w(self, way: int) -> float:
        """How far from any schedule of its own it may put the device."""
        if not self.is_setpoint:
            return 0.0
        low_w = -self.device.down_w
        off_w = self.setpoint_w - low_w if way > 0 else self.device.up_w - self.setpoint_w
        return max(off_w, 0.0)

    @property
    def is_on(self) -> bool:
        return abs(self.setpoint_w) > 0.5 * max(self.device.up_w, self.device.down_w)


@dataclass
class Referee:
    """Knows the stream so far and says what another command would break, and what it might."""

    settings: SafetySettings
    devices: list[Device]
    sent: list[Told] = field(default_factory=list)
    """What left, whichever of several gates let it out."""

    def here(self, told: Told) -> Device:
        """Return a device as it is enrolled now; `told.device` is as it was then."""
        return self.devices[told.device.number]

    def members(self, limit: GroupLimit, told: Told) -> Callable[[Device], bool] | None:
        """Return who shares a limit with a device; None where it does not apply to it."""
        if limit.level == "plant":
            return lambda _: True
        mine = told.device.label(limit.level)
        if limit.name not in (EACH, mine):
            return None
        return lambda other: other.label(limit.level) == mine

    def before(self, told: Told, stream: Iterable[Told]) -> Told | None:
        """Return the device's command before this one."""
        number = told.device.number
        return next((t for t in reversed(list(stream)) if t.device.number == number), None)

    def ends_s(self, told: Told, stream: list[Told]) -> float:
        """Return when a setpoint is certainly over. Without a timer it lasts until a release, which
        may get lost and is repeated for as long as the longest timer."""
        if told.until_s < inf:
            return told.until_s
        later = stream[next(place for place, t in enumerate(stream) if t is told) :]
        number = told.device.number
        let_go = [t for t in later if t.device.number == number and not t.is_setpoint]
        return let_go[0].at_s + let_go[0].ttl_s + self.settings.revert_s_max if let_go else inf

    def moves_w(self, told: Told, way: int, stream: list[Told]) -> float:
        """Return how far a setpoint moves its device at worst, after this stream."""
        last = self.before(told, stream)
        if last is None or not last.is_setpoint or last.sure_s <= told.at_s:
            return told.departs_w(way)
        return max(way * (told.setpoint_w - last.setpoint_w), 0.0)

    def switches(self, told: Told, stream: list[Told]) -> bool:
        last = self.before(told, stream)
        if not (told.device.switched and told.is_setpoint):
            return False
        known = last is not None and last.is_setpoint and last.sure_s > told.at_s
        return not (known and last is not None and last.is_on == told.is_on)

    def standing_w(
        self, limit: GroupLimit, told: Told, way: int, stream: list[Told], *, loose: bool
    ) -> float:
        """Return how far the group may stand from its schedules with this setpoint.

        Loosely: setpoints count for another longest validity and a second after their end.
        """
        shares = self.members(limit, told)
        assert shares is not None
        furthest: dict[int, float] = {}
        lasts = [self.ends_s(t, stream) - t.at_s for t in stream if t.is_setpoint]
        longest_s = max((each for each in lasts if each < inf), default=0.0) + 1.001
        if loose and any(t.revert_s == inf for t in stream):
            longest_s += self.settings.revert_s_max + self.settings.valid_s_max
        for each in stream:
            ends_s = self.ends_s(each, stream) + (longest_s if loose else 0.0)
            if each.is_setpoint and shares(self.here(each)) and ends_s > told.at_s:
                number = each.device.number
                furthest[number] = max(furthest.get(number, 0.0), each.departs_w(way))
        return sum(furthest.values())

    def breaks_power(self, told: Told, stream: list[Told], *, loose: bool) -> bool:
        """Tell whether this adds to what stands in a group, and takes it beyond its limit."""
        for limit in self.settings.limits:
            if not told.is_setpoint or self.members(limit, told) is None or limit.power_w == inf:
                continue
            for way in (1, -1):
                before_w = self.standing_w(limit, told, way, stream, loose=loose)
                after_w = self.standing_w(limit, told, way, [*stream, told], loose=loose)
                slack_w = -SLACK if loose else SLACK
                if after_w > limit.power_w + slack_w and (loose or after_w > before_w + SLACK):
                    return True
        return False

    def breaks_ramp(self, told: Told, stream: list[Told], *, loose: bool) -> bool:
        """No stretch of time that ends now has more of it than its length and the burst allow."""
        for limit in self.settings.limits:
            shares = self.members(limit, told)
            if shares is None or limit.ramp_w_per_min == inf or not told.is_setpoint:
                continue
            pace_w = limit.ramp_w_per_min / 60
            for way in (1, -1):
                moved_w = 0.0
                whole = [*stream, told]
                for place in range(len(whole) - 1, -1, -1):
                    each = whole[place]
                    if each.is_setpoint and shares(each.device):
                        moved_w += self.moves_w(each, way, whole[:place])
                        most_w = pace_w * (told.at_s - each.at_s + limit.ramp_burst_s)
                        if moved_w > most_w + (-SLACK if loose else SLACK):
                            return True
        return False

    def breaks_switching(self, told: Told, stream: list[Told], *, loose: bool) -> bool:
        span_s = SWITCHING_LOOSE_S if loose else SWITCHING_S
        whole = [*stream, told]
        if not self.switches(told, stream):
            return False
        for limit in self.settings.limits:
            shares = self.members(limit, told)
            if shares is None:
                continue
            population = sum(d.is_enrolled and d.switched and shares(d) for d in self.devices)
            count = sum(
                shares(each.device)
                and told.at_s - each.at_s < span_s
                and self.switches(each, whole[:place])
                for place, each in enumerate(whole)
            )
            share = limit.switching_share
            most = max(floor(share * population), 1) if share < 1 else inf
            if count > min(most, limit.switching_max):
                return True
        return False

    def breaks_dwell(self, told: Told, stream: list[Told], *, loose: bool) -> bool:
        """Tell its life from the beginning: on, off, let go, by command or by its timer."""
        if not self.switches(told, stream):
            return False
        state, since_s, last = "", -inf, None
        number = told.device.number
        for each in [t for t in [*stream, told] if t.device.number == number]:
            if last is not None and last.is_setpoint and last.sure_s <= each.at_s:
                state, since_s = "let go", min(last.until_s, each.at_s)
            if each is told:
                break
            now = ("on" if each.is_on else "off") if each.is_setpoint else "let go"
            if now != state:
                state, since_s = now, each.at_s
            last = each
        return told.at_s - since_s < self.settings.dwell_s + (MOMENT if loose else -MOMENT)

    def count(self, told: Told, span_s: float) -> int:
        number = told.device.number
        mine = [t for t in self.sent if t.device.number == number]
        return sum(told.at_s - t.at_s < span_s for t in mine) + 1

    def breaks_day(self, told: Told, *, loose: bool) -> bool:
        if not told.is_setpoint:
            return False
        hour_s, day_s = (HOUR_LOOSE_S, DAY_LOOSE_S) if loose else (HOUR_S, DAY_S)
        return (
            self.count(told, hour_s) > self.settings.commands_per_hour
            or self.count(told, day_s) > self.settings.commands_per_day
        )

    def breaks_minute(self, told: Told, *, loose: bool) -> bool:
        """Credit as the settings describe it, spent one by one."""
        pace = self.settings.commands_per_minute / 60
        credit, at_s = self.settings.commands_burst, -inf
        number = told.device.number
        for each in [t for t in self.sent if t.device.number == number]:
            credit = min(credit + (each.at_s - at_s) * pace, self.settings.commands_burst) - 1
            at_s = each.at_s
        credit = min(credit + (told.at_s - at_s) * pace, self.settings.commands_burst)
        return credit < 1 + (MOMENT if loose else -MOMENT)

    def breaks_authority(self, told: Told, stream: list[Told], *, loose: bool) -> bool:
        span_s = AUTHORITY_LOOSE_S if loose else HOUR_S
        whole = [*stream, told]
        moved_w = sum(
            max(self.moves_w(each, way, whole[:place]) for way in (1, -1))
            for place, each in enumerate(whole)
            if each.is_setpoint and each.issuer == told.issuer and told.at_s - each.at_s < span_s
        )
        return told.is_setpoint and moved_w > self.settings.authority_w_per_hour + SLACK

    def breaks(self, told: Told) -> set[str]:
        """Return the rules that must not let this pass."""
        stream = self.sent
        return {
            rule
            for rule, broken in {
                gate.POWER: self.breaks_power(told, stream, loose=False),
                gate.RAMP: self.breaks_ramp(told, stream, loose=False),
                gate.SWITCHING: self.breaks_switching(told, stream, loose=False),
                gate.DWELL: self.breaks_dwell(told, stream, loose=False),
                gate.RATE: self.breaks_minute(told, loose=False),
                gate.RATE_DAY: self.breaks_day(told, loose=False),
                gate.AUTHORITY: self.breaks_authority(told, stream, loose=False),
            }.items()
            if broken
        }

    def may_refuse(self, rule: str, told: Told, earlier: list[Told]) -> bool:
        """Tell whether a rule may refuse this, `earlier` of the same block having been asked for
        before, whatever became of it."""
        stream = [*self.sent, *earlier]
        judged: dict[str, Callable[[], bool]] = {
            gate.POWER: lambda: self.breaks_power(told, stream, loose=True),
            gate.RAMP: lambda: self.breaks_ramp(told, stream, loose=True),
            gate.SWITCHING: lambda: self.breaks_switching(told, stream, loose=True),
            gate.DWELL: lambda: self.breaks_dwell(told, stream, loose=True),
            gate.RATE: lambda: self.breaks_minute(told, loose=True),
            gate.RATE_DAY: lambda: self.breaks_day(told, loose=True),
            gate.AUTHORITY: lambda: self.breaks_authority(told, stream, loose=True),
        }
        return judged[rule]()
