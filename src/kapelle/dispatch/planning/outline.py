"""What a resource's stores can do, as far as headrooms for windows tell that are published anyway.

For a preview: the sums a plan rests on are told only while a profile runs.
"""

import numpy as np

from kapelle.fleet.curve import rations
from kapelle.fleet.plant import PlantView
from kapelle.fleet.stores import FREE
from kapelle.model.ids import Floats

_UP, _DOWN = 1, 5
"""Where headroom up and down stand in a cell of `Room`."""


def from_rooms(view: PlantView, resource: str) -> list[dict[str, list[float]]]:
    """Return stores that together have the headrooms a resource published; none where none are.

    What devices can hold for a time T has the energy F(T) = sum of min(P T, E): it bends down as
    one after the other runs out. Straight lines between the published T lie below it, and are what
    stores do that last for just these T: no more than there is.
    """
    heads_w: dict[float, Floats] = {}
    for rooms in view.rooms.values():
        for window_s, room in rooms.get(resource, {}).items():
            known = heads_w.setdefault(window_s, np.zeros(2))
            for cell in room.cells.values():
                known += cell[_UP], cell[_DOWN]
    if not heads_w:
        return []
    lasts_s = sorted(heads_w)
    energy = np.array([[0.0, 0.0], *(heads_w[each] * each for each in lasts_s)])
    slopes_w = np.diff(energy, axis=0) / np.diff([0.0, *lasts_s])[:, None]
    # Headrooms of several moments need not bend down everywhere.
    slopes_w = np.maximum(np.minimum.accumulate(slopes_w), 0.0)
    told: dict[str, list[float]] = {FREE: [*slopes_w[-1].tolist(), 0.0, 0.0]}
    for place, window_s in enumerate(lasts_s[:-1]):
        knot = int(np.searchsorted(rations.KNOTS_S, window_s, "right")) - 1
        up_w, down_w = (slopes_w[place] - slopes_w[place + 1]).tolist()
        hours = float(rations.KNOTS_S[knot]) / 3600.0
        told[f"{knot}/0"] = [up_w, 0.0, up_w * hours, 0.0]
        told[f"0/{knot}"] = [0.0, down_w, 0.0, down_w * hours]
    return [told]
