"""The doctor names what is wrong and what to do about it."""

import json
import resource
import shutil
import socket
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from kapelle import cli
from kapelle.runtime import doctor
from kapelle.runtime.doctor import Verdict


def test_a_port_in_use_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        found = doctor.port("MQTT", "127.0.0.1", number)
        assert found.verdict is Verdict.WARN
        assert "MQTT" in found.remedy
    assert doctor.port("MQTT", "127.0.0.1", 0).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [((256, 256), Verdict.BAD), ((1024, 4096), Verdict.WARN), ((1024, 1 << 20), Verdict.OK)],
)
def test_open_files(monkeypatch, limits: tuple[int, int], verdict: Verdict) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    found = doctor.open_files()
    assert found.verdict is verdict
    assert ("ulimit" in found.remedy) == (verdict is not Verdict.OK)


def test_a_full_disk_is_unsafe(monkeypatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1 << 20))
    assert doctor.free_disk(tmp_path).verdict is Verdict.BAD


def test_a_directory_that_is_not_there_yet_is_no_problem(tmp_path: Path) -> None:
    assert doctor.existing(tmp_path / "a" / "b") == tmp_path


def test_the_command_says_it_all(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAPELLE_MQTT__PORT", "0")
    monkeypatch.setenv("KAPELLE_API__PORT", "0")
    monkeypatch.setattr(sys, "argv", ["kapelle", "doctor", "--json"])
    code = cli.run()
    said = json.loads(capsys.readouterr().out)
    assert code == (0 if said["safe"] else 1)
    subjects = {finding["subject"] for finding in said["findings"]}
    assert {"journal", "python", "open files", "memory", "free disk", "clock"} <= subjects
    assert list(tmp_path.iterdir()) == []
