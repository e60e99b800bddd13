"""One connection of one device: bytes in, acknowledgements and commands out."""

import asyncio

from kapelle.adapters.mqtt import packets as p
from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt import subscriptions, writer
from kapelle.adapters.mqtt.admission import packet_size_max
from kapelle.adapters.mqtt.delivery import Delivery
from kapelle.adapters.mqtt.host import Host
from kapelle.adapters.mqtt.intake import ACK, REFUSED, TELEMETRY
from kapelle.adapters.mqtt.packets import V5, V311, connect_version, parse
from kapelle.adapters.mqtt.reader import MalformedPacket, Property, Reason
from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.adapters.mqtt.valve import INFLIGHT, RATE
from kapelle.adapters.mqtt.wire import Wire

_TOPIC_DEPTH_MAX = 8
_PUBACK = bytes((r.PUBACK << 4, 2))
_PUBREC = bytes((r.PUBREC << 4, 2))
_PUBLISH_QOS1 = r.PUBLISH << 4 | 2


class Session(Wire):
    """Protocol state of one connection."""

    __slots__ = (
        "_ack", "_bucket", "_explains", "_inflight", "_need", "_qos2", "_rest", "_tel", "delivery",
        "device_no", "generation", "name", "number", "taken", "takeovers_ns", "version", "will",
    )  # fmt: skip

    _endpoint: "Host[Session]"

    def __init__(self, endpoint: "Host[Session]") -> None:
        super().__init__(endpoint)
        self._rest: bytearray | None = None
        """The beginning of a packet whose end has not come."""
        self._need = 0
        self._tel: bytes | None = None
        """How a publication of telemetry begins; None before CONNECT."""
        self._ack = ""
        self._bucket: TokenBucket | None = None
        self._inflight = 0
        self._qos2: set[int] | None = None
        self._explains = False
        self.delivery: Delivery | None = None
        self.version = V311
        self.name = ""
        self.device_no = -1
        self.generation = -1
        """The directory's, of the credentials that were shown."""
        self.number = 0
        self.takeovers_ns: tuple[int, ...] = ()
        self.will = False
        self.taken = False
        """Whether a newer session of the device has taken over."""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the device has yet to say who it is."""
        super().connection_made(transport)
        self._endpoint.greeted(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whoever ended it."""
        super().connection_lost(exc)
        self._rest = None
        self._endpoint.ended(self)

    def data_received(self, data: bytes) -> None:
        """Take in every complete packet."""
        if self.closed:
            return
        endpoint = self._endpoint
        endpoint.counters.received_size += len(data)
        rest = self._rest
        if rest is not None:
            rest += data
            if len(rest) < self._need:
                return
            data = bytes(rest)
            self._rest = None
        self.heard_ns = now_ns = endpoint.clock.now_ns()
        try:
            packets = self._read(data, now_ns)
        except MalformedPacket as error:
            self._malformed(error, data)
            return
        if self._tel is not None:
            self._throttle(packets, now_ns)

    def _read(self, data: bytes, now_ns: int) -> int:
        # The hot loop: a QoS 1 report on the own topic is recognised by its bytes; everything
        # else takes the strict way through `parse`.
        intake = self._endpoint.intake
        messages = intake.messages
        before = len(messages)
        tel, tel_size, properties_size = self._shape()
        at, end, packets, size, unanswered = 0, len(data), 0, 0, 0
        try:
            while at < end and not self.closed:
                if tel is not None and data[at] == _PUBLISH_QOS1 and end - at > 3:
                    length = data[at + 1]
                    if length < 0x80:
                        body = at + 2
                        stop = body + length
                    else:
                        length = length & 0x7F | data[at + 2] << 7
                        body = at + 3
                        stop = body + length if 0x80 <= length < 0x4000 else end + 1
                    if stop <= end and data.startswith(tel, body):
                        start = body + tel_size
                        payload = start + 2 + properties_size
                        packet_id = data[start : start + 2]
                        if (
                            payload <= stop
                            and packet_id != b"\0\0"
                            and (not properties_size or data[payload - 1] == 0)
                        ):
                            answer, report = _PUBACK + packet_id, data[payload:stop]
                            messages.append((self, answer, TELEMETRY, report, now_ns, self.name))
                            size += stop - payload
                            unanswered += 1
                            packets += 1
                            at = stop
                            continue
                body, stop = r.frame(data, at, packet_size_max(self._endpoint.settings))
                if stop > end:
                    self._rest = bytearray(data[at:])
                    self._need = stop - at
                    break
                size += self._take(parse(data, at, body, stop, self.version), now_ns)
                packets += 1
                at = stop
                if tel is None:
                    tel, tel_size, properties_size = self._shape()
        finally:
            self._inflight += unanswered
            if len(messages) != before:
                intake.arrived(size)
        return packets

    def _shape(self) -> tuple[bytes | None, int, int]:
        tel = self._tel
        return tel, len(tel or b""), int(self.version == V5)

    def _throttle(self, packets: int, now_ns: int) -> None:
        endpoint = self._endpoint
        if self._inflight > endpoint.settings.inflight_max:
            if self.version == V5:
                endpoint.counters.malformed["receive maximum exceeded"] += 1
                self.end(Reason.RECEIVE_MAXIMUM_EXCEEDED, "more publications than granted")
                return
            self._hold(INFLIGHT)
        if endpoint.intake.full:
            self.hold_full()
            if endpoint.intake.overrun():
                endpoint.hold_everybody()
        assert self._bucket is not None
        wait_s = self._bucket.take(packets, now_ns)
        if wait_s and self._valve is not None and RATE not in self._valve.reasons:
            self._hold(RATE)
            asyncio.get_running_loop().call_later(wait_s, self._release, RATE)

    def _closing(self) -> None:
        self._endpoint.ended(self)

    # Packets.

    def _take(self, packet: p.Packet, now_ns: int) -> int:
        if isinstance(packet, p.Connect):
            if self._tel is not None:
                raise MalformedPacket(Reason.PROTOCOL_ERROR, "second CONNECT")
            self._endpoint.admit(self, packet)
            return 0
        if self._tel is None:
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
        if isinstance(packet, p.Publish):
            return self._published(packet, now_ns)
        if isinstance(packet, p.Answer):
            self._answered(packet)
        elif isinstance(packet, p.Ping) and packet.kind == r.PINGREQ:
            self.write(writer.PINGRESP)
        elif isinstance(packet, p.Subscribe):
            self._subscribe(packet)
        elif isinstance(packet, p.Unsubscribe):
            self._unsubscribe(packet)
        elif isinstance(packet, p.Disconnect):
            self._goodbye(packet)
        else:
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "a packet only servers send")
        return 0

    def _published(self, packet: p.Publish, now_ns: int) -> int:
        topic, packet_id = packet.topic, packet.packet_id.to_bytes(2, "big")
        if topic.count("/") >= _TOPIC_DEPTH_MAX:
            raise MalformedPacket(Reason.TOPIC_NAME_INVALID, "a topic has more than 8 levels")
        if packet.qos == 2 and self.version == V5:
            raise MalformedPacket(Reason.QOS_NOT_SUPPORTED, "QoS 2 was not granted")
        if len(packet.payload) > self._endpoint.settings.payload_size_max:
            raise MalformedPacket(Reason.PACKET_TOO_LARGE, "a payload is too large")
        kind = TELEMETRY if topic == f"v1/{self.name}/tel" else ACK
        if kind == ACK and topic != self._ack:
            self._foreign(packet, now_ns)
            return 0
        answer = b""
        if packet.qos == 1:
            answer = _PUBACK + packet_id
        elif packet.qos == 2:
            # MQTT 3.1.1 cannot refuse QoS 2. Handed over once, PUBREC when durable, and the
            # packet id stays taken until PUBREL ([MQTT-4.3.3-2], method B).
            answer = _PUBREC + packet_id
            if self._qos2 is None:
                self._qos2 = set()
            if packet.packet_id in self._qos2:
                kind = REFUSED
            self._qos2.add(packet.packet_id)
            if len(self._qos2) > 2 * self._endpoint.settings.inflight_max:
                raise MalformedPacket(Reason.RECEIVE_MAXIMUM_EXCEEDED, "PUBREL never comes")
        self._inflight += packet.qos > 0
        payload = packet.payload if kind != REFUSED else b""
        self._endpoint.intake.messages.append((self, answer, kind, payload, now_ns, self.name))
        return len(payload)

    def _foreign(self, packet: p.Publish, now_ns: int) -> None:
        what = "command topic" if packet.topic.endswith("/cmd") else "foreign topic"
        self._endpoint.counters.refused[f"publish on {what}"] += 1
        if self.version != V5 or packet.qos == 0:
            self.end(Reason.NOT_AUTHORIZED, f"publishing on a {what} is not allowed")
            return
        why = "publish on your own tel and ack only" if self._explains else ""
        answer = writer.answer(
            V5, r.PUBACK, packet.packet_id.to_bytes(2, "big"), Reason.NOT_AUTHORIZED, why
        )
        self._inflight += 1
        self._endpoint.intake.messages.append((self, answer, REFUSED, b"", now_ns, self.name))

    def _answered(self, packet: p.Answer) -> None:
        if packet.kind == r.PUBREL:
            if self._qos2 is not None:
                self._qos2.discard(packet.packet_id)
            self.write(writer.answer(self.version, r.PUBCOMP, packet.packet_id.to_bytes(2, "big")))
        elif packet.kind == r.PUBACK and self.delivery is not None:
            self.delivery.answered(packet.packet_id, packet.code)

    def _subscribe(self, packet: p.Subscribe) -> None:
        if Property.SUBSCRIPTION_ID in packet.properties:
            raise MalformedPacket(
                Reason.SUBSCRIPTION_IDS_NOT_SUPPORTED, "subscription identifiers were not granted"
            )
        assert self.delivery is not None
        codes = subscriptions.granted(self.name, self.version, packet.filters)
        if codes is None:
            self._endpoint.counters.refused["subscribe with wildcard"] += 1
            self.end(Reason.WILDCARDS_NOT_SUPPORTED, "subscribe to your own cmd only")
            return
        for code in codes:
            if code < subscriptions.REFUSED:
                self.delivery.qos = code
            else:
                self._endpoint.counters.refused["subscribe to foreign topic"] += 1
        self.write(writer.suback(self.version, packet.packet_id, codes))

    def _unsubscribe(self, packet: p.Unsubscribe) -> None:
        assert self.delivery is not None
        codes = subscriptions.ended(self.name, self.delivery.qos, packet.filters)
        if 0 in codes:
            self.delivery.qos = -1
        self.write(writer.unsuback(self.version, packet.packet_id, codes))

    def _goodbye(self, packet: p.Disconnect) -> None:
        if packet.properties.get(Property.SESSION_EXPIRY, 0):
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "session expiry was granted as 0")
        if packet.code != Reason.DISCONNECT_WITH_WILL:
            self.will = False
        self._close(b"")

    # What the endpoint calls.

    def begin(self, connect: p.Connect, device_no: int, number: int, now_ns: int) -> None:
        """Become the device's session."""
        settings = self._endpoint.settings
        self.version = connect.version
        self.name = connect.client_id
        self.device_no = device_no
        self.number = number
        self.will = connect.will is not None
        self._ack = f"v1/{self.name}/ack"
        self._explains = connect.properties.get(Property.REQUEST_PROBLEM, 1) == 1
        self._bucket = TokenBucket(settings.publishes_per_s, settings.publishes_burst, now_ns)
        size_max = connect.properties.get(Property.MAXIMUM_PACKET_SIZE, 0)
        assert isinstance(size_max, int)
        self.delivery = Delivery(self, self._endpoint.intake, self._endpoint.counters, size_max)
        self._tel = writer.text(f"v1/{self.name}/tel")

    def awaits_answer(self, awaits: bool) -> None:
        """Expect the PUBACK of a command within its time, or no more."""
        self._endpoint.awaits_answer(self, awaits)

    def acknowledge(self, answers: list[bytes]) -> None:
        """Write answers: the journal has what they answer."""
        self._inflight -= len(answers)
        self.write(b"".join(answers))
        if self._inflight <= self._endpoint.settings.inflight_max // 2:
            self._release(INFLIGHT)

    def correct(self, answer: bytes, reason: str) -> bytes:
        """Say in MQTT 5 that the content was not usable; MQTT 3.1.1 cannot."""
        if self.version != V5:
            return answer
        why = reason if self._explains else ""
        return writer.answer(V5, r.PUBACK, answer[2:4], Reason.PAYLOAD_FORMAT_INVALID, why)

    def decline(self, reason: str) -> None:
        """End the connection: the device sends what is unanswered again on the next one."""
        self._endpoint.counters.dropped["declined"] += 1
        self.end(Reason.SERVER_BUSY, reason)

    def end(self, code: Reason, reason: str) -> None:
        """Say why, as far as the version can, and close."""
        said = writer.disconnect(self.version, code, reason if self._explains else "")
        self._close(said)

    def refuse(self, connect: p.Connect, code: Reason) -> None:
        """Answer CONNECT with a no, and close."""
        self._close(writer.connack(connect.version, code))

    def _malformed(self, error: MalformedPacket, data: bytes) -> None:
        self._endpoint.counters.malformed[error.reason] += 1
        if self._tel is not None:
            self.end(Reason(error.code), error.reason)
        elif error.code == Reason.UNSUPPORTED_VERSION:
            self._close(writer.connack(V311, error.code))
        else:
            self._close(writer.connack(connect_version(data), error.code))
