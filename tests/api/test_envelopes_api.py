"""Envelopes over HTTP and on the command line: told to every partition, listed, taken away."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.api.conftest import TOKEN, Running
from typer.testing import CliRunner

from kapelle.cli import app
from kapelle.model.entries import Kind
from kapelle.model.ids import partition_topic
from kapelle.model.plant import Envelopes


@pytest.fixture(scope="module")
def plant(run_api: Callable[..., AbstractContextManager[Running]]) -> Iterator[Running]:
    with run_api() as found:
        yield found


def test_limits_reach_every_partition_and_are_listed(plant: Running) -> None:
    with plant.client() as client:
        told = client.set_envelopes(
            "feeder", ["f-2", "f-1", "f-2"], export_limit_w=400e3, duration_s=600
        )
        assert [(e.name, e.export_limit_w, e.in_force) for e in told.envelopes] == [
            ("f-1", 400e3, True),
            ("f-2", 400e3, True),
        ]
        (written,) = plant.written(Kind.ENVELOPES)
        assert isinstance(written, Envelopes)
        assert written.names == ["f-1", "f-2"]
        read = plant.journal.read(partition_topic(0), 0, 10, (Kind.ENVELOPES,))
        (there,) = asyncio.run_coroutine_threadsafe(read, plant.loop).result(5)
        assert there.body == written
        # A later one counts instead; without any limit all go, with what was to begin later.
        client.set_envelopes("feeder", ["f-1"], import_limit_w=1e3)
        listed = client.envelopes("feeder").envelopes
        assert [(e.name, e.import_limit_w, e.in_force) for e in listed] == [
            ("f-1", 1e3, True),
            ("f-2", None, True),
        ]
        client.set_envelopes("feeder", ["f-1", "f-2"])
        assert client.envelopes().envelopes == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"level": "street", "names": ["a"]}, "/level"),
        ({"level": "zone", "names": []}, "/names"),
        ({"level": "zone", "names": ["a"], "export_limit_w": -1}, "/export_limit_w"),
        ({"level": "zone", "names": ["a"], "ends_at": "2020-01-01T00:00:00Z"}, "/ends_at"),
        (
            {"level": "zone", "names": ["a"], "duration_s": 5, "ends_at": "2999-01-01T00:00:00Z"},
            "/duration_s",
        ),
    ],
)
def test_what_is_wrong_is_named(plant: Running, body: dict[str, object], pointer: str) -> None:
    answer = plant.http.post("/v1/envelopes", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_the_command_line_sets_lists_and_clears(
    plant: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAPELLE_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["envelope", *words, "--url", plant.url])
        assert done.exit_code == 0, done.output
        return done.output

    assert "z-1" in run("set", "zone", "z-1", "z-2", "--export-kw", "400", "--for", "20m")
    assert "400.0 kW" in run("ls")
    assert "no envelope is left of z-1" in run("clear", "zone", "z-1")
    assert "z-1" not in run("ls", "zone")
