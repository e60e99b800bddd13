"""How Sparkplug B is spoken: the broker, and what the metrics of edge nodes and devices mean."""

from dataclasses import dataclass

from kapelle.adapters import quantities
from kapelle.adapters.mqtt.settings import ClientSettings


@dataclass(frozen=True, slots=True)
class SparkplugMetric:
    """What one metric means."""

    name: str
    """As births call it: `Battery/Power`."""
    metric: str
    """power_w, soc, export_wh, import_wh, max_w, min_w, voltage_v, frequency_hz or setpoint_w."""
    unit: str
    """W, kW, MW, Wh, kWh, MWh, fraction, percent, V or Hz."""
    positive: str = ""
    """`export` or `import`: the direction in which it counts upwards. Only for powers, and there it
    must be said."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is what births call the metric")
        quantities.check(self.metric, self.unit, self.positive)


@dataclass(frozen=True, slots=True)
class SparkplugSettings(ClientSettings):
    """A host application on a broker the user already runs."""

    host_id: str = "kapelle"
    """What edge nodes call their primary host: its STATE is at `spBv1.0/STATE/<host_id>`."""
    client_id: str = "kapelle-sparkplug"
    session_expiry_s: int = 0
    """A host begins with a clean session: what it missed, births say again. [s]"""
    groups: tuple[str, ...] = ("+",)
    """Groups that are listened to."""
    metrics: tuple[SparkplugMetric, ...] = ()
    """The one of setpoint_w, where there is one, is also what commands are written to."""
    rebirth_s: float = 10.0
    """One edge node is not asked for its birth more often. [s]"""
    rebirths_per_s: int = 50
    """All edge nodes together. [1/s]"""
    reorder_s: float = 2.0
    """A message that is missing may come so much later than those after it, before its edge node is
    asked for its birth. [s]"""
    birth_s: float = 5.0
    """A device whose edge node was asked, or born again, and that is not born itself within this,
    is gone. [s]"""
    echo_s: float = 60.0
    """A setpoint a device echoes later than this is no answer to its command. [s]"""

    def __post_init__(self) -> None:
        # `super()` without arguments does not find a class that was made anew with slots.
        if not self.metrics:
            raise ValueError("metrics names at least one metric: [[sparkplug.metrics]]")
        names = [metric.name for metric in self.metrics]
        meant = [metric.metric for metric in self.metrics]
        if len(set(names)) < len(names) or len(set(meant)) < len(meant):
            raise ValueError("each name, and each metric, stands in one [[sparkplug.metrics]]")
        for step in (self.host_id, *self.groups):
            if not step or set(step) & set("/#") or (step != "+" and "+" in step):
                raise ValueError("host_id and groups are one step of a topic each")
        if min(self.rebirth_s, self.rebirths_per_s, self.birth_s, self.echo_s) <= 0:
            raise ValueError("rebirth_s, rebirths_per_s, birth_s and echo_s are above 0")
        if self.reorder_s < 0:
            raise ValueError("reorder_s is 0 or more")
        if self.session_expiry_s:
            raise ValueError("session_expiry_s stays 0: a host begins with a clean session")
