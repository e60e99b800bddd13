"""The closed vocabularies of the plant. Numbers are stored in the journal and never reused."""

from enum import IntEnum, unique


@unique
class DeviceKind(IntEnum):
    """What a device is, physically."""

    BATTERY = 0
    PV = 1
    EV = 2
    HEAT_PUMP = 3
    WATER_HEATER = 4
    LOAD = 5
    GENERATOR = 6


SWITCHED = (DeviceKind.HEAT_PUMP, DeviceKind.WATER_HEATER)
"""Kinds that are on or off; every other kind follows any setpoint within its limits."""


@unique
class Metric(IntEnum):
    """What a reading measures. Power is positive towards the grid."""

    POWER_W = 0
    SOC = 1
    EXPORT_WH = 2
    """Energy register towards the grid; only counts up."""
    IMPORT_WH = 3
    MAX_W = 4
    """Highest power (towards export) the device could reach now."""
    MIN_W = 5
    """Lowest power (towards consumption) the device could reach now."""
    VOLTAGE_V = 6
    FREQUENCY_HZ = 7
    SETPOINT_W = 8
    """What the device says it was set to; absent where it follows its own schedule."""
    MODE = 9
    """Whose will the device says it follows: a `DeviceMode`."""


@unique
class DeviceMode(IntEnum):
    """Whose will a device says it follows; lower case on the wire."""

    OWN = 0
    """Its own schedule."""
    COMMAND = 1
    """A setpoint of ours."""
    LOCAL = 2
    """Somebody on site has taken over."""
    FAULT = 3
    """Nobody's: it stands still until it is mended."""


@unique
class Quality(IntEnum):
    """Bits of a reading's `quality` column."""

    UNSTAMPED = 1
    """The device sent no time; the time of arrival was taken."""
    AHEAD = 2
    """Device time lies ahead of ours, within the accepted bound."""
    REPLAYED = 4
    """A person let it out of quarantine, as it was sent or mended."""


@unique
class EnergyQuality(IntEnum):
    """Bits of the quality of an interval's energy."""

    MEASURED = 1
    """From the register, read close to both ends of the interval."""
    ESTIMATED = 2
    """From the register, but how much fell into just this interval is a guess."""
    INTEGRATED = 4
    """From power, for want of a register."""
    CORRECTED = 8
    """Somebody has corrected it."""


@unique
class Freshness(IntEnum):
    """How far a device's silence exceeds its own cadence."""

    NEVER = 0
    LIVE = 1
    LATE = 2
    STALE = 3
    LOST = 4


@unique
class SessionEvent(IntEnum):
    """What happened to a device's connection."""

    UP = 1
    DOWN = 2
    WILL = 3
    """The device's last will: the connection broke without a goodbye."""
    TAKEN = 4
    """A newer session of the same device took over from this live one, which was ended."""


@unique
class AckStatus(IntEnum):
    """What a device answered to a command."""

    RECEIVED = 1
    ACCEPTED = 2
    APPLIED = 3
    COMPLETED = 4
    REJECTED = 5
    OPTED_OUT = 6
    EXPIRED = 7


@unique
class Phase(IntEnum):
    """Life of a command. A phase is entered only on evidence of that phase."""

    NONE = 0
    PLANNED = 1
    SENT = 2
    RECEIVED = 3
    ACCEPTED = 4
    APPLIED = 5
    VERIFIED = 6
    COMPLETED = 7
    REJECTED = 10
    OPTED_OUT = 11
    EXPIRED = 12
    SUPERSEDED = 13
    CANCELLED = 14
    UNKNOWN = 15
    """No answer. Not failed: the device may have acted, and a late answer reopens the command."""
    DIVERGED = 16
    """Applied, then left; or applied and never seen on the meter."""
    LOST = 17


@unique
class OrderStatus(IntEnum):
    """Life of an order."""

    PENDING = 0
    ACTIVE = 1
    COMPLETED = 2
    CANCELLED = 3
    DECLINED = 4


@unique
class Exclusion(IntEnum):
    """Why dispatch does not count on a device now."""

    NONE = 0
    SILENT = 1
    """Its readings are stale, lost or never came."""
    UNREACHABLE = 2
    """No session to send a command on."""
    UNKNOWN = 3
    """It did not answer its last command."""
    DIVERGED = 4
    """It answered and its meter says otherwise."""
    REJECTED = 5
    OPTED_OUT = 6
    CONDITION = 7
    """Something lasting is wrong with it, so that nothing it says or does can be counted on."""


@unique
class Trait(IntEnum):
    """What is particular about a device's part in an allocation: bits of its `traits` column."""

    TIER = 1 << 0
    PRIORITY = 1 << 1
    STEPS = 1 << 2
    """It has steps of its own, other than its kind's."""
    DWELLS = 1 << 3
    """Once on, or off, it stays so for a while."""
    MUST_RUN = 1 << 4
    OPTED_OUT = 1 << 5
    """Its owner has opted out, until a moment that may be over."""
    SLOW = 1 << 6
    """It needs longer than the look-ahead of a cycle for its nameplate."""


@unique
class Standing(IntEnum):
    """How a device stands to what is desired of it: where asking, saying and doing meet."""

    NONE = 0
    """Nothing is asked of it."""
    IN_SYNC = 1
    """Its meter shows what was asked."""
    PENDING = 2
    """Asked, and there is still time to answer and to settle."""
    DIVERGED_SIZE = 3
    """It said yes and its meter shows another size."""
    DIVERGED_SIGN = 4
    """It said yes and its meter shows the opposite direction."""
    LEFT = 5
    """It followed, and has left since without being asked."""
    OVERRIDDEN = 6
    """Somebody on site has taken over."""
    OPTED_OUT = 7
    REJECTED = 8
    UNREACHABLE = 9
    """No session, silence, or no answer to any try."""


@unique
class Condition(IntEnum):
    """What is wrong with a device for longer than a moment: bits of its `condition` column."""

    FLAPPING = 1 << 0
    """Its connection comes and goes."""
    CONTESTED = 1 << 1
    """Two sessions take turns with one credential."""
    DEAF = 1 << 2
    """Heard, but it hears nothing: reports arrive, commands go unanswered."""
    FROZEN = 1 << 3
    """Its meter repeats one value."""
    SIGN_TURNED = 1 << 4
    """Its power moves against what was asked, or against its energy or charge."""
    UNIT_WRONG = 1 << 5
    """Its power is a thousandth, or a thousandfold, of what its registers say."""
    CLOCK_WRONG = 1 << 6
    """Its clock is off by more than is accepted."""
    COUNTER_RESTARTED = 1 << 7
    """Its boot counter fell back while its time went on."""
    REGISTER_WRONG = 1 << 8
    """Its energy register says what cannot be."""
    MUTED = 1 << 9
    """It sends so much that cannot be read that it is not listened to for a while."""
