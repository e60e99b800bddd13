"""What an operator changes in a row of the quarantine before it is read again."""

import msgspec

from kapelle.model.enums import Metric

METRICS = tuple(metric.name.lower() for metric in Metric)


class Unusable(Exception):
    """`code: sentence; remedy`: why a row still cannot be read."""


class Fix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is changed in a row before it is decoded again; nothing where nothing is said."""

    scale: dict[str, float] = {}
    """Field -> factor: `{"power_w": 0.001}` where W were multiplied by 1000."""
    negate_power: bool = False
    """Turn the sign of `power_w` round."""
    device: str = ""
    """Whose row it is."""
    drop: list[str] = []
    """Fields left out."""
    payload: str = ""
    """The whole row, written anew."""

    @property
    def text(self) -> str:
        """Return it as JSON, for the record; empty where nothing is changed."""
        told = msgspec.json.encode(self).decode()
        return "" if told == "{}" else told
