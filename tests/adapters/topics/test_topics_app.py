"""A plant listens to other people's topics where its configuration says so and means it."""

import pytest

from kapelle.adapters.cloud.documents import CloudShape, CloudValue
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.app.adapters import make_adapters
from kapelle.config import Config, parse
from kapelle.errors import Invalid
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

SECTION = """
[topics]
[[topics.schemes]]
name = "home"
[[topics.schemes.values]]
topic = "home/{device}/power"
metric = "power_w"
unit = "W"
positive = "import"
"""


def made(config: Config) -> list[str]:
    adapters = make_adapters(config, Directory(1), SystemClock(), "token")
    return [adapter.name for adapter in adapters.all]


def test_it_is_off_without_its_section() -> None:
    assert "topics" not in made(parse("", {}).config)
    assert "topics" in made(parse(SECTION, {}).config)


def test_a_power_without_its_sign_is_refused_with_what_to_say() -> None:
    with pytest.raises(Invalid) as refused:
        parse(SECTION.replace('positive = "import"', ""), {})
    assert 'positive is "export" or "import" for a power' in str(refused.value)


def test_a_password_does_not_cross_a_network_in_clear_and_is_not_in_the_file() -> None:
    elsewhere = SECTION.replace("[topics]", '[topics]\nhost = "broker.example"')
    with pytest.raises(Invalid, match="in clear"):
        made(parse(elsewhere, {}).config)
    assert "topics" in made(parse(elsewhere.replace("host", "tls = true\nhost"), {}).config)
    with pytest.raises(Invalid):
        parse(SECTION.replace("[topics]", '[topics]\npassword = "secret"'), {})
    told = parse(SECTION, {"KAPELLE_TOPICS__PASSWORD": "secret"}).config.topics
    assert told is not None
    assert told.password == "secret"


def test_no_cloud_can_bear_its_name() -> None:
    shape = CloudShape("s", (CloudValue("soc", ("soc",), "percent"),))
    with pytest.raises(ValueError, match="not another adapter's"):
        CloudSettings("topics", "https://x.example", (shape,))
