"""A station that is connected: takes in what it says, sets it up, tells it what it is to do."""

import asyncio
import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from kapelle.adapters.errands import Command, Said
from kapelle.adapters.inbox import Answer, Heard, Inbox, NotStored, Report, Unreadable
from kapelle.adapters.ocpp import frames
from kapelle.adapters.ocpp.commands import WINDOW_S, Means, Plan, is_ending, is_shown, plan
from kapelle.adapters.ocpp.connection import Connection, Refused
from kapelle.adapters.ocpp.counters import Counters
from kapelle.adapters.ocpp.dialect import Ask, Circumstances
from kapelle.adapters.ocpp.events import Misread
from kapelle.adapters.ocpp.flexibility import Setpoint
from kapelle.adapters.ocpp.schedule import Profile
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.adapters.ocpp.station import STATION, Nameplate, Saying, Station
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory

_SET_UP_AGAIN_NS = 60 * NS_PER_S
"""A station that boots in a loop is not set up each time: some write it to flash."""
_FIRST_WORD_S = 10.0
_STARTS_KEPT = 16
_UNKNOWN = ("NotImplemented", "NotSupported")


@dataclass(slots=True)
class Known:
    """What stays known of a station while it is away."""

    station: Station = field(default_factory=Station)
    unit: str = ""
    """A or W, as it said; empty: it did not."""
    is_default: bool = False
    """It takes no profile for the station as a whole."""
    shows_schedule: bool = True
    told: dict[int, set[int]] = field(default_factory=dict)
    """Per scope, the EVSEs that may have a profile of ours."""
    starts: dict[bytes, int] = field(default_factory=dict)
    """Digests of the newest StartTransaction calls, and the numbers given: one that is repeated
    gets the same."""
    is_set_up: bool = False
    """It was asked to report what is needed, since it booted."""
    set_up_ns: int = 0
    """When that was last begun; 0: never."""
    takeovers_ns: tuple[int, ...] = ()


class Host(Protocol):
    """What a session needs from whoever listens for stations."""

    settings: OcppSettings
    directory: Directory
    clock: Clock
    counters: Counters
    inbox: Inbox

    def next_transaction(self) -> int:
        """Return a number no transaction has had."""


class Session:
    """One station, connected."""

    def __init__(
        self,
        host: Host,
        identity: str,
        devices: Mapping[int, int],
        known: Known,
        connection: Connection,
        number: int,
    ) -> None:
        self.identity = identity
        self.devices = devices
        self.connection = connection
        self.number = number
        """Of the connection; rises with every one."""
        self.generation: list[int] = []
        """Of each device as it connected; see `Directory.generation`."""
        self._host = host
        self._known = known
        self._booted = asyncio.Event()
        self._is_known = asyncio.Event()
        self._scope_of = {number: scope for scope, number in devices.items()}

    # What it says.

    async def answer(self, call: frames.Call) -> str | None:
        """Take a call in and return the frame that answers it, once it is durable."""
        host, dialect = self._host, self.connection.dialect
        host.counters.calls += 1
        event = dialect.decode(call.action, call.payload)
        if isinstance(event, Misread):
            await self._keep_unreadable(frames.kept(call), [event.reason])
            return self._reply(call, frames.error(call.id, event.code, event.reason))
        transaction = 0
        if event.began and not event.transaction:
            transaction = self._number(call.payload)
            event = replace(event, transaction=str(transaction))
        now_ns = host.clock.now_ns()
        said, problems = self._known.station.apply(event, self._scopes(), now_ns)
        if not await self._keep(frames.kept(call), said, problems):
            host.counters.declined += 1
            later = "the plant could not store this; send it again"
            return self._reply(call, frames.error(call.id, "InternalError", later))
        if event.booted:
            self._boot()
        settings = host.settings
        given = Circumstances(now_ns, settings.heartbeat_s, settings.authorize, transaction)
        return self._reply(call, frames.result(call.id, dialect.answer(call.action, given)))

    async def garbage(self, broken: frames.Broken, text: bytes) -> None:
        """Keep what is no frame."""
        await self._keep_unreadable(text, [broken.reason])

    async def _keep_unreadable(self, raw: bytes, reasons: list[str]) -> None:
        # Whether it could be kept or not: it is answered with what is wrong with it.
        await self._keep(raw, [], reasons)

    async def _keep(self, raw: bytes, said: list[Saying], problems: list[str]) -> bool:
        """Hand a message on and wait until it is durable; return whether it is."""
        if not said and not problems:
            return True
        self._host.counters.unreadable += len(problems)
        first = next(iter(self.devices.values()))
        reports = [Report(self.devices[one.scope], one.values, one.at_ns) for one in said]
        unreadable = [Unreadable(first, reason) for reason in problems]
        heard = Heard(self.identity, raw, reports, unreadable=unreadable)
        try:
            await self._host.inbox.accept(heard)
        except NotStored:
            return False
        return True

    @staticmethod
    def _reply(call: frames.Call, frame: str) -> str | None:
        return frame if call.expects_result else None

    def _scopes(self) -> dict[int, Nameplate]:
        numbers = np.fromiter(self.devices.values(), np.int32, len(self.devices))
        up_w, down_w = self._host.directory.nameplate(numbers)
        plates = map(Nameplate, np.nan_to_num(up_w).tolist(), np.nan_to_num(down_w).tolist())
        return dict(zip(self.devices, plates, strict=True))

    def _number(self, payload: bytes) -> int:
        starts, digest = self._known.starts, hashlib.sha256(payload).digest()
        if digest not in starts:
            while len(starts) >= _STARTS_KEPT:
                del starts[next(iter(starts))]
            starts[digest] = self._host.next_transaction()
        return starts[digest]

    # Setting it up.

    def _boot(self) -> None:
        # Whatever it does from now on, and whatever it now is: it has not shown it yet.
        self._known.station.setpoints.clear()
        self._known.is_default, self._known.shows_schedule = False, True
        self._known.is_set_up = False
        self._booted.set()

    async def set_up(self) -> None:
        """Learn what it takes, and have it report what is needed; again whenever it has booted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_WORD_S):
                # A station that has just booted takes no calls before it was accepted.
                await self.connection.heard.wait()
        try:
            while True:
                self._booted.clear()
                await self._ask_all()
                await self._booted.wait()
        except ConnectionError:
            return
        finally:
            # Whoever waits to tell it something finds that it has gone.
            self._is_known.set()

    async def _ask_all(self) -> None:
        known, dialect, clock = self._known, self.connection.dialect, self._host.clock
        if not known.is_set_up and (answer := await self._try(dialect.ask_habits())) is not None:
            habits = dialect.read_habits(answer)
            known.unit = habits.unit or known.unit
            known.station.evses_said = habits.evses
        self._is_known.set()
        await self._try(dialect.ask_statuses())
        if known.is_set_up:
            return
        if known.set_up_ns:
            left_s = (known.set_up_ns + _SET_UP_AGAIN_NS - clock.now_ns()) / NS_PER_S
            await clock.sleep(max(0.0, left_s))
        known.set_up_ns = clock.now_ns()
        settings = self._host.settings
        if settings.sample_s:
            for ask in dialect.set_up(settings.sample_s, settings.heartbeat_s):
                await self._try(ask)
        known.is_set_up = not self._booted.is_set()

    async def _try(self, ask: Ask) -> bytes | None:
        """Ask what may remain unanswered; raises ConnectionError."""
        try:
            return await self.connection.call(ask)
        except (Refused, TimeoutError):
            return None

    # What it is told.

    async def carry_out(self, command: Command) -> Said | None:
        """Tell it, and ask what it will do. Raises ConnectionError, TimeoutError."""
        await self._is_known.wait()
        scope = self._scope_of[command.device_no]
        try:
            if math.isnan(command.setpoint_w):
                return await self._release(scope)
            return await self._set(scope, command)
        except Refused as refused:
            return Said(AckStatus.REJECTED, str(refused))

    async def _release(self, scope: int) -> Said:
        known = self._known
        words = [await self._clear(evse) for evse in sorted(known.told.get(scope) or {scope})]
        known.station.release(scope, self._host.clock.now_ns())
        known.told.pop(scope, None)
        # `Unknown`: there is none (any more), which is what was wanted.
        gone = all(word == "Unknown" for word in words)
        return Said(AckStatus.APPLIED if gone else AckStatus.ACCEPTED, ", ".join(words))

    async def _clear(self, evse: int) -> str:
        dialect = self.connection.dialect
        return dialect.read_status(await self.connection.call(dialect.clear_profile(evse)))[1]

    async def _set(self, scope: int, command: Command) -> Said | None:
        known = self._known
        made = self._plan(scope, command)
        if isinstance(made, str):
            return Said(AckStatus.REJECTED, made)
        status, word = await self._send(scope, made)
        if status is AckStatus.REJECTED and scope == STATION and not known.is_default:
            known.is_default = True
            made = self._plan(scope, command)
            assert not isinstance(made, str)
            status, word = await self._send(scope, made)
            known.is_default = status is AckStatus.ACCEPTED
        if status is AckStatus.REJECTED:
            return Said(status, word)
        told = {profile.evse for profile in made.profiles}
        for evse in sorted(known.told[scope] - told):
            await self._try(self.connection.dialect.clear_profile(evse))
        known.told[scope] = told
        now_ns = self._host.clock.now_ns()
        setpoint = Setpoint(made.value_w, now_ns, made.profiles[0].until_ns)
        known.station.setpoints[scope] = setpoint
        self._host.inbox.answered(
            Answer(command.device_no, command.revision, status, word, command.epoch)
        )
        return await self._read_back(scope, made, setpoint)

    def _plan(self, scope: int, command: Command) -> Plan | str:
        known, settings = self._known, self._host.settings
        means = Means(
            self.connection.dialect,
            known.unit or settings.charging_rate_unit,
            settings.volts,
            settings.stack_level,
            known.is_default,
        )
        return plan(
            known.station,
            scope,
            command.setpoint_w,
            command.revert_s,
            means,
            self._scopes()[scope].down_w,
            self._host.clock.now_ns(),
        )

    async def _send(self, scope: int, made: Plan) -> tuple[AckStatus, str]:
        """Tell all that is planned; what the first says that does not take it stands for all."""
        dialect = self.connection.dialect
        told = self._known.told.setdefault(scope, set())
        status, word = AckStatus.ACCEPTED, ""
        for profile in made.profiles:
            # One that does not answer may have it all the same.
            told.add(profile.evse)
            try:
                answer = await self.connection.call(dialect.set_profile(profile))
            except Refused as refused:
                return AckStatus.REJECTED, str(refused)
            status, word = dialect.read_status(answer)
            if status is AckStatus.REJECTED:
                break
        return status, word

    async def _read_back(self, scope: int, made: Plan, setpoint: Setpoint) -> Said | None:
        """Ask the station what it will do: evidence that it applies what it accepted."""
        if not self._known.shows_schedule:
            return None
        is_ending_all = True
        for profile in made.profiles:
            seen = await self._is_seen(profile)
            if seen is None:
                return None
            is_ending_all &= seen
        setpoint.is_seen = True
        now_ns = self._host.clock.now_ns()
        await self._keep(b"", self._known.station.confirm(scope, self._scopes(), now_ns), [])
        return Said(AckStatus.APPLIED, "" if is_ending_all else "its schedule shows no end")

    async def _is_seen(self, profile: Profile) -> bool | None:
        """Return whether a schedule that shows a profile also shows its end; None: not shown."""
        dialect, now_ns = self.connection.dialect, self._host.clock.now_ns()
        lasts_s = (profile.until_ns - now_ns) / NS_PER_S if profile.until_ns else 0.0
        ask = dialect.composite(profile.evse, profile.unit, int(lasts_s + WINDOW_S))
        try:
            composite = dialect.read_composite(await self.connection.call(ask))
        except Refused as refused:
            self._known.shows_schedule = str(refused) not in _UNKNOWN
            return None
        if composite is None or not is_shown(composite, profile):
            return None
        return is_ending(composite, profile, now_ns)
