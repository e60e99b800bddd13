"""Settings: typed, with places and remedies for every mistake, secrets never in plain text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from kapelle import config as module
from kapelle.config import Config, as_toml, load, parse
from kapelle.errors import Invalid


@dataclass(frozen=True, slots=True)
class Inner:
    name: str = ""
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    port: int = 1883
    host: str = "127.0.0.1"
    grace_s: float = 1.5
    tls: bool = False
    mode: Literal["full", "lazy"] = "full"
    certificate: Path | None = None
    hosts: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    password: str | None = None
    url: str = ""
    brokers: tuple[Inner, ...] = ()

    def __post_init__(self) -> None:
        if self.port < 0:
            raise ValueError("port is not negative")


@dataclass(frozen=True, slots=True)
class Trial:
    sample: Sample = field(default_factory=Sample)


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch):
    """A configuration with one section of every type."""
    monkeypatch.setattr(module, "Config", Trial)
    monkeypatch.setattr(module, "_rooted", lambda config, given: config)

    def read(text: str = "", **environment: str) -> Sample:
        return parse(text, environment).config.sample

    return read


def problems(text: str = "", **environment: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse(text, environment)
    return [str(problem) for problem in caught.value.problems]


def test_every_type_is_read(sample) -> None:
    made = sample(
        '[sample]\nport = 1\ngrace_s = 2\ntls = true\nmode = "lazy"\ncertificate = "/c.pem"\n'
        'hosts = ["a", "b"]\nweights = { x = 1, y = 2.5 }\nbrokers = [{ name = "n", rate = 2 }]'
    )
    assert made == Sample(
        1, "127.0.0.1", 2.0, True, "lazy", Path("/c.pem"), ("a", "b"), {"x": 1.0, "y": 2.5},
        brokers=(Inner("n", 2.0),),
    )  # fmt: skip
    assert isinstance(made.grace_s, float)


def test_the_environment_wins_over_the_file(sample) -> None:
    made = sample(
        "[sample]\nport = 1\ngrace_s = 9",
        KAPELLE_SAMPLE__PORT="2",
        KAPELLE_SAMPLE__HOSTS="a, b",
        KAPELLE_SAMPLE__TLS="true",
        KAPELLE_SAMPLE__HOST="0",
        KAPELLE_CONFIG="elsewhere.toml",
        PATH="/bin",
    )
    assert (made.port, made.grace_s, made.hosts, made.tls, made.host) == (
        2, 9.0, ("a", "b"), True, "0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sample]\nprot = 1", "line 2: nothing is called prot in [sample]; did you mean port?"),
        ("[smaple]\nport = 1", "line 1: nothing is called [smaple]; did you mean sample?"),
        ("[sample]\n\nport = true", "line 3: sample.port = true is not a whole number"),
        ('[sample]\nport = "1"', "is not a whole number; write it without quotes"),
        ("[sample]\nport = 1.5", "sample.port = 1.5 is not a whole number"),
        ('[sample]\nmode = "ful"', '"ful" is not one of full, lazy; did you mean full?'),
        ("[sample]\nport = -1", "line 1: [sample] port is not negative"),
        (
            '[sample]\nbrokers = [{ nam = "n" }]',
            "nothing is called nam in [sample.brokers.1]; did you mean name?",
        ),
        ("port = 1", "kapelle.toml line 1: nothing is called [port]"),
        ("[sample", "kapelle.toml: "),
    ],
)
def test_a_mistake_is_named_with_place_and_remedy(sample, text: str, said: str) -> None:
    assert said in "\n".join(problems(text))


def test_every_mistake_is_reported_at_once(sample) -> None:
    found = problems("[sample]\nprot = 1\ngrace_s = 'x'", KAPELLE_SAMPLE__POT="1", KAPELLE_X__Y="1")
    assert len(found) == 4


def test_secrets_come_from_files_and_the_environment_only(sample, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    assert sample(f'[sample]\npassword = "file:{secret}"').password == "hush"
    assert sample(KAPELLE_SAMPLE__PASSWORD="hush").password == "hush"
    assert sample(KAPELLE_SAMPLE__URL=f"file:{secret}").url == "hush"
    assert "KAPELLE_SAMPLE__PASSWORD" in problems('[sample]\npassword = "hush"')[0]
    told = problems('[sample]\nurl = "postgresql://me:hush@db/kapelle"')
    assert "plain text" in told[0]
    assert "hush" not in told[0]
    assert "No such file" in problems('[sample]\npassword = "file:/nowhere"')[0]


def test_what_is_shown_hides_secrets_names_origins_and_can_be_read_again(sample) -> None:
    loaded = parse(
        "[sample]\nport = 7",
        {
            "KAPELLE_SAMPLE__PASSWORD": "hush",
            "KAPELLE_SAMPLE__URL": "postgresql://me:hush@db/kapelle",
        },
    )
    shown = as_toml(loaded, origin=True)
    assert "hush" not in shown
    assert "kapelle.toml line 2" in shown
    assert "KAPELLE_SAMPLE__PASSWORD" in shown
    assert shown.count("# default") == 8
    plain = as_toml(parse("[sample]\nport = 7\nhosts = ['a']", {}))
    assert parse(plain, {}).config == parse("[sample]\nport = 7\nhosts = ['a']", {}).config


def test_the_real_configuration_has_defaults_and_shows_itself(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(None, {})
    assert loaded.config == Config()
    assert parse(as_toml(loaded), {}).config == Config()
    with pytest.raises(Invalid, match=r"nowhere\.toml"):
        load(Path("nowhere.toml"), {})


@pytest.mark.parametrize(
    ("text", "remedy"),
    [('[[clouds]]\nname = "acme"', "[[clouds.cloud]]"), ("[[ocpp]]\nport = 9000", "[ocpp]")],
)
def test_a_section_written_as_a_list_is_told_what_was_meant(text: str, remedy: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text, {})
    (found,) = caught.value.problems
    assert found.remedy == f"write {remedy}"


def test_one_directory_holds_everything_and_a_broker_is_there_only_if_named() -> None:
    config = parse('[plant]\ndata_dir = "/srv/kapelle"', {}).config
    assert config.journal.directory == Path("/srv/kapelle/journal")
    assert config.broker is None
    apart = parse('[plant]\ndata_dir = "/a"\n[journal]\ndirectory = "/b"\n[broker]', {}).config
    assert apart.journal.directory == Path("/b")
    assert apart.broker is not None
    by_variable = parse("", {"KAPELLE_BROKER__HOST": "mq"}).config
    assert by_variable.broker is not None
    assert by_variable.broker.host == "mq"
