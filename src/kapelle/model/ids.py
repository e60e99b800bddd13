"""Names and numbers of things, and the numeric types shared by every room."""

from hashlib import blake2b
from typing import NewType

import numpy as np
from numpy.typing import NDArray

DeviceId = NewType("DeviceId", str)
"""The name an operator gives a device; it stays outside the adapters."""
DeviceNo = NewType("DeviceNo", int)
"""Dense number of a device. `device_no % partitions` is its partition, `device_no // partitions`
its row there."""
Partition = NewType("Partition", int)
OrderNo = NewType("OrderNo", int)
ResourceName = NewType("ResourceName", str)

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

NS_PER_S = 1_000_000_000

PLANT = "plant"
"""Topic of orders, plans and summaries."""
ALL: ResourceName = ResourceName("all")
"""The resource every enrolled device belongs to."""


def partition_topic(partition: int) -> str:
    """Name the topic that carries everything about one partition's devices."""
    return f"p/{partition}"


def label_key(label: str) -> int:
    """Return a number that stands for a label wherever there is no room for a million labels.

    The same in every process. That two of a million labels share one happens once in 10^7 plants.
    """
    digest = blake2b(label.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
