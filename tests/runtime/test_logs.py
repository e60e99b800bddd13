"""Log lines carry fields, one line each, and never a secret."""

import gc
import io
import json
import logging

import pytest

from kapelle.runtime import logs


@pytest.fixture
def restored():
    # What a test before left behind, such as a task of a loop that is closed, is said before.
    gc.collect()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def said(form: logs.Form, *args: object, **fields: object) -> str:
    stream = io.StringIO()
    logs.set_up(form, stream=stream)
    logging.getLogger("kapelle.fleet.service").warning(*args, extra=fields)  # type: ignore[arg-type]  # whatever callers may pass
    return stream.getvalue()


def test_text_lines_have_time_level_room_and_fields(restored) -> None:
    line = said("text", "owner started", partition=3, reason="lease was free")
    assert line.endswith(' fleet.service: owner started partition=3 reason="lease was free"\n')
    assert line.split()[1] == "warning"
    assert line.split()[0].endswith("Z")


def test_json_lines_can_be_read_again(restored) -> None:
    line = json.loads(said("json", "owner started", partition=3, place=ValueError("x")))
    assert line["partition"] == 3
    assert (line["level"], line["room"], line["message"]) == (
        "warning", "fleet.service", "owner started",
    )  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_stay_out(restored, form: logs.Form) -> None:
    line = said(
        form,
        "cannot open postgresql://me:hush@db/x password=hush",
        api_token="hush",
        url="nats://me:hush@host",
        header="Authorization: Bearer hush",
    )
    assert "hush" not in line
    assert "db/x" in line


def test_ports_are_no_secrets(restored) -> None:
    assert "http://plant:9443: refused" in said("text", "link lost at http://plant:9443: refused")


def test_a_traceback_stays_with_its_line(restored) -> None:
    stream = io.StringIO()
    logs.set_up("json", stream=stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("x").exception("failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "ValueError: two" in json.loads(lines[0])["error"]
