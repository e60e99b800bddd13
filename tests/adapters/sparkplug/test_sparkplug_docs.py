"""What docs/adapters/sparkplug.md shows is what a plant takes."""

import csv
import math
import re
from pathlib import Path

import pytest

from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.app.adapters import make_adapters
from kapelle.config import load
from kapelle.registry.directory import Directory
from kapelle.registry.fields import Reader
from kapelle.runtime.clock import SystemClock

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "adapters" / "sparkplug.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_its_settings_make_a_host(tmp_path: Path) -> None:
    file = tmp_path / "kapelle.toml"
    file.write_text(block("toml"))
    config = load(file, {}).config
    assert config.sparkplug is not None
    assert [metric.metric for metric in config.sparkplug.metrics] == [
        "power_w",
        "soc",
        "setpoint_w",
    ]
    directory = Directory.build(1, [])
    made = make_adapters(config, directory, SystemClock(), "token")
    assert "sparkplug" in [adapter.name for adapter in made.all]


def test_its_device_can_be_enrolled_and_has_no_revert_timer() -> None:
    (row,) = csv.DictReader(block("csv").splitlines())
    device, problems = Reader().device("line 2", row)
    assert not problems
    assert device is not None
    assert device.adapter == "sparkplug"
    assert math.isnan(device.revert_s)


@pytest.mark.parametrize(
    ("metric", "unit", "positive"),
    [
        ("power_w", "W", ""),
        ("soc", "percent", "export"),
        ("power_w", "kWh", "export"),
        ("x", "W", ""),
    ],
)
def test_a_mapping_without_a_sign_or_of_another_unit_is_refused(
    metric: str, unit: str, positive: str
) -> None:
    with pytest.raises(ValueError):
        SparkplugMetric("name", metric, unit, positive)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    power = SparkplugMetric("P", "power_w", "W", "export")
    for wrong in (
        {"metrics": ()},
        {"metrics": (power, power)},
        {"metrics": (power,), "host_id": "a/b"},
        {"metrics": (power,), "groups": ("#",)},
        {"metrics": (power,), "rebirth_s": 0.0},
    ):
        with pytest.raises(ValueError):
            SparkplugSettings(**wrong)  # type: ignore[arg-type]  # test data
