"""The metrics text parses, adds up, and names no device."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from kapelle.api.metrics import render
from kapelle.fleet.plant import PlantView
from kapelle.ingest.service import Counters


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_empty_plant_says_only_what_it_knows() -> None:
    found = samples(render(PlantView(2), 1, {}))
    assert found["kapelle_kill_switch_state", ()] == 0
    assert not [name for name, _ in found if name.startswith("kapelle_aggregate")]


def test_ingest_adds_up() -> None:
    counters = Counters(
        accepted=90, quarantined={"power-unit": 4, 'odd"\n\\': 1}, muted=5, commits=3, commit_s=0.5
    )
    counters.commit_buckets[0], counters.commit_buckets[-1] = 2, 1
    found: Any = samples(render(PlantView(2), 1, {"mqtt": counters, "http": Counters()}))
    label = (("protocol", "mqtt"),)
    readings = {
        key[1]: value for key, value in found.items() if key[0] == "kapelle_ingest_readings_total"
    }
    assert readings[("protocol", "mqtt"), ("result", "accepted")] == 90
    assert readings[("protocol", "mqtt"), ("result", "quarantined")] == 5
    assert readings[("protocol", "mqtt"), ("result", "muted")] == 5
    assert found["kapelle_quarantine_total", (("reason", 'odd"\n\\'),)] == 1
    bucket = "kapelle_ingest_commit_seconds_bucket"
    assert found[bucket, (("le", "0.001"), *label)] == 2
    assert found[bucket, (("le", "+Inf"), *label)] == 3
    assert found["kapelle_ingest_commit_seconds_count", label] == 3
    assert found["kapelle_ingest_commit_seconds_sum", label] == 0.5
