"""S-25: commands that keep every limit and still make no sense hold the plant.

Two signs, both taken from what the gate passed and from the orders in the plant's topic alone:

- **Reversals.** Devices that are sent far one way and back within a minute. No service asks for
  that of many; a fault in sign or a fight of two writers does.
- **Unexplained power.** What setpoints move devices that already had one, net over a minute, may be
  as much as all orders in force ask for: they began, or others take over from devices that were
  lost. Beyond that only chance remains. Its standard deviation is that of independent
  corrections of `_OWN` of each device's span, and of one of `_COMMON` that all share
  (a cloud, a frequency): sigma² = Σ(own·span)² + (common·Σspan)².
"""

from math import inf

import numpy as np

from kapelle.model.ids import NS_PER_S
from kapelle.safety.passed import Moves, Passed
from kapelle.safety.settings import SafetySettings
from kapelle.safety.windows import Window
from kapelle.words import power

_SPAN_S = 60.0
_PARTS = 6
_FAR = 0.5
"""A move of this part of the device's span is far."""
_OWN = 0.1
_COMMON = 0.02
_SIGMA_W_MIN = 1.0
_ONE = np.zeros(1, np.int32)


class TripWire:
    """What the plant was told within the last minute."""

    def __init__(self) -> None:
        self._net_w = Window(_SPAN_S, _PARTS)
        self._reversed = Window(_SPAN_S, _PARTS)
        self._sigma_w = 0.0

    def advance(self, now_ns: int) -> None:
        """Forget what is too old."""
        self._net_w.advance(now_ns)
        self._reversed.advance(now_ns)

    def settle(self, passed: Passed, now_ns: int) -> None:
        """Work out anew how much chance may move those under a setpoint now."""
        span_w = passed.span_w[passed.commanded(now_ns)]
        own_w2 = float(np.square(_OWN * span_w).sum())
        self._sigma_w = (own_w2 + (_COMMON * float(span_w.sum())) ** 2) ** 0.5

    def note(self, passed: Passed, moves: Moves, now_ns: int) -> None:
        """Take in what is about to be passed; `passed` is as before it."""
        known_w = moves.known_w
        self._net_w.add(_ONE, np.array([known_w.sum()]))
        far = np.abs(known_w) >= _FAR * moves.span_w
        far &= known_w != 0.0
        device_no, way = moves.device_no[far], np.sign(known_w[far]).astype(np.int8)
        lately = now_ns - passed.turned_ns[device_no] < int(_SPAN_S * NS_PER_S)
        turned = (passed.turned[device_no] == -way) & lately
        self._reversed.add(_ONE, np.array([float(turned.sum())]))
        passed.turned[device_no] = way
        passed.turned_ns[device_no] = now_ns

    def reason(self, explained_w: float, settings: SafetySettings) -> str:
        """Return why the plant should be held, empty where nothing speaks for it.

        Args:
            explained_w: What the orders in force ask for. [W]
            settings: The thresholds.
        """
        reversed_ = float(self._reversed.total(_ONE)[0])
        if reversed_ > settings.reversals_max:
            return f"{reversed_:.0f} devices were sent one way and back within {_SPAN_S:.0f} s"
        if settings.unexplained_sigmas == inf:
            return ""
        net_w = float(self._net_w.total(_ONE)[0])
        beyond_w = abs(net_w) - explained_w
        if beyond_w > settings.unexplained_sigmas * max(self._sigma_w, _SIGMA_W_MIN):
            return (
                f"setpoints moved {power(net_w, sign=True)} within {_SPAN_S:.0f} s, where orders"
                f" explain {power(explained_w)} and chance {power(self._sigma_w)}"
            )
        return ""
