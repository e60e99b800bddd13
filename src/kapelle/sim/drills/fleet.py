"""The fleet a drill is played with: simulated, with the shape of the operator's own."""

from kapelle.errors import Invalid
from kapelle.registry.shape import Shape
from kapelle.sim.devices import FleetPlan

DEVICES = 1000
"""So many that no device by itself is as much as a band is wide."""
_PER_FEEDER, _PARTITIONS = 40, 2
_NOBODY = "(none)"


def example(devices: int = DEVICES) -> FleetPlan:
    """Return the fleet of a drill that knows no plant; a quarter of it behind each gateway."""
    return FleetPlan(
        devices=devices, partitions=_PARTITIONS, devices_per_gateway=max(devices // 4, 1)
    )


def like(shape: Shape, devices: int = DEVICES) -> FleetPlan:
    """Return a fleet of so many devices with the shape of a real one.

    Raises:
        Invalid: Nobody is enrolled.
    """
    if not shape.devices:
        raise Invalid("no device is enrolled there: import some, or drill the example fleet")
    usual = FleetPlan()
    return FleetPlan(
        devices=devices,
        partitions=_PARTITIONS,
        telemetry_period_s=shape.report_every_s or usual.telemetry_period_s,
        mix=dict(shape.kinds),
        vendors=dict(shape.vendors) or {_NOBODY: 1},
        providers=dict(shape.providers) or {_NOBODY: 1},
        devices_per_feeder=max(shape.devices // shape.feeders, 1) if shape.feeders else _PER_FEEDER,
        devices_per_gateway=max(devices // 4, 1),
        revert_s=shape.revert_s or usual.revert_s,
        no_revert_fraction=shape.without_revert / shape.devices,
    )
