"""A plant serves stations where its configuration says so, and says what it lacks to do it."""

import sys

import pytest

from kapelle.app.adapters import make_adapters
from kapelle.config import Config, parse
from kapelle.errors import Invalid
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock


def made(config: Config) -> list[str]:
    adapters = make_adapters(config, Directory(1), SystemClock(), "token")
    return [adapter.name for adapter in adapters.all]


def test_it_is_off_without_its_section() -> None:
    assert "ocpp" not in made(parse("", {}).config)
    assert "ocpp" in made(parse("[ocpp]\n", {}).config)


@pytest.mark.parametrize(
    "text", ["charging_rate_unit = 'kW'", "heartbeat_s = 0", "stack_level = -1", "prot = 1"]
)
def test_settings_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse(f"[ocpp]\n{text}\n", {})


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kapelle.adapters.ocpp.endpoint", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(Invalid) as refused:
        made(parse("[ocpp]\n", {}).config)
    assert "pip install 'kapelle[ocpp]'" in str(refused.value)
