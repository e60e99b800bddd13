"""Devices say and hear what docs/adapters/mqtt.md promises."""

import json

import msgspec
import numpy as np

from kapelle.model.enums import AckStatus, Metric
from kapelle.sim.agents import Answers
from kapelle.sim.peers import wire
from kapelle.sim.telemetry import Reports


def test_a_report_leaves_out_what_the_device_does_not_know() -> None:
    reports = Reports(
        np.array([4, 9], np.int32),
        np.array([1, 2]),
        np.array([7, 8]),
        np.array([10**18, 10**18 + 1]),
        {
            Metric.POWER_W: np.array([1.5, -2.0]),
            Metric.SOC: np.array([np.nan, 0.5]),
            Metric.MODE: np.array([np.nan, 2.0]),
        },
    )
    said = [(row, json.loads(payload)) for row, payload in wire.telemetry(reports)]
    assert said == [
        (4, {"at_ns": 10**18, "boot": 1, "seq": 7, "power_w": 1.5}),
        (
            9,
            {
                "at_ns": 10**18 + 1,
                "boot": 2,
                "seq": 8,
                "power_w": -2.0,
                "soc": 0.5,
                "mode": "local",
            },
        ),
    ]


def test_answers_name_their_status_and_reason() -> None:
    block = Answers(
        np.array([3, 4], np.int32),
        np.array([5, 6]),
        np.array([1, 1]),
        np.array([AckStatus.OPTED_OUT, AckStatus.APPLIED], np.uint8),
        (b"owner", b""),
    )
    assert [json.loads(payload) for _, payload in wire.answers(block, 12)] == [
        {"revision": 5, "epoch": 1, "status": "opted_out", "at_ns": 12, "reason": "owner"},
        {"revision": 6, "epoch": 1, "status": "applied", "at_ns": 12},
    ]


def test_commands_are_read_in_order_and_garbage_is_counted() -> None:
    command = {
        "key": "7/1/3", "order": 7, "revision": 3, "epoch": 2, "attempt": 1, "setpoint_w": None,
        "issued_at_ns": 1, "not_after_ns": 2, "ttl_s": 3.0, "revert_s": 4,
    }  # fmt: skip
    good = msgspec.json.encode(command)
    other = msgspec.json.encode(command | {"setpoint_w": -5})
    rows, block, unreadable = wire.commands([(1, good), (2, b"{"), (3, other), (4, b"{}")])
    assert rows.tolist() == [1, 3]
    assert np.isnan(block.setpoint_w[0])
    assert block.setpoint_w[1] == -5
    assert unreadable == 2
