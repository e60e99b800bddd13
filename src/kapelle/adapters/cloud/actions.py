"""What became of commands a vendor has accepted: its actions, polled or told by webhook."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from kapelle.adapters.cloud.documents import CloudActions
from kapelle.adapters.cloud.mapping import text
from kapelle.adapters.errands import Command, Said
from kapelle.adapters.inbox import Answer
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S

_OPEN_MAX = 100_000
_EARLY_MAX = 1_000


class Action(NamedTuple):
    """A command the vendor is carrying out."""

    command: Command
    until_ns: int


class Actions:
    """Actions that are under way, by the vendor's ids."""

    def __init__(self, settings: CloudActions, answered: Callable[[Answer], None]) -> None:
        self._settings = settings
        self._answered = answered
        self._open: OrderedDict[str, Action] = OrderedDict()
        self._early: OrderedDict[str, Said] = OrderedDict()
        """Ends of actions that were not known of, or not yet."""
        self._newest: dict[int, str] = {}
        """Per device: a newer action of a device ends the older (and so do vendors)."""

    def begin(self, command: Command, document: Any, now_ns: int) -> Said:
        """Note the action an answer to a command names, if any; return how far it is."""
        settings = self._settings
        name = text(document, settings.id) if settings.id else ""
        self._forget(self._newest.get(command.device_no, ""))
        if not name:
            return Said(AckStatus.ACCEPTED)
        # A webhook may be faster than the answer to the request that began the action.
        said = self._said(text(document, settings.state)) or self._early.pop(name, None)
        if said is not None:
            return said
        self._newest[command.device_no] = name
        self._open[name] = Action(command, now_ns + int(settings.lasts_s * NS_PER_S))
        if len(self._open) > _OPEN_MAX:
            self._forget(next(iter(self._open)))
        return Said(AckStatus.ACCEPTED)

    def heard(self, document: Any) -> None:
        """Take in what a document says of an action; again, or of somebody else's, is harmless."""
        settings = self._settings
        name = text(document, settings.id) if settings.id else ""
        said = self._said(text(document, settings.state))
        if not name or said is None:
            return
        action = self._open.get(name)
        if action is None:
            self._early[name] = said
            if len(self._early) > _EARLY_MAX:
                self._early.popitem(last=False)
            return
        self._forget(name)
        command = action.command
        self._answered(
            Answer(command.device_no, command.revision, said.status, said.reason, command.epoch)
        )

    def _said(self, state: str) -> Said | None:
        if state in self._settings.confirmed:
            return Said(AckStatus.APPLIED)
        if state in self._settings.failed:
            return Said(AckStatus.REJECTED, f"the vendor says {state}")
        return None

    def under_way(self, now_ns: int) -> list[str]:
        """Return the actions nobody has said the end of; those that are too old are forgotten."""
        for name in [n for n, action in self._open.items() if action.until_ns <= now_ns]:
            self._forget(name)
        return list(self._open)

    def _forget(self, name: str) -> None:
        action = self._open.pop(name, None)
        if action is not None and self._newest.get(action.command.device_no) == name:
            del self._newest[action.command.device_no]
