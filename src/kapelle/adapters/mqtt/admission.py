"""Who may connect, and what it is granted. Pure; the endpoint acts on the answer."""

from typing import NamedTuple

from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt.packets import V5, Connect
from kapelle.adapters.mqtt.reader import Properties, Property, Reason
from kapelle.adapters.mqtt.settings import MqttSettings

_WILL_TOPICS = ("tel", "ack", "evt")
_SESSION_EXPIRY = Property.SESSION_EXPIRY
_PACKET_OVERHEAD = 1_024


class Refusal(NamedTuple):
    """Why not."""

    code: Reason
    reason: str


def packet_size_max(settings: MqttSettings) -> int:
    """Return the longest packet body: a payload, its topic and its properties. [bytes]"""
    return settings.payload_size_max + _PACKET_OVERHEAD


def refusal(connect: Connect) -> Refusal | None:
    """Return why a CONNECT is not acceptable, whatever its password."""
    name = connect.username
    if Property.AUTHENTICATION_METHOD in connect.properties:
        return Refusal(Reason.BAD_AUTHENTICATION_METHOD, "use user name and password")
    if not name or connect.password is None:
        return Refusal(Reason.BAD_CREDENTIALS, "user name and password are required")
    if connect.client_id != name or set(name) & set("/+#"):
        return Refusal(Reason.BAD_CLIENT_ID, "the client id must be the user name: the device id")
    will = connect.will
    if will is not None:
        if will.topic not in {f"v1/{name}/{topic}" for topic in _WILL_TOPICS}:
            return Refusal(Reason.NOT_AUTHORIZED, "a will is allowed on own tel, ack and evt only")
        if will.qos == 2 and connect.version == V5:
            return Refusal(Reason.QOS_NOT_SUPPORTED, "a will has QoS 0 or 1")
    return None


def granted(connect: Connect, settings: MqttSettings) -> tuple[int, Properties]:
    """Return the keep-alive in force [s] and what CONNACK says about our limits (MQTT 5)."""
    keep_alive_s = connect.keep_alive_s
    if connect.version != V5:
        # MQTT 3.1.1 cannot be told; a client that asks for none is still not kept for ever.
        return keep_alive_s or settings.keep_alive_s_max, r.NONE
    grants: dict[int, int] = {
        Property.RECEIVE_MAXIMUM: settings.inflight_max,
        Property.MAXIMUM_QOS: 1,
        Property.MAXIMUM_PACKET_SIZE: packet_size_max(settings),
        Property.WILDCARD_AVAILABLE: 0,
        Property.SUBSCRIPTION_IDS_AVAILABLE: 0,
        Property.SHARED_AVAILABLE: 0,
    }
    if connect.properties.get(_SESSION_EXPIRY, 0):
        grants[_SESSION_EXPIRY] = 0
    if not 0 < keep_alive_s <= settings.keep_alive_s_max:
        keep_alive_s = settings.keep_alive_s_max
        grants[Property.SERVER_KEEP_ALIVE] = keep_alive_s
    return keep_alive_s, grants
