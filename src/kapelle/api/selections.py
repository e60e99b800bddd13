"""S-23, S-24: what takes two persons: operating an order that one selected, lifting a hold.

Held in memory: a selection lives for half a minute, and a restart is a reason to look again. Its
number is random, so that one written down before a restart means no other after it.
"""

import secrets
from typing import NamedTuple

from kapelle.adapters.http.problems import Refused
from kapelle.api.shapes import OrderAsked
from kapelle.model.ids import NS_PER_S

VALID_S = 30
_KEPT_MAX = 1000
_NO_MIN, _NO_MAX = 10**9, 10**10
"""Ten digits: few enough to be read out, too many to be met by chance."""
_REARM_S = 300


class Selected(NamedTuple):
    """An order that waits for a second person."""

    selection_no: int
    asked: OrderAsked
    selected_by: str
    until_ns: int


class Selections:
    """Keeps selections and lets each be operated once, in time, and by somebody else."""

    def __init__(self) -> None:
        self._held: dict[int, Selected] = {}

    def select(self, asked: OrderAsked, selected_by: str, now_ns: int) -> Selected:
        """Keep an order until somebody else operates it. Raises Refused (429) beyond a thousand."""
        self._held = {no: one for no, one in self._held.items() if one.until_ns > now_ns}
        if len(self._held) >= _KEPT_MAX:
            raise Refused(429, "selections-full", f"{_KEPT_MAX} orders wait to be operated")
        number = _NO_MIN + secrets.randbelow(_NO_MAX - _NO_MIN)
        made = Selected(number, asked, selected_by, now_ns + VALID_S * NS_PER_S)
        self._held[made.selection_no] = made
        return made

    def find(self, selection_no: int, now_ns: int) -> Selected:
        """Return a selection. Raises Refused (404) where there is none (any more)."""
        selected = self._held.get(selection_no)
        if selected is None or selected.until_ns <= now_ns:
            raise Refused(
                404,
                "selection-gone",
                f"no selection {selection_no} waits; it is valid for {VALID_S} s and once: select"
                " again",
            )
        return selected

    def operate(self, selection_no: int, operated_by: str, now_ns: int) -> Selected:
        """Take a selection out, for a second person.

        Raises:
            Refused: 404 where there is none (any more), 403 for the person who selected it.
        """
        selected = self.find(selection_no, now_ns)
        if selected.selected_by == operated_by:
            raise Refused(
                403,
                "second-person-needed",
                f"{operated_by!r} selected it; a second person operates it, with another token",
            )
        del self._held[selection_no]
        return selected


class Rearm:
    """Lifting a hold where that takes two: the first agrees, the second does it."""

    def __init__(self) -> None:
        self._agreed_by = ""
        self._agreed_to = (False, "")
        self._until_ns = 0

    def forget(self) -> None:
        """Take it that nobody has agreed: the plant was held anew."""
        self._agreed_by = ""

    def agree(self, person: str, to: tuple[bool, str], now_ns: int) -> None:
        """Return for the second person; raises Refused (403) for the first.

        Args:
            person: Who asks.
            to: Whether the plant is held, and why: nobody agrees to lift a hold that comes later.
            now_ns: The time.
        """
        is_second = self._agreed_by not in ("", person) and self._agreed_to == to
        if is_second and now_ns < self._until_ns:
            self._agreed_by = ""
            return
        self._agreed_by, self._agreed_to = person, to
        self._until_ns = now_ns + _REARM_S * NS_PER_S
        raise Refused(
            403,
            "second-person-needed",
            f"{person!r} has agreed; a second person lifts the hold within {_REARM_S} s, with"
            " another token. Where nobody else has one: rearm_by_two = false in [safety],"
            " and restart",
        )
