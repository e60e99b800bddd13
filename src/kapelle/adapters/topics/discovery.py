"""Home Assistant MQTT discovery: announcements become entities. Pure.

Topics are `<prefix>/<component>/[<node>/]<object>/config`, also with `device` as the component
(home-assistant.io/integrations/mqtt, "MQTT Discovery"); its abbreviations are those of
homeassistant/components/mqtt/abbreviations.py.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from kapelle.adapters.cloud.mapping import Broken, decode
from kapelle.adapters.topics.codec import Spot, read_command_template, read_template

COMPONENTS = ("sensor", "number", "switch")
"""Others are passed over."""
_LONG = {
    "avty": "availability", "avty_mode": "availability_mode", "avty_t": "availability_topic",
    "avty_tpl": "availability_template", "cmd_t": "command_topic", "cmd_tpl": "command_template",
    "cmps": "components", "dev": "device", "dev_cla": "device_class", "p": "platform",
    "pl_avail": "payload_available", "pl_not_avail": "payload_not_available",
    "pl_off": "payload_off", "pl_on": "payload_on", "ret": "retain", "stat_off": "state_off",
    "stat_on": "state_on", "stat_t": "state_topic", "t": "topic", "uniq_id": "unique_id",
    "unit_of_meas": "unit_of_measurement", "val_tpl": "value_template", "ids": "identifiers",
    "cns": "connections",
}  # fmt: skip
_SHARED = (
    "availability", "availability_mode", "availability_topic", "availability_template",
    "payload_available", "payload_not_available", "command_topic", "device", "qos", "state_topic",
)  # fmt: skip
"""What components of a device take over from it."""
_COMPONENTS_MAX = 256
_CHARS_MAX = 512
_UNITS = {"%": "percent"}


class Availability(NamedTuple):
    """A topic that says whether a device is there."""

    topic: str
    spot: Spot
    online: str
    offline: str


class Entity(NamedTuple):
    """What one announcement says of one entity."""

    component: str
    unique_id: str
    identifiers: tuple[str, ...]
    device_class: str
    unit: str
    """As mappings call it; empty where it says none."""
    state_topic: str
    state: Spot | Broken
    command_topic: str
    command: str | Broken
    """Payload with $value in it; of a switch unused."""
    availability: tuple[Availability, ...] | Broken
    is_any: bool
    """One of several topics that says online is enough."""
    least: float
    most: float
    on: tuple[str, str]
    """Of a switch: payload and state that mean on."""
    off: tuple[str, str]
    qos: int
    retain: bool


def place(topic: str, prefix: str) -> str | None:
    """Return the component a topic announces, None where it is no announcement."""
    if not topic.startswith(prefix + "/") or not topic.endswith("/config"):
        return None
    steps = topic[len(prefix) + 1 :].split("/")
    return steps[0] if len(steps) in (3, 4) and all(steps) else None


def read(component: str, payload: bytes) -> "list[Entity] | Broken":
    """Return the entities of an announcement; none where it takes them back."""
    if not payload or component not in (*COMPONENTS, "device"):
        return []
    document = decode(payload)
    if not isinstance(document, dict):
        return document if isinstance(document, Broken) else Broken("shape: document: is no object")
    root = _long(document)
    if component != "device":
        return [_entity(component, root)]
    components = root.get("components")
    if not isinstance(components, dict):
        return Broken("shape: components: a device is announced with what it has; add cmps")
    if len(components) > _COMPONENTS_MAX:
        return Broken(f"too-many: components: {len(components)}, at most {_COMPONENTS_MAX}")
    shared = {name: root[name] for name in (*_SHARED, "~") if name in root}
    found = [_long(one) for one in components.values() if isinstance(one, dict)]
    return [
        _entity(str(one.get("platform")), {**shared, **one})
        for one in found
        # One with its platform alone is taken back.
        if one.get("platform") in COMPONENTS and len(one) > 1
    ]


def _long(given: Mapping[Any, Any]) -> dict[str, Any]:
    return {_LONG.get(str(name), str(name)): value for name, value in given.items()}


def _entity(component: str, given: Mapping[str, Any]) -> Entity:
    base = _text(given, "~")
    device = given.get("device")
    unit = _text(given, "unit_of_measurement")
    mode = _text(given, "availability_mode")
    on, off = _text(given, "payload_on") or "ON", _text(given, "payload_off") or "OFF"
    return Entity(
        component=component,
        unique_id=_text(given, "unique_id"),
        identifiers=_identifiers(_long(device) if isinstance(device, dict) else {}),
        device_class=_text(given, "device_class"),
        unit=_UNITS.get(unit, unit),
        state_topic=_topic(given, "state_topic", base),
        state=read_template(_text(given, "value_template")),
        command_topic=_topic(given, "command_topic", base),
        command=read_command_template(_text(given, "command_template")),
        availability=_availability(given, base),
        is_any=mode == "any",
        least=_number(given, "min", 1.0),
        most=_number(given, "max", 100.0),
        on=(on, _text(given, "state_on") or on),
        off=(off, _text(given, "state_off") or off),
        qos=1 if given.get("qos") in (1, 2) else 0,
        retain=given.get("retain") is True,
    )


def _identifiers(device: Mapping[str, Any]) -> tuple[str, ...]:
    told = device.get("identifiers")
    every = told if isinstance(told, list) else [told]
    known = [str(one) for one in every if isinstance(one, str | int) and str(one)]
    return tuple(one for one in known[:8] if len(one) <= _CHARS_MAX)


def _availability(given: Mapping[str, Any], base: str) -> tuple[Availability, ...] | Broken:
    told = given.get("availability")
    listed = [_long(one) for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    if (single := given.get("availability_topic")) is not None:
        listed = [
            {
                "topic": single,
                "value_template": given.get("availability_template", ""),
                "payload_available": given.get("payload_available", ""),
                "payload_not_available": given.get("payload_not_available", ""),
            }
        ]
    found = []
    for one in listed[:8]:
        topic, spot = _topic(one, "topic", base), read_template(_text(one, "value_template"))
        if not topic:
            return Broken("topic: availability: is no topic; mend what is announced")
        if isinstance(spot, Broken):
            return spot
        online = _text(one, "payload_available") or "online"
        offline = _text(one, "payload_not_available") or "offline"
        found.append(Availability(topic, spot, online, offline))
    return tuple(found)


def _topic(given: Mapping[str, Any], name: str, base: str) -> str:
    told = _text(given, name)
    if told.startswith("~"):
        told = base + told[1:]
    elif told.endswith("~"):
        told = told[:-1] + base
    # A broker may end the session of whoever names a control character (MQTT 5, 1.5.4).
    wild = told.startswith("$") or set(told) & set("+#") or not told.isprintable()
    return "" if wild or len(told) > _CHARS_MAX else told


def _text(given: Mapping[str, Any], name: str) -> str:
    told = given.get(name)
    if isinstance(told, bool):
        return "true" if told else "false"
    if isinstance(told, int | float):
        return str(told)
    return told if isinstance(told, str) and len(told) <= _CHARS_MAX else ""


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    told = given.get(name)
    if isinstance(told, bool) or not isinstance(told, int | float):
        return default
    number = float(told) if -1e15 < told < 1e15 else math.nan
    return number if math.isfinite(number) else default
