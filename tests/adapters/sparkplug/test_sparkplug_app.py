"""A plant is a Sparkplug host where its configuration says so, and says what it lacks to be one."""

import sys

import pytest

from kapelle.app.adapters import make_adapters
from kapelle.config import Config, parse
from kapelle.errors import Invalid
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

SECTION = """
[sparkplug]
[[sparkplug.metrics]]
name = "Power"
metric = "power_w"
unit = "W"
positive = "export"
"""


def made(config: Config) -> list[str]:
    adapters = make_adapters(config, Directory(1), SystemClock(), "token")
    return [adapter.name for adapter in adapters.all]


def test_it_is_off_without_its_section() -> None:
    assert "sparkplug" not in made(parse("", {}).config)
    assert "sparkplug" in made(parse(SECTION, {}).config)


def test_a_password_does_not_cross_a_network_in_clear() -> None:
    elsewhere = SECTION.replace("[sparkplug]", '[sparkplug]\nhost = "broker.example"')
    with pytest.raises(Invalid, match="in clear"):
        made(parse(elsewhere, {}).config)
    assert "sparkplug" in made(parse(elsewhere.replace("host", "tls = true\nhost"), {}).config)


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("endpoint", "host", "link", "nodes", "rebirths", "codec", "spec.payload")
    for name in ours:
        monkeypatch.delitem(sys.modules, f"kapelle.adapters.sparkplug.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(Invalid) as refused:
        made(parse(SECTION, {}).config)
    assert "pip install 'kapelle[sparkplug]'" in str(refused.value)
