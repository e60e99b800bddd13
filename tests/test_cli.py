"""The command line: one sentence for every mistake, one exit code for every kind of end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import pytest

from kapelle import cli
from kapelle.api.shapes import HoldTold, OrderTold, PreviewTold, ReasonTold, StatusTold
from kapelle.api.told import tell_resource
from kapelle.cli import orders, status
from kapelle.cli.output import Exit, cell, exit_code, print_table
from kapelle.cli.quantities import duration_s, energy_wh, moment
from kapelle.errors import (
    Conflict,
    DataDirectoryHeld,
    Invalid,
    JournalConflict,
    JournalDamaged,
    JournalFailed,
    KapelleError,
    NotFound,
    RegistryUnavailable,
    Rejected,
    TokenRefused,
    Unreachable,
)
from kapelle.fleet.plant import PlantView, total
from kapelle.journal.codec import JournalNewer


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `kapelle …` in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("KAPELLE_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["kapelle", *arguments])
        capsys.readouterr()
        code = cli.run()
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return call


def test_each_kind_of_error_has_its_exit_code() -> None:
    kinds: dict[type[KapelleError], int] = {
        Invalid: 2, NotFound: 3, Conflict: 4, JournalConflict: 4, DataDirectoryHeld: 4,
        Unreachable: 5, TokenRefused: 5, RegistryUnavailable: 5, Rejected: 6, JournalFailed: 74,
        JournalDamaged: 65, JournalNewer: 65, KapelleError: 1,
    }  # fmt: skip
    assert {kind: exit_code(kind("no")) for kind in kinds} == kinds


def test_a_release_that_is_held_again_at_once_does_not_say_that_commands_leave(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plant:
        reasons: ClassVar[list[object]] = [
            SimpleNamespace(code="commands-held", text="data/HOLD is still there")
        ]

        def release_hold(self, reason: str) -> HoldTold:
            return HoldTold(held=False, reason=reason, at=datetime.now(UTC))

        def status(self) -> "type[Plant]":
            return Plant

    monkeypatch.setattr(orders, "plant", lambda *_: nullcontext(Plant()))
    told = run("release")
    assert (told.code, told.out) == (4, "")
    assert "held again at once: data/HOLD is still there" in told.err
    Plant.reasons.clear()
    assert run("release").code == 0


MENDED = ["--register", "import", "--reason", "why", "--day", "2026-11-22"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["config", "show", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["order", "show", "1"], 5, "kapelle up"),
        (["order", "create"], 2, "give one"),
        (["order", "create", "--mw", "1", "--kw", "1"], 2, "give one"),
        (["order", "create", "--mw", "1", "--for", "soon"], 2, "20m"),
        (["order", "amend", "1"], 2, "nothing to change"),
        (["devices", "rotate", "nobody"], 3, "nobody"),
        (["devices", "import", "fleet.xls"], 2, "csv"),
        (["devices", "import", "fleet.csv"], 2, "fleet.csv"),
        (["devices", "ls", "-q", "colour:red"], 2, "colour"),
        (["resources", "add", "all", "kind:pv"], 2, "all"),
        (["energy", "repair", "x", *MENDED], 2, "give one of the three"),
        (["energy", "repair", "x", *MENDED, "--interpolate", "--set", "1Wh"], 2, "2 ways"),
        (["energy", "repair", "x", *MENDED, "--set", "12.3 apples"], 2, "12.3kWh"),
        (["energy", "repair", "x", *MENDED[:-2], "--scale", "2"], 2, "give either day"),
        (["energy", "show", "x", "--day", "2026-11-22", "--revision", "last"], 2, "latest, all"),
        (["energy", "show", "x", "--day", "2026-11-22"], 5, "kapelle up"),
        (["query", "SELECT 1"], 3, "no history"),
        (["export", "device", "x", "--day", "2026-11-22", "--out", "x.doc"], 2, ".parquet"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_traceback(
    run: Run, arguments: list[str], code: int, said: str
) -> None:
    told = run(*arguments)
    assert told.code == code
    assert said in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_what_strangers_sent_is_not_written_raw_to_a_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as terminal:
        terminal.setattr(sys.stdout, "isatty", lambda: True)
        told = run("dlq", "export", "-")
    assert (told.code, told.out) == (2, "")
    assert "pipe them, or name a FILE" in told.err
    assert run("dlq", "export", "-").code == 5, "into a pipe it goes, once a plant answers"


def test_errors_under_json_are_json(run: Run) -> None:
    told = run("devices", "rotate", "nobody", "--json")
    assert told.code == Exit.NOT_FOUND
    assert "nobody" in json.loads(told.err)["error"]


def test_version_and_help(run: Run) -> None:
    assert run("version").out.startswith("kapelle ")
    assert json.loads(run("version", "--json").out)["version"]
    for command in ("up", "demo", "doctor", "order", "devices", "sim"):
        assert command in run("--help").out
    assert run("order", "create", "--help").code == 0


def test_config_is_shown_with_origins_and_checked(run: Run, monkeypatch) -> None:
    Path("kapelle.toml").write_text("[plant]\npartitions = 8\n")
    monkeypatch.setenv("KAPELLE_MQTT__PORT", "1999")
    shown = run("config", "show", "--origin").out
    assert "partitions = 8" in shown
    assert "kapelle.toml line 2" in shown
    assert "KAPELLE_MQTT__PORT" in shown
    assert json.loads(run("config", "show", "--json").out)["mqtt"]["port"] == "1999"
    assert run("config", "check").code == 0
    monkeypatch.setenv("KAPELLE_MQTT__PROT", "1999")
    told = run("config", "check")
    assert told.code == 2
    assert "did you mean port?" in told.err


FLEET = "id,kind,vendor,nameplate_up_w,energy_wh\nb1,battery,acme,5000,10000\np1,pv,bolt,4000,\n"


def test_devices_are_enrolled_listed_and_rotated(run: Run) -> None:
    Path("fleet.csv").write_text(FLEET)
    done = json.loads(run("devices", "import", "fleet.csv", "--json").out)
    assert (done["devices"], done["created"]) == (2, 2)
    assert len(set(done["credentials"].values())) == 2
    assert json.loads(run("devices", "import", "fleet.csv", "--json").out)["created"] == 0
    listed = json.loads(run("devices", "ls", "-q", "kind:battery", "--json").out)
    assert [device["id"] for device in listed] == ["b1"]
    assert "credential" not in listed[0]
    assert "acme" in run("devices", "ls").out
    fresh = json.loads(run("devices", "rotate", "b1", "--json").out)["credential"]
    assert fresh not in done["credentials"].values()
    assert json.loads(run("resources", "add", "sun", "kind:pv", "--json").out)["devices"] == 1
    names = {r["name"]: r["devices"] for r in json.loads(run("resources", "ls", "--json").out)}
    assert names == {"all": 2, "sun": 1}


def test_an_owner_opts_out_for_a_while_and_comes_back(run: Run) -> None:
    Path("fleet.csv").write_text(FLEET)
    run("devices", "import", "fleet.csv", "--json")
    told = json.loads(run("devices", "opt-out", "b1", "p1", "--until", "+2h", "--json").out)
    assert told["changed"] == 2
    listed = json.loads(run("devices", "ls", "--json").out)
    assert {device["opted_out_until"] for device in listed} == {told["until"]}
    assert json.loads(run("devices", "opt-out", "b1", "--over", "--json").out)["changed"] == 1
    listed = json.loads(run("devices", "ls", "-q", "kind:battery", "--json").out)
    assert listed[0]["opted_out_until"] is None
    for wrong, said in (
        (["b1"], "--over"),
        (["b1", "--until", "2020-01-01T00:00:00Z"], "is past"),
        (["b1", "--until", "soon"], "+5m"),
    ):
        refused = run("devices", "opt-out", *wrong)
        assert refused.code == 2
        assert said in refused.err
    assert run("devices", "opt-out", "nobody", "--until", "+1h").code == 3


def test_a_bad_row_is_named_and_nothing_is_enrolled(run: Run) -> None:
    Path("fleet.csv").write_text(FLEET + "x1,battry,acme,1,1\n")
    told = run("devices", "import", "fleet.csv")
    assert told.code == 2
    assert "line 4, kind" in told.err
    assert "did you mean `battery`" in told.err
    assert run("devices", "ls", "--json").out == "[]\n"


def test_credentials_go_into_a_file_only_its_owner_reads(run: Run) -> None:
    Path("fleet.csv").write_text(FLEET)
    told = run("devices", "import", "fleet.csv", "--secrets", "secrets.csv", "--json")
    assert "credentials" not in json.loads(told.out)
    assert Path("secrets.csv").stat().st_mode & 0o777 == 0o600
    assert Path("secrets.csv").read_text().splitlines()[0] == "id,secret"
    Path("fleet.csv").write_text(FLEET + "b3,battery,acme,5000,10000\n")
    again = run("devices", "import", "fleet.csv", "--secrets", "secrets.csv")
    assert again.code == 2
    assert "b3," in again.out, "the credential is not lost when the file is there already"


class FakeClient:
    """A plant that promises half."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []
        self.state = "active"
        self.damage: list[str] = []
        self.reasons: list[ReasonTold] = []

    def _order(self, **changed: object) -> OrderTold:
        now = datetime(2026, 5, 1, 12, tzinfo=UTC)
        values: dict[str, object] = {
            "order_no": 7, "resource": "all", "target_w": 3e6, "starts_at": now, "ends_at": now,
            "issued_at": now, "issued_by": "me", "tolerance": 0.02, "product": "manual",
            "status": self.state, "planned": True, "baseline_w": 0.0, "committed_w": 1.5e6,
            "declined_w": 1.5e6, "reason": "nameplate",
        }  # fmt: skip
        return OrderTold.model_construct(**(values | changed))

    def create_order(self, **asked: object) -> OrderTold:
        self.asked.append(("create", asked))
        return self._order()

    def preview_order(self, **asked: object) -> PreviewTold:
        self.asked.append(("preview", asked))
        return PreviewTold.model_construct(
            resource="all", target_w=3e6, committed_w=1.5e6, declined_w=1.5e6, reason="nameplate",
            baseline_w=0.0, headroom_up_w=1.5e6, headroom_down_w=0.0, devices=2, excluded={},
        )  # fmt: skip

    def order(self, order_no: int) -> OrderTold:
        if order_no != 7:
            raise NotFound(f"there is no order {order_no}")
        return self._order()

    def cancel_order(self, order_no: int) -> OrderTold:
        return self._order(status="cancelled")

    def status(self) -> StatusTold:
        return StatusTold(
            version="1", now=datetime(2026, 5, 1, tzinfo=UTC), held=False, hold_reason="",
            position=1, partitions=1, partitions_heard=0, plant=tell_resource(total(PlantView(1))),
            orders=[], ingest={}, notices=[], journal_damage=len(self.damage),
            damage=self.damage, reasons=self.reasons,
            state=self.reasons[0].state if self.reasons else "ok",
        )  # fmt: skip


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    client = FakeClient()

    @contextmanager
    def connect(file: Path | None, url: str | None) -> Iterator[FakeClient]:
        yield client

    monkeypatch.setattr(orders, "plant", connect)
    monkeypatch.setattr(status, "plant", connect)
    return client


def test_an_order_says_what_is_promised_and_what_binds(run: Run, plant: FakeClient) -> None:
    told = run("order", "create", "--mw", "3", "--for", "1h30m", "--key", "k")
    assert told.code == 0
    assert "promised 1.50 MW" in told.out
    assert "declined 1.50 MW: nameplate" in told.out
    kind, asked = plant.asked[0]
    assert kind == "create"
    assert isinstance(asked, dict)
    assert (asked["target_w"], asked["duration_s"], asked["key"]) == (3e6, 5400.0, "k")
    assert json.loads(run("order", "show", "7", "--json").out)["committed_w"] == 1.5e6
    assert run("order", "show", "8").code == Exit.NOT_FOUND
    assert "cancelled" in run("order", "cancel", "7").out


def test_status_names_what_is_damaged_in_the_journal(run: Run, plant: FakeClient) -> None:
    assert "damaged" not in run("status").out
    plant.damage = ["p/0 17: checksum wrong; left out"]
    told = run("status").out
    assert "the journal is damaged, found so far: 1" in told
    assert "p/0 17: checksum wrong; left out" in told


def test_status_says_first_what_is_wrong_within_the_width(
    run: Run, plant: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run("status").out.startswith("● ok")
    now = datetime(2026, 5, 1, tzinfo=UTC)
    plant.reasons = [
        ReasonTold(
            code="partition-behind", state="failing", text="partition 1 behind by up to 45 s",
            remedy="look for a busy processor " * 5, since=now - timedelta(minutes=5),
        )
    ]  # fmt: skip
    told = run("status").out
    lines = told.splitlines()
    assert lines[0].startswith("✕ failing")
    assert "partition-behind, 5\N{NO-BREAK SPACE}min" in lines[1]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in told


def test_a_dry_run_orders_nothing(run: Run, plant: FakeClient) -> None:
    told = run("order", "create", "--kw", "3000", "--dry-run")
    assert "nothing was ordered" in told.err
    assert [kind for kind, _ in plant.asked] == ["preview"]


def test_an_order_the_plant_declines_is_an_exit_code(run: Run, plant: FakeClient) -> None:
    plant.state = "declined"
    assert run("order", "create", "--mw", "3").code == Exit.REJECTED


NOW = datetime(2026, 5, 1, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90.0), ("20m", 1200.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("1d", 86400.0)],
)
def test_durations(text: str, expected: float) -> None:
    assert duration_s(text) == expected


@pytest.mark.parametrize("text", ["", "20", "m", "20 minutes", "-5m", "0s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Invalid):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+5m", "2026-05-01T14:05:00.000Z"),
        ("14:30", "2026-05-01T14:30:00.000Z"),
        ("13:30", "2026-05-02T13:30:00.000Z"),
        ("2026-05-01T16:30:00+02:00", "2026-05-01T14:30:00.000Z"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["25:00", "noon", "2026-05-01T16:30:00", "+x"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(Invalid):
        moment(text, NOW)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (7, "7"), (-0.0, "0"), (-5.5, "−5.5"),
     (0.2933333, "0.293333"), (-1_453_750.4, "−1,453,750"), (2e-9, "2e-09"), ("a-b", "a-b"),
     (1283, "1283")],
)  # fmt: skip
def test_a_cell_of_a_table_reads_well(value: object, text: str) -> None:
    assert cell(value) == text


def test_what_counts_has_separators_and_what_names_has_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table([{"order": 1283, "devices": 1283}], ("order", "devices"), "", counts=("devices",))
    assert capsys.readouterr().out.split() == ["order", "devices", "1283", "1,283"]


_COSTLY = ("duckdb", "pyarrow", "fastapi", "sqlalchemy")


@pytest.mark.parametrize("command", ["--help", "version", "verify --help", "backup --help"])
def test_a_command_that_needs_no_database_imports_none(command: str) -> None:
    script = (
        "import sys\nfrom kapelle import cli\ncode = cli.run()\n"
        f"print(code, sorted(set({_COSTLY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1:] == ["0 []"], done.stderr


@pytest.mark.parametrize(
    ("text", "wh"),
    [
        ("850Wh", 850.0),
        ("12.3kWh", 12_300.0),
        ("1.5 MWh", 1.5e6),
        ("1,250 wh", 1_250.0),
        ("0Wh", 0),
    ],
)
def test_energy_as_people_type_it(text: str, wh: float) -> None:
    assert energy_wh(text) == wh


@pytest.mark.parametrize("text", ["", "12", "kWh", "-1kWh", "1kW", "1e999 Whx"])
def test_what_is_no_energy_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match=r"12\.3kWh"):
        energy_wh(text)
