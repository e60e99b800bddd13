"""Joins the rooms: the only folder that knows them all.

`doors` is what each role stands on, `roles` the roles themselves, `adapters` the protocols that are
configured, `plant` all of it in one process.
"""

from kapelle.app.doors import Doors
from kapelle.app.plant import HOLD_FILE, Plant, open_plant
from kapelle.app.roles import run_dispatch, run_fleet, run_gateway, run_quarantine, run_recorder

__all__ = [
    "HOLD_FILE",
    "Doors",
    "Plant",
    "open_plant",
    "run_dispatch",
    "run_fleet",
    "run_gateway",
    "run_quarantine",
    "run_recorder",
]
