"""What a device may subscribe to: its own command topic. Pure; the session acts on the answer."""

from collections.abc import Sequence

from kapelle.adapters.mqtt.packets import V5
from kapelle.adapters.mqtt.reader import Reason

REFUSED = 0x80
"""Codes from here on are refusals."""
_NO_SUBSCRIPTION = 0x11


def granted(name: str, version: int, filters: Sequence[tuple[str, int]]) -> bytes | None:
    """Return SUBACK's codes: the granted QoS of the own command topic, a refusal for any other.

    None where a filter has wildcards: who asks for other devices' topics is not kept.
    """
    codes = bytearray()
    for topic, qos in filters:
        if set(topic) & set("+#") or topic.startswith("$share/"):
            return None
        refused = Reason.NOT_AUTHORIZED if version == V5 else Reason.UNSPECIFIED
        codes.append(min(qos, 1) if topic == f"v1/{name}/cmd" else refused)
    return bytes(codes)


def ended(name: str, qos: int, filters: Sequence[str]) -> bytes:
    """Return UNSUBACK's codes; `qos` is that of the own command topic, -1 where there is none."""
    codes = bytearray()
    for topic in filters:
        known = topic == f"v1/{name}/cmd" and qos >= 0
        codes.append(0 if known else _NO_SUBSCRIPTION)
        qos = -1 if known else qos
    return bytes(codes)
