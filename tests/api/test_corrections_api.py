"""Energy mended over the API: written to the journal, applied by a real recorder."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.record_worlds import WH_A_QUARTER, exported, make_record, serving

from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Kind
from kapelle.model.ids import PLANT
from kapelle.model.plant import Correction

LATELY = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
"""A ledger that has to catch up with months takes its time."""
ASKED: dict[str, object] = {
    "device_id": "dev-0", "register": "export", "from": f"{LATELY}T10:00:00Z",
    "to": f"{LATELY}T11:00:00Z", "method": "set", "value": 800.0, "reason": "it was swapped",
}  # fmt: skip
NOTHING = {"from": "2025-06-01T10:00:00Z", "to": "2025-06-01T11:00:00Z"}
WHEN = {"from": f"{LATELY}T09:45:00Z", "to": f"{LATELY}T11:15:00Z"}
PLAIN = [WH_A_QUARTER * 1_000] * 6


@pytest.fixture(scope="module")
def lately(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lately")
    make_record(directory, LATELY)
    return directory


async def mwh(http: httpx.AsyncClient, revision: str = "latest") -> list[int]:
    path = "/v1/history/energy/devices/dev-0"
    answer = await http.get(path, params=WHEN | {"revision": revision})
    return [row["mwh"] for row in exported(answer)]


def mend(directory: Path, play: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with serving(directory, recorder=True) as http, asyncio.timeout(60):
            await play(http)

    make_record(directory, LATELY)
    asyncio.run(main())


def test_a_correction_is_previewed_made_and_taken_back(tmp_path: Path) -> None:
    async def play(http: Any) -> None:
        path = "/v1/energy/corrections"
        looked = await http.post(path, json=ASKED | {"dry_run": True, "author": "api"})
        assert looked.status_code == 200, looked.text
        assert looked.json()["correction"] is None
        assert await mwh(http) == PLAIN
        made = await http.post(path, json=ASKED)
        assert made.status_code == 201, made.text
        told = made.json()
        assert told["changes"] == looked.json()["changes"]
        assert (told["intervals"], told["before_mwh"], told["after_mwh"]) == (4, 600_000, 800_000)
        assert told["correction"] | {"at": ""} == {
            "correction_no": 1, "device_id": "dev-0", "device_no": 0, "register": "export",
            "from": f"{LATELY}T10:00:00Z", "to": f"{LATELY}T11:00:00Z", "method": "set",
            "value": 800.0, "author": "api", "reason": "it was swapped", "at": "",
            "applied": True, "undoes": None, "undone_by": None,
        }  # fmt: skip
        assert await mwh(http) == [150_000, *[200_000] * 4, 150_000]
        assert await mwh(http, "0") == PLAIN
        back = await http.post(f"{path}/1/undo", json={"reason": "it was not"})
        assert back.status_code == 201, back.text
        assert await mwh(http) == PLAIN
        every = await http.get(
            "/v1/history/energy/devices/dev-0", params=WHEN | {"revision": "all"}
        )
        story = [
            (row["revision"], row["mwh"], row["author"], row["reason"])
            for row in every.json()
            if (row["time"], row["register"]) == (f"{LATELY}T10:00:00Z", "export")
        ]
        assert story == [
            (0, 150_000, "", ""),
            (1, 200_000, "api", "it was swapped"),
            (2, 150_000, "api", "it was not"),
        ]
        listed = (await http.get(path, params={"device": "dev-0"})).json()["corrections"]
        brief = [(c["correction_no"], c["method"], c["undoes"], c["undone_by"]) for c in listed]
        assert brief == [(2, "undo", 1, None), (1, "set", None, 2)]
        assert (await http.get(path, params={"device": "dev-1"})).json()["corrections"] == []
        page = (await http.get(path, params={"limit": 1})).json()
        assert page["next_before"] == 2
        rest = (await http.get(path, params={"before": 2})).json()
        assert [c["correction_no"] for c in rest["corrections"]] == [1]

    mend(tmp_path, play)


def test_nobody_corrects_in_the_name_of_another(lately: Path) -> None:
    async def play(http: Any) -> None:
        before = await mwh(http)
        for path in ("/v1/energy/corrections", "/v1/energy/corrections/1/undo"):
            body = ASKED if path.endswith("corrections") else {"reason": "it was not"}
            refused = await http.post(path, json=body | {"author": "ada"})
            assert refused.status_code == 422, refused.text
            assert refused.json()["type"].endswith(":author-not-you")
            assert refused.json()["errors"][0]["pointer"] == "/author"
        assert await mwh(http) == before

    async def main() -> None:
        async with serving(lately, recorder=True) as http, asyncio.timeout(60):
            await play(http)

    asyncio.run(main())


def test_the_same_key_corrects_once_and_many_at_once_get_numbers_of_their_own(
    tmp_path: Path,
) -> None:
    async def play(http: Any) -> None:
        path, key = "/v1/energy/corrections", {"Idempotency-Key": "k-1"}
        first = await http.post(path, json=ASKED, headers=key)
        again = await http.post(path, json=ASKED, headers=key)
        other = await http.post(path, json=ASKED | {"value": 1.0}, headers=key)
        assert [a.status_code for a in (first, again, other)] == [201, 201, 409]
        assert again.json()["correction"] == first.json()["correction"]
        assert again.json()["changes"] == []
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(
                    http.post(
                        path, json=ASKED | {"method": "scale", "value": 2.0 + n, "reason": f"{n}"}
                    )
                )
                for n in range(5)
            ]
        answers = [task.result() for task in asked]
        assert [answer.status_code for answer in answers] == [201] * 5
        numbers = sorted(answer.json()["correction"]["correction_no"] for answer in answers)
        assert numbers == [2, 3, 4, 5, 6]
        entries = await http.journal.read(PLANT, 0, 100, {Kind.CORRECTION})
        written = [e.body for e in entries if isinstance(e.body, Correction)]
        assert [body.correction_no for body in written] == [1, 2, 3, 4, 5, 6]

    mend(tmp_path, play)


def test_two_processes_at_once_never_share_a_number(tmp_path: Path) -> None:
    """Another writer of the line comes between: the journal refuses, and the next is taken."""

    async def play(http: Any) -> None:
        journal: MemoryJournal = http.journal
        append, came = journal.append, []

        async def raced(topic: str, bodies: Any, **more: Any) -> int:
            if more.get("writer") == "energy" and not came:
                came.append(1)
                (body,) = bodies
                await append(topic, bodies, writer="energy")
                assert body.correction_no == 1
            return await append(topic, bodies, **more)

        journal.append = raced  # type: ignore[method-assign]  # another writer comes between
        made = await http.post("/v1/energy/corrections", json=ASKED | {"value": 900.0})
        # What the other wrote is the same here, so that nothing is left to change.
        assert made.status_code == 422
        assert made.json()["type"].endswith(":correction-empty")
        entries = await journal.read(PLANT, 0, 100, {Kind.CORRECTION})
        assert len(entries) == 1

    mend(tmp_path, play)


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"device_id": "nobody"}, 404, "history-unknown"),
        ({"register": "both"}, 422, "request-invalid"),
        ({"from": f"{LATELY}T10:00:00"}, 422, "request-invalid"),
        ({"from": f"{LATELY}T10:01:00Z"}, 422, "history-question"),
        ({"from": f"{LATELY}T12:00:00Z"}, 422, "history-question"),
        ({"from": "2020-03-30T12:00:00Z"}, 422, "history-question"),
        ({"method": "guess"}, 422, "request-invalid"),
        ({"value": None}, 422, "correction-value"),
        ({"method": "interpolate"}, 422, "correction-value"),
        ({"value": -1.0}, 422, "request-invalid"),
        ({"value": float("1e300")}, 422, "history-question"),
        ({"value": float("1e300"), "method": "scale"}, 422, "history-question"),
        ({"from": "0001-01-01T00:00:00Z"}, 422, "history-question"),
        ({"to": "9999-12-31T23:59:59Z"}, 422, "correction-early"),
        ({"reason": ""}, 422, "request-invalid"),
        ({"reason": "  "}, 422, "history-question"),
        ({"method": "scale", "value": 1.0, **NOTHING}, 422, "correction-empty"),
        ({"valeu": 1.0}, 422, "request-invalid"),
        ({"to": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, 422, "correction-early"),
    ],
)
def test_a_correction_that_cannot_be_meant(
    lately: Path, changed: dict[str, object], status: int, code: str
) -> None:
    async def once() -> None:
        async with serving(lately) as http:
            answer = await http.post("/v1/energy/corrections", json=ASKED | changed)
            found = (answer.status_code, answer.json()["type"].rpartition(":")[2])
            assert found == (status, code), answer.text
            assert await http.journal.last(PLANT) == 0
            undo = await http.post("/v1/energy/corrections/9/undo", json={"reason": "no"})
            assert undo.status_code == 404

    asyncio.run(once())


@pytest.mark.parametrize("is_near", [True, False])
def test_an_answer_comes_once_the_ledger_has_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_near: bool
) -> None:
    """In the same process nobody looks for it in vain; in another one is looked now and then."""
    monkeypatch.setattr("kapelle.api.energy_desk._WAIT_S", 50.0)
    monkeypatch.setattr("kapelle.api.energy_desk._LOOK_S", 50.0 if is_near else 0.05)

    async def once() -> None:
        async with (
            serving(tmp_path, recorder=True, is_near=is_near) as http,
            asyncio.timeout(40),
        ):
            made = await http.post("/v1/energy/corrections", json=ASKED)
            assert made.status_code == 201, made.text
            assert made.json()["correction"]["applied"] is True

    make_record(tmp_path, LATELY)
    asyncio.run(once())


def test_what_is_not_applied_yet_says_so(lately: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No recorder runs: the correction is durable, and nobody else can be judged before it."""
    monkeypatch.setattr("kapelle.api.energy_desk._WAIT_S", 0.1)

    async def once() -> None:
        async with serving(lately) as http:
            made = await http.post("/v1/energy/corrections", json=ASKED)
            assert made.status_code == 202
            assert made.json()["correction"]["applied"] is False
            second = await http.post("/v1/energy/corrections", json=ASKED)
            assert second.status_code == 503
            assert second.headers["Retry-After"] == "5"
            (told,) = (await http.get("/v1/energy/corrections")).json()["corrections"]
            assert (told["correction_no"], told["applied"]) == (1, False)

    asyncio.run(once())
