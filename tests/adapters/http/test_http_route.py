"""The route over a real socket: 2xx means durable, everything else says why and what to do."""

import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from kapelle.adapters.http.settings import HttpSettings
from kapelle.errors import JournalFull
from kapelle.model.blocks import Quarantined, Readings

pytestmark = pytest.mark.integration

JSON = {"Content-Type": "application/json"}
ROW = {"device": "d1", "power_w": 10.0}


@pytest.fixture(scope="module")
def plant(run_telemetry: Any) -> Iterator[Any]:
    with run_telemetry() as live:
        yield live


def post(plant: Any, content: object, **headers: str) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    return plant.http.post("/v1/telemetry", content=body, headers=JSON | names)


def test_answer_after_durable_lists_the_bad_rows(plant: Any) -> None:
    before = sum(len(block) for block in plant.stored(Readings))
    rows = [
        ROW,
        {"device": "d2", "power_w": 5e6},
        {"device": "nobody", "power_w": 1},
        {"device": "d3", "power_w": None},
        {"device": "d4", "power_w": -20, "soc": 0.5},
    ]
    answer = post(plant, rows)
    assert answer.status_code == 200
    told = answer.json()
    assert told["accepted"] == 2
    assert told["quarantined_total"] == 3
    assert [(q["row"], q["device"], q["code"]) for q in told["quarantined"]] == [
        (1, "d2", "power-unit"),
        (2, "nobody", "device-unknown"),
        (3, "d3", "value-unreadable"),
    ]
    assert sum(len(block) for block in plant.stored(Readings)) == before + 2
    raw = [r for block in plant.stored(Quarantined) for r in block.raw]
    assert json.dumps(rows[1]).encode() in raw
    assert json.dumps(rows[3]).encode() in raw


def test_ndjson_and_arrow_are_the_same_readings(plant: Any) -> None:
    lines = b'{"device":"d1","power_w":1}\n{"device":"d2","power_w":2}\n'
    answer = post(plant, lines, content_type="application/x-ndjson")
    assert answer.json() == {"accepted": 2, "quarantined": [], "quarantined_total": 0}
    table = pa.table({"device": ["d1", "d2"], "power_w": [1.0, 2.0]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answer = post(plant, sink.getvalue(), content_type="application/vnd.apache.arrow.stream")
    assert answer.json()["accepted"] == 2


def test_no_usable_row_is_a_problem_with_pointers_and_is_kept(plant: Any) -> None:
    answer = post(plant, [{"device": "d1", "power_w": "1,5"}, {"device": "d1", "soc": 55}])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].endswith(":no-row-usable")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/0/power_w", "/1"]
    assert "percent" in problem["errors"][1]["detail"]
    raw = [r for block in plant.stored(Quarantined) for r in block.raw]
    assert b'{"device": "d1", "power_w": "1,5"}' in raw


def test_nothing_sent_is_nothing_taken(plant: Any) -> None:
    assert post(plant, []).json()["accepted"] == 0


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 422, "body-malformed"),
        (b"[" * 100_000, {}, 422, "body-depth"),
        ([ROW], {"content_type": "text/csv"}, 415, "media-type-unknown"),
        ([ROW], {"content_type": "application/json; charset=latin-1"}, 415, "media-type-unknown"),
        ([ROW], {"content_encoding": "br"}, 415, "encoding-unknown"),
        ([ROW], {"content_encoding": "gzip"}, 422, "encoding-malformed"),
        (
            gzip.compress(b"[]", mtime=0)[:-4],
            {"content_encoding": "gzip"},
            422,
            "encoding-malformed",
        ),
        (b" " * (16 * 1024 * 1024 + 1), {}, 413, "body-too-large"),
        (
            gzip.compress(b" " * 60_000_000, mtime=0),
            {"content_encoding": "gzip"},
            413,
            "body-too-large",
        ),
        (b"[" + b"{}," * 100_001 + b"{}]", {}, 413, "too-many-rows"),
        ([ROW], {"authorization": "Bearer wrong"}, 401, "credentials-wrong"),
        ([ROW], {"authorization": ""}, 401, "credentials-wrong"),
        ([ROW], {"authorization": "Basic ZDc6d3Jvbmc="}, 401, "credentials-wrong"),
        ([ROW], {"authorization": "Basic %%%"}, 401, "credentials-wrong"),
    ],
)
def test_problems(plant: Any, content: Any, headers: Any, status: int, code: str) -> None:
    answer = post(plant, content, **headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(":" + code)
    # The next request is answered as if nothing had been.
    assert post(plant, [ROW]).status_code == 200


def test_gzip(plant: Any) -> None:
    body = gzip.compress(json.dumps([ROW] * 100).encode())
    assert post(plant, body, content_encoding="gzip").json()["accepted"] == 100


def test_a_device_speaks_for_itself_alone(plant: Any) -> None:
    basic = "Basic ZDc6czc="  # d7:s7
    rows = [{"power_w": 1}, {"device": "d7", "power_w": 2}, {"device": "d8", "power_w": 3}]
    told = post(plant, rows, authorization=basic).json()
    assert told["accepted"] == 2
    assert [(q["row"], q["code"]) for q in told["quarantined"]] == [(2, "device-foreign")]


def test_get_is_told_to_post(plant: Any) -> None:
    answer = plant.http.get("/v1/telemetry")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_full_journal_is_507_and_passes_when_space_returns(plant: Any) -> None:
    plant.journal.refusing = JournalFull("64 MiB left")
    try:
        answer = post(plant, [ROW])
    finally:
        plant.journal.refusing = None
    assert answer.status_code == 507
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"].endswith(":journal-full")
    assert post(plant, [ROW]).status_code == 200


def test_what_cannot_be_stored_in_time_is_503_and_never_2xx(run_telemetry: Any) -> None:
    with run_telemetry(HttpSettings(durable_s=0.2, rows_waiting_max=1), serve=False) as live:
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(post(live, [ROW]))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        codes = {answer.json()["type"].rpartition(":")[2] for answer in answers}
        assert "journal-slow" in codes


def test_a_slow_body_is_ended(run_telemetry: Any) -> None:
    with run_telemetry(HttpSettings(body_s=0.3)) as live:
        with socket.create_connection(("127.0.0.1", live.http.base_url.port), 5) as slow:
            slow.sendall(
                b"POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                b"Content-Type: application/json\r\n"
                b"Authorization: Bearer test-token-of-32-characters-here\r\n\r\n["
            )
            started = time.monotonic()
            answer = slow.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 3
        assert post(live, [ROW]).status_code == 200


def test_a_gzip_bomb_costs_little(plant: Any) -> None:
    bomb = gzip.compress(b" " * 50_000_000, 9)
    started = time.process_time()
    assert post(plant, bomb, content_encoding="gzip").status_code == 413
    assert (time.process_time() - started) / (len(bomb) / 1024) < 0.05
