"""What does a plant pay for a device on topics of its own, and how soon are all told?

Devices are on the small broker, in a process of their own; they publish at QoS 1, so that what is
acknowledged is durable. The plant has ingest and the SQLite journal (synchronous = FULL).
"""

from benchmarks.sparkplug import ROOT, ask, end, line, start


def run(quick: bool) -> list[dict[str, object]]:
    """Return memory, rate, processor time and the time until all have come, and are told."""
    devices = 1_000 if quick else 4_000
    seen = _measure(devices, 3.0 if quick else 15.0)
    notes = {
        "memory": ("kB/device", "one state, availability and setpoint topic each, all there"),
        "coming": ("s", "until the plant has heard all come"),
        "command": ("s", "until all have shown their setpoint"),
        "rate": ("msg/s", "JSON with two values and its time, durable"),
        "processor per message": ("us/msg", "at that rate"),
    }
    return [
        {
            "name": f"topics {devices} devices, {name}",
            "value": round(seen[name], 3),
            "unit": unit,
            "ratio": None,
            "peer": "",
            "note": note,
        }
        for name, (unit, note) in notes.items()
    ]


def _measure(devices: int, seconds: float) -> dict[str, float]:
    load = start("topics_load", "--devices", devices, "--seconds", seconds)
    try:
        port = line(load)
        server = start(
            *("topics_server", "--port", port, "--devices", devices, "--directory", ROOT)
        )
        try:
            before = line(server)
            # It answers as soon as it is connected.
            ask(server, "see")
            coming = ask(load, "come")
            there = ask(server, "see")
            told = ask(server, "tell")
            assert told["written"] == devices
            idle = ask(server, "see")
            flat = ask(load, "flat")
            assert not flat["dropped"]
            busy = ask(server, "see")
        finally:
            end(server)
    finally:
        end(load)
    return {
        "memory": (there["resident_kb"] - before["resident_kb"]) / devices,
        "coming": coming["seconds"],
        "command": told["seconds"],
        "rate": flat["acked"] / flat["seconds"],
        "processor per message": (busy["cpu_s"] - idle["cpu_s"]) / flat["acked"] * 1e6,
    }
