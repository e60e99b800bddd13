"""One entry after another becomes the state of a partition. The whole fold starts here."""

from kapelle.fleet.claims import is_of_another
from kapelle.fleet.columns import Fleet
from kapelle.fleet.counting.sequence import step_counts
from kapelle.fleet.curve.dwell import step_dwell
from kapelle.fleet.desired import apply_acks, apply_commands, apply_phases
from kapelle.fleet.enrol import apply_enrolled, apply_members
from kapelle.fleet.estimation.estimate import step_estimate
from kapelle.fleet.freshness import step_freshness
from kapelle.fleet.metering.live import step_energy
from kapelle.fleet.readings import apply_readings
from kapelle.fleet.reconciliation.alarms import step_alarms
from kapelle.fleet.reconciliation.conditions import step_conditions
from kapelle.fleet.reconciliation.mutes import apply_mutings, step_mutes
from kapelle.fleet.reconciliation.standing import step_standing
from kapelle.fleet.reconciliation.verify import step_verification
from kapelle.fleet.sessions import apply_sessions
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.stages import step_stages
from kapelle.model.blocks import Acks, Commands, Enrolled, Mutings, Phases, Readings, Sessions
from kapelle.model.entries import Entry
from kapelle.model.plant import Envelopes, Members, Tick
from kapelle.model.signals import Signal

_DEFAULTS = FleetSettings()


def apply_entry(fleet: Fleet, entry: Entry, settings: FleetSettings = _DEFAULTS) -> None:
    """Apply the next entry of the partition's topic; one already applied changes nothing.

    Entries that say nothing about the devices' state (quarantined telemetry) move the position on.
    """
    if entry.position <= fleet.position:
        return
    match entry.body:
        case Readings() as readings:
            apply_readings(fleet, readings, settings)
        case Tick() as tick:
            step_tick(fleet, tick, settings)
        case Commands() as commands:
            apply_commands(fleet, commands)
        case Acks() as acks:
            apply_acks(fleet, acks)
        case Phases() as phases:
            apply_phases(fleet, phases)
        case Sessions() as sessions:
            apply_sessions(fleet, sessions)
        case Signal() as signal:
            # two dispatchers may be alive; the newer one's levels stand.
            is_current = all(signal.epoch >= old.epoch for old in fleet.signals.values())
            if is_current and not is_of_another(signal, fleet.signals.get(signal.resource)):
                fleet.signals[signal.resource] = signal
                step_stages(fleet)
        case Mutings() as mutings:
            apply_mutings(fleet, mutings)
        case Enrolled() as enrolled:
            apply_enrolled(fleet, enrolled)
        case Members() as members:
            apply_members(fleet, members)
        case Envelopes() as envelopes:
            fleet.envelopes.apply(envelopes)
        case _:
            pass
    fleet.position = entry.position


def step_tick(fleet: Fleet, tick: Tick, settings: FleetSettings) -> None:
    """Let time pass: hear, judge silence, estimate, then hold devices against their setpoints.

    Each step uses what the one before it found, so their order is part of the state. A tick that
    does not move time on changes nothing: the writer promises it never goes back.
    """
    before_ns = fleet.now_ns
    if tick.now_ns <= before_ns:
        return
    fleet.now_ns = tick.now_ns
    step_stages(fleet)
    step_counts(fleet, settings, before_ns)
    news = step_freshness(fleet, settings, before_ns)
    step_estimate(fleet, settings)
    step_verification(fleet)
    step_dwell(fleet)
    step_conditions(fleet, news)
    step_energy(fleet)
    step_mutes(fleet, before_ns)
    step_standing(fleet)
    fleet.notices = step_alarms(fleet, before_ns)
