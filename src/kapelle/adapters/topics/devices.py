"""Which topic says what of which enrolled device, by schemes and by announcements. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from kapelle.adapters import quantities
from kapelle.adapters.cloud.mapping import Broken
from kapelle.adapters.topics.codec import Spot, at_path
from kapelle.adapters.topics.discovery import Availability, Entity
from kapelle.adapters.topics.settings import (
    DEVICE,
    DISCOVERED,
    TopicDiscovery,
    TopicEntity,
    TopicScheme,
    is_step,
)
from kapelle.model.enums import Metric


class Meant(NamedTuple):
    """One value in a payload, and what it means."""

    metric: Metric
    spot: Spot
    unit: str
    positive: str
    time: Spot | None
    """None: it says no time."""
    time_form: str


class Order(NamedTuple):
    """One way to tell a device something."""

    when: str
    topic: str
    payload: str
    unit: str
    positive: str
    least: float
    most: float
    echo: str
    qos: int
    retain: bool


class Part(NamedTuple):
    """What one topic says of a device."""

    values: tuple[Meant, ...] = ()
    availability: tuple[Availability, ...] = ()
    state: Spot | None = None


@dataclass(slots=True, eq=False)
class Device:
    """One enrolled device."""

    number: int
    address: str
    orders: Sequence[Order] = ()
    needs: Sequence[Availability] = ()
    is_any: bool = False
    is_heard: bool = False
    said: dict[Availability, bool] = field(default_factory=dict)
    """What topics said last of its being there."""
    topics: Sequence[str] = ()

    @property
    def is_there(self) -> bool:
        """Tell whether it can be told something."""
        if not self.needs:
            return self.is_heard
        told = (self.said.get(one, False) for one in self.needs)
        return any(told) if self.is_any else all(told)


class Devices:
    """Everybody who is enrolled, by topic."""

    def __init__(self, schemes: Sequence[TopicScheme], discovery: TopicDiscovery) -> None:
        self.by_number: dict[int, Device] = {}
        self._by_address: dict[str, Device] = {}
        self._table: dict[str, list[tuple[Device, Part]]] = {}
        self._schemes = {scheme.name: (scheme, _parts(scheme)) for scheme in schemes}
        self._discovery = discovery
        self._announced: dict[str, list[Entity]] = {}
        self._announcing: dict[str, dict[str, None]] = {}
        """By identifier: the topics that announce entities of it."""

    def at(self, topic: str) -> Sequence[tuple[Device, Part]]:
        """Return whom a topic is about, and what it says of each."""
        return self._table.get(topic, ())

    def enrol(self, known: Mapping[str, int]) -> list[str]:
        """Have these addresses, with their numbers, be enrolled; return what is wrong with any."""
        faults: list[str] = []
        for address, device in list(self._by_address.items()):
            if known.get(address) != device.number:
                self._unwire(device)
                del self._by_address[address], self.by_number[device.number]
        for address, number in known.items():
            if address in self._by_address:
                continue
            device = Device(number, address)
            self._by_address[address] = self.by_number[number] = device
            kind, _, name = address.partition("/")
            if kind == DISCOVERED and name:
                faults += self._discover(device)
            elif kind in self._schemes and is_step(name):
                self._plain(device, name)
            else:
                faults.append(
                    f"address: {address[:80]}: names no scheme; enrol it as <scheme>/<device>"
                )
        return faults

    def announce(self, topic: str, entities: Sequence[Entity]) -> list[str]:
        """Take what a topic announces now; return what is wrong with it.

        Returns:
            `code: place: what; remedy`, of devices not enrolled only that they are not.
        """
        touched: dict[str, None] = {}
        for entity in self._announced.pop(topic, ()):
            touched.update(dict.fromkeys(entity.identifiers))
        for name in touched:
            self._announcing[name].pop(topic, None)
            if not self._announcing[name]:
                del self._announcing[name]
        if entities and len(self._announced) < self._discovery.announced_max:
            self._announced[topic] = list(entities)
            for entity in entities:
                touched.update(dict.fromkeys(entity.identifiers))
                for name in entity.identifiers:
                    self._announcing.setdefault(name, {})[topic] = None
        addresses = [f"{DISCOVERED}/{name}" for name in touched]
        enrolled = [self._by_address[at] for at in addresses if at in self._by_address]
        faults = [fault for device in enrolled for fault in self._discover(device)]
        if not enrolled and addresses:
            wanted = [rule.metric for one in entities if (rule := self._rule(one)) is not None]
            if wanted:
                has = ", ".join(dict.fromkeys(wanted))
                faults = [stranger(addresses[0], f", and announces {has}")]
        return faults

    def strange(self, topic: str) -> list[str]:
        """Return the addresses of devices not enrolled that a topic of a scheme is about."""
        steps, found = topic.split("/"), []
        for name, (_, parts) in self._schemes.items():
            for pattern, part in parts.items():
                wanted = pattern.split("/")
                if not part.values or len(wanted) != len(steps):
                    continue
                if DEVICE in wanted and all(
                    one in (DEVICE, step) for one, step in zip(wanted, steps, strict=True)
                ):
                    found.append(f"{name}/{steps[wanted.index(DEVICE)]}")
        return list(dict.fromkeys(found))

    def named(self, scheme: str, topic: str) -> list[str]:
        """Return a topic of a scheme, once for each of its devices."""
        names = (at.partition("/") for at in self._by_address)
        told = [topic.replace(DEVICE, name) for kind, _, name in names if kind == scheme]
        return list(dict.fromkeys(told))

    def announced_by(self, entities: Sequence[Entity]) -> list[Device]:
        """Return the enrolled devices that entities belong to."""
        names = dict.fromkeys(name for entity in entities for name in entity.identifiers)
        found = (self._by_address.get(f"{DISCOVERED}/{name}") for name in names)
        return [device for device in found if device is not None]

    def _wire(self, device: Device, parts: Sequence[tuple[str, Part]]) -> None:
        device.topics = tuple(topic for topic, _ in parts)
        for topic, part in parts:
            self._table.setdefault(topic, []).append((device, part))

    def _unwire(self, device: Device) -> None:
        for topic in device.topics:
            left = [use for use in self._table[topic] if use[0] is not device]
            if left:
                self._table[topic] = left
            else:
                del self._table[topic]
        device.topics = ()

    def _plain(self, device: Device, name: str) -> None:
        scheme, parts = self._schemes[device.address.partition("/")[0]]
        if scheme.device and scheme.device != name:
            return
        device.needs = [
            Availability(
                one.topic.replace(DEVICE, name), at_path(one.path), one.online, one.offline
            )
            for one in scheme.availability
        ]
        device.orders = [
            Order(
                one.when, one.topic.replace(DEVICE, name), one.payload, one.unit, one.positive,
                one.value_min, one.value_max, one.echo, one.qos, one.retain,
            )
            for one in scheme.commands
        ]  # fmt: skip
        wired = []
        for pattern, part in parts.items():
            topic = pattern.replace(DEVICE, name)
            said = tuple(one for one in device.needs if one.topic == topic)
            wired.append((topic, part._replace(availability=said) if said else part))
        self._wire(device, wired)

    def _discover(self, device: Device) -> list[str]:
        """Wire a discovered device anew; return what is wrong with its entities."""
        self._unwire(device)
        name = device.address.partition("/")[2]
        values: dict[str, list[Meant]] = {}
        states: dict[str, Spot] = {}
        needs: dict[Availability, None] = {}
        orders: list[Order] = []
        faults: list[str] = []
        mapped: set[str] = set()
        entities = [
            entity
            for topic in sorted(self._announcing.get(name, ()))
            for entity in self._announced[topic]
            if name in entity.identifiers
        ]
        device.is_any = any(entity.is_any for entity in entities)
        for entity in entities:
            rule = self._rule(entity)
            if rule is None:
                continue
            fault = _fault(entity, rule, mapped)
            if fault:
                faults.append(fault)
                continue
            mapped.add(rule.metric)
            assert not isinstance(entity.availability, Broken)
            needs.update(dict.fromkeys(entity.availability))
            if rule.is_commanded:
                orders = _orders(entity, rule)
                if entity.state_topic and isinstance(entity.state, Spot):
                    states[entity.state_topic] = entity.state
            elif isinstance(entity.state, Spot):
                metric, unit = quantities.METRICS[rule.metric], entity.unit or rule.unit
                meant = Meant(metric, entity.state, unit, rule.positive, None, "")
                values.setdefault(entity.state_topic, []).append(meant)
        if entities and not mapped and not faults:
            has = ", ".join(entity.unique_id for entity in entities[:5])
            faults.append(f"unmapped: {name}: nothing says what {has} mean; add to entities")
        device.orders, device.needs = orders, tuple(needs)
        device.said = {one: said for one, said in device.said.items() if one in needs}
        topics = dict.fromkeys((*values, *states, *(one.topic for one in needs)))
        parts = [
            (
                topic,
                Part(
                    tuple(values.get(topic, ())),
                    tuple(one for one in needs if one.topic == topic),
                    states.get(topic),
                ),
            )
            for topic in topics
        ]
        self._wire(device, parts)
        return faults

    def _rule(self, entity: Entity) -> TopicEntity | None:
        for rule in self._discovery.entities:
            if (
                rule.component == entity.component
                and rule.device_class in ("", entity.device_class)
                and fnmatchcase(entity.unique_id, rule.unique_id)
                and any(fnmatchcase(name, rule.device) for name in entity.identifiers)
            ):
                return rule
        return None


def stranger(address: str, more: str = "") -> str:
    """Say of somebody that he is not enrolled."""
    return f"stranger: {address[:120]}: is not enrolled{more}; enrol it with this address"


def _parts(scheme: TopicScheme) -> dict[str, Part]:
    """Return what each topic of a scheme says, with `{device}` in it."""
    parts: dict[str, Part] = {}
    for value in scheme.values:
        part = parts.get(value.topic, Part())
        time = at_path(value.time) if value.time else None
        meant = Meant(
            quantities.METRICS[value.metric], at_path(value.path), value.unit, value.positive,
            time, value.time_form,
        )  # fmt: skip
        parts[value.topic] = part._replace(values=(*part.values, meant))
    for one in scheme.availability:
        parts.setdefault(one.topic, Part())
    if scheme.state_topic:
        state = at_path(scheme.state_path)
        parts[scheme.state_topic] = parts.get(scheme.state_topic, Part())._replace(state=state)
    return parts


def _fault(entity: Entity, rule: TopicEntity, mapped: set[str]) -> str:
    """Return why a mapped entity cannot be used, empty where it can."""
    place = entity.unique_id[:80] or "entity"
    if rule.metric in mapped:
        return f"clash: {place}: {rule.metric} is another entity's already; narrow unique_id"
    for told in (entity.availability, entity.state):
        if isinstance(told, Broken):
            return f"{told.reason} ({place})"
    if rule.is_commanded:
        if not entity.command_topic:
            return f"topic: {place}: has no usable command_topic; mend what is announced"
        if isinstance(entity.command, Broken):
            return f"{entity.command.reason} ({place})"
        if entity.component == "number" and not _is_number(rule.release):
            return f"release: {place}: {rule.release!r} is no number; mend release"
        if entity.component == "switch" and rule.release not in (entity.on[0], entity.off[0]):
            return f"release: {place}: is neither {entity.on[0]} nor {entity.off[0]}; mend release"
    elif not entity.state_topic:
        return f"topic: {place}: has no usable state_topic; mend what is announced"
    if entity.component == "switch":
        return ""
    if entity.unit and rule.unit and entity.unit != rule.unit:
        return f"unit: {place}: says {entity.unit[:20]}, not {rule.unit}; mend unit"
    try:
        quantities.check(rule.metric, entity.unit or rule.unit, rule.positive)
    except ValueError as error:
        return f"unit: {place}: {error}; say it in entities"
    return ""


def _orders(entity: Entity, rule: TopicEntity) -> list[Order]:
    has_state = bool(entity.state_topic)

    def order(when: str, payload: str, echo: str, positive: str = "") -> Order:
        return Order(
            when, entity.command_topic, payload, entity.unit or rule.unit, positive, entity.least,
            entity.most, echo if has_state else "", entity.qos, entity.retain,
        )  # fmt: skip

    if entity.component == "switch":
        states = dict((entity.on, entity.off))
        return [
            order("release", rule.release, states[rule.release]),
            order(rule.positive, *entity.on),
            order("idle", *entity.off),
        ]
    assert isinstance(entity.command, str)
    release = entity.command.replace("$value", rule.release)
    return [
        order("release", release, rule.release),
        order("set", entity.command, "$value", rule.positive),
    ]


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
