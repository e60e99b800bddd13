"""Every bad row is named with its remedy, and nothing comes in by halves."""

import json
import math
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.errors import Invalid, NotFound, Problem
from kapelle.model.enums import DeviceKind
from kapelle.registry.device import Device, flaws
from kapelle.registry.importing import Format, import_devices, read_devices
from kapelle.registry.rows import to_device, to_enrolled
from kapelle.registry.store import Registry

HEAD = "id,kind,nameplate_up_w,nameplate_down_w,energy_wh"
GOOD = "b1,battery,5000,4000,10000"


def csv_problems(*lines: str) -> list[Problem]:
    with pytest.raises(Invalid) as refused:
        read_devices("\n".join(lines).encode(), "csv")
    return list(refused.value.problems)


def json_problems(content: object) -> list[Problem]:
    with pytest.raises(Invalid) as refused:
        read_devices(json.dumps(content).encode(), "json")
    return list(refused.value.problems)


@pytest.mark.parametrize(
    ("row", "where", "what", "remedy"),
    [
        (",battery,5000,4000,9000", "id", "empty", "unique name"),
        ("a/b,battery,5000,4000,9000", "id", "contains '/'", "MQTT"),
        ("a b+,battery,5000,4000,9000", "id", "contains ' ' '+'", "A-Z"),
        ("..,battery,5000,4000,9000", "id", "path step", "A-Z"),
        ("x" * 65 + ",battery,5000,4000,9000", "id", "65 characters", "1 to 64"),
        ("a,,5000,4000,9000", "kind", "empty", "battery, pv"),
        ("a,batery,5000,4000,9000", "kind", "no kind 'batery'", "did you mean `battery`?"),
        ("a,Wallbox,0,11000,", "kind", "no kind 'Wallbox'", "did you mean `ev`?"),
        ("a,toaster,0,11000,", "kind", "no kind 'toaster'", "write one of battery"),
        ("a,battery,5,4000,9000", "nameplate_up_w", "5 W looks like kW", "write 5000"),
        ("a,battery,3.68,4000,9000", "nameplate_up_w", "looks like kW", "write 3680"),
        ("a,battery,5kW,4000,9000", "nameplate_up_w", "'5kW' has a unit", "write 5000 without"),
        ("a,battery,5000,4 kVA,9000", "nameplate_down_w", "has a unit", "write 4000 without"),
        ("a,battery,5000,4000,13.5", "energy_wh", "13.5 Wh looks like kWh", "write 13500"),
        ("a,battery,5000,4000,10 kWh", "energy_wh", "has a unit", "write 10000"),
        ("a,battery,5000,4000,10 kW", "energy_wh", "does not belong", "in wh"),
        ("a,battery,5000,4000,", "energy_wh", "missing for a battery", "usable energy"),
        ('a,battery,"1,5",4000,9000', "nameplate_up_w", "comma", "write 1.5 with a point"),
        ('a,battery,"1,500",4000,9000', "nameplate_up_w", "comma", "write 1500 or 1.500"),
        ('a,battery,"1,500.5",4000,9000', "nameplate_up_w", "comma", "write 1500.5"),
        ("a,battery,-5000,4000,9000", "nameplate_up_w", "negative", "write 5000: both"),
        ("a,battery,NaN,4000,9000", "nameplate_up_w", "'NaN' is not a number", "digits"),
        ("a,battery,inf,4000,9000", "nameplate_up_w", "'inf' is not a number", "digits"),
        ("a,battery,1e999,4000,9000", "nameplate_up_w", "not a finite number", "empty"),
        ("a,battery,1_000,4000,9000", "nameplate_up_w", "not a number", "digits"),
        ("a,battery,five,4000,9000", "nameplate_up_w", "'five' is not a number", "digits"),
        ("a,pv,,,", "nameplate_up_w", "no power in either direction", "in W"),
        ("a,load,,,", "nameplate_down_w", "no power in either direction", "in W"),
        ("a,battery,5000,4000,0", "energy_wh", "is 0", "above 0"),
    ],
)
def test_a_bad_cell_is_named(row: str, where: str, what: str, remedy: str) -> None:
    problems = csv_problems(HEAD, GOOD, row)
    assert [problem.where for problem in problems] == [f"line 3, {where}"]
    assert what in problems[0].what
    assert remedy in problems[0].remedy


@pytest.mark.parametrize(
    ("column", "cell", "remedy"),
    [
        ("reserve_soc", "20", "write 0.2"),
        ("reserve_soc", "20%", "write 0.2 as a fraction"),
        ("reserve_soc", "200", "fraction"),
        ("reserve_soc", "-0.1", "fraction"),
        ("ramp_w_per_s", "0", "above 0"),
        ("ramp_w_per_s", "6 kW/min", "write 100 "),
        ("revert_s", "5 min", "write 300"),
        ("report_every_s", "-1", "above 0"),
        ("meter_resolution_wh", "0.1 kWh", "write 100 "),
        ("meter_rollover_wh", "0", "above 0"),
        ("tier", "16", "0 to 15"),
        ("tier", "1.5", "0, 1, 2"),
        ("priority", "0", "0.01 to 100"),
        ("steps", "1000", "up to 255"),
        ("min_on_s", "15 min", "write 900"),
        ("min_off_s", "1e6", "up to 65535"),
        ("must_run", "maybe", "true or false"),
        ("opted_out_until", "tomorrow", "2026-05-01T14:30:00Z"),
        ("opted_out_until", "2026-05-01T14:30:00", "2026-05-01T14:30:00Z"),
        ("vendor", "a\tb", "remove them"),
        ("vendor", "v" * 129, "at most 128"),
    ],
)
def test_a_bad_optional_cell_is_named(column: str, cell: str, remedy: str) -> None:
    problems = csv_problems(f"{HEAD},{column}", f'{GOOD},"{cell}"')
    assert [problem.where for problem in problems] == [f"line 2, {column}"]
    assert remedy in problems[0].remedy


def test_every_bad_row_is_reported() -> None:
    rows = [f"b {i},battery,5kW,4000,9000" if i % 2 else f"b{i},pv,4000,," for i in range(1000)]
    problems = csv_problems(HEAD, *rows)
    assert len(problems) == 1000
    assert {problem.where.partition(",")[0] for problem in problems} == {
        f"line {i + 2}" for i in range(1000) if i % 2
    }


def test_twice_in_the_file_names_both_lines() -> None:
    problems = csv_problems(HEAD, GOOD, "b2,pv,4000,,", "b1,pv,4kW,,", "b2,pv,4000,,")
    assert [(problem.where, problem.what) for problem in problems] == [
        ("line 4, nameplate_up_w", "'4kW' has a unit"),
        ("line 4, id", "'b1' stands in line 2 already"),
        ("line 5, id", "'b2' stands in line 3 already"),
    ]


@pytest.mark.parametrize(
    ("head", "what", "remedy"),
    [
        ("id,kind,nameplate_kw", "no column `nameplate_kw`", "`nameplate_up_w` (in W)?"),
        ("id,kind,capacity_kwh", "no column `capacity_kwh`", "`energy_wh` (in Wh)?"),
        ("id,kind,vender", "no column `vender`", "did you mean `vendor`?"),
        ("id,kind,Manufacturer", "no column `manufacturer`", "did you mean `vendor`?"),
        ("id,kind,colour", "no column `colour`", "remove it; columns are id, kind"),
        ("id,kind,site,site", "column `site` stands twice", "remove one"),
        ("id,site", "column `kind` is missing", "add it"),
        ("id,kind,", "no column ``", "remove it"),
    ],
)
def test_bad_columns_are_named(head: str, what: str, remedy: str) -> None:
    problems = csv_problems(head)
    assert [problem.where for problem in problems] == ["line 1"]
    assert what in problems[0].what
    assert remedy in problems[0].remedy


def test_a_bad_column_does_not_hide_bad_rows() -> None:
    problems = csv_problems("id,kind,nameplate_up_w,colour", "b1,pv,5kW,red")
    assert [problem.where for problem in problems] == ["line 1", "line 2, nameplate_up_w"]


def test_unquoted_decimal_commas_are_explained() -> None:
    problems = csv_problems(HEAD, "b1,battery,1,5,4000,9000")
    assert problems[0].where == "line 2"
    assert "6 cells for 5 columns" in problems[0].what
    assert "1.5, not 1,5" in problems[0].remedy


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf\n\n  \n", "the file is empty"),
        (f"{HEAD}\n".encode(), "there are no devices"),
        (f"{HEAD}\n{GOOD}".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04......", "spreadsheet"),
        (f"{HEAD},vendor\n{GOOD},a\n{GOOD},Müller".encode("latin-1"), "line 3: byte 0xfc"),
        (f'{HEAD}\n"b1,battery'.encode(), "quotation"),
        (f"{HEAD}\n{GOOD},{'x' * 200_000}".encode(), "is not CSV"),
    ],
)
def test_a_file_that_is_no_csv_is_explained(content: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read_devices(content, "csv")


@pytest.mark.parametrize(
    "content",
    [
        "{head}\n{row}\n",
        "\ufeff{head}\r\n{row}\r\n",
        "\n\n{head}\n\n , ,,,\n{row}\n\n",
        '"ID","Kind","nameplate_up_w","nameplate_down_w","energy_wh"\n{row}',
        "{head}\n b1 , Battery , 5000 , 4000.0 , 1e4 ",
        "{head}\n{row},,\n",
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_every_origin_reads_the_same(content: str, delimiter: str) -> None:
    text = content.format(head=HEAD, row=GOOD).replace(",", delimiter)
    (device,) = read_devices(text.encode(), "csv").values()
    assert (device.id, device.kind, device.energy_wh) == ("b1", DeviceKind.BATTERY, 10000)


def test_lines_are_counted_across_quoted_line_breaks() -> None:
    problems = csv_problems(
        f"{HEAD},vendor", f'{GOOD},"two\nlines"', "b2,pv,4000,,,", "b3,pv,4kW,,,"
    )
    assert [problem.where for problem in problems] == [
        "line 2, vendor",
        "line 5, nameplate_up_w",
    ]


def test_defaults() -> None:
    rows = [
        "id,kind,nameplate_up_w,nameplate_down_w,energy_wh,adapter,revert_s",
        "b,battery,5000,,10000,,",
        "p,pv,4000,,,http,",
        "e,ev,,11000,60000,http,120",
        "n,load,,2000,,mqtt,none",
    ]
    b, p, e, n = read_devices("\n".join(rows).encode(), "csv").values()
    assert (b.nameplate_up_w, b.nameplate_down_w) == (5000, 5000)
    assert (b.adapter, b.revert_s, b.reserve_soc) == ("mqtt", 300, 0)
    assert (p.nameplate_down_w, p.adapter) == (0, "http")
    assert math.isnan(p.revert_s)
    assert math.isnan(p.energy_wh)
    assert (e.nameplate_up_w, e.revert_s) == (0, 120)
    assert math.isnan(n.revert_s)


def test_json_reads_like_csv() -> None:
    device = {"id": "b1", "kind": "battery", "nameplate_up_w": 5000, "energy_wh": 1e4}
    other = {"id": "e1", "kind": "EV", "nameplate_down_w": "11000", "site": None}
    expected = list(
        read_devices(
            b"id,kind,nameplate_up_w,nameplate_down_w,energy_wh\nb1,battery,5000,,10000\n"
            b"e1,ev,,11000,",
            "csv",
        ).values()
    )
    for content in ([device, other], {"devices": [device, other]}):
        found = read_devices(json.dumps(content).encode(), "json")
        assert repr(list(found.values())) == repr(expected)
        assert list(found) == ["device 1", "device 2"]
    assert len(read_devices(json.dumps(device).encode(), "json")) == 1


@pytest.mark.parametrize(
    ("item", "where", "what"),
    [
        ({"id": 7, "kind": "pv", "nameplate_up_w": 4000}, "device 1, id", "7 is not text"),
        ({"id": "a", "kind": "pv", "nameplate_up_w": True}, "device 1, nameplate_up_w", "True"),
        ({"id": "a", "kind": "pv", "nameplate_up_w": [1]}, "device 1, nameplate_up_w", "number"),
        ({"id": "a", "kind": "pv", "nameplate_up_w": math.nan}, "device 1, nameplate_up_w", "nan"),
        ({"id": "a", "kind": "pv", "nameplate_up_w": 10**400}, "device 1, nameplate_up_w", "not a"),
        ({"id": "a", "kind": "pv", "nameplate_up_w": "4 kW"}, "device 1, nameplate_up_w", "unit"),
        ({"id": "a", "kind": 3, "nameplate_up_w": 4000}, "device 1, kind", "no kind '3'"),
        ({"id": "a", "kind": {}, "nameplate_up_w": 4000}, "device 1, kind", "empty"),
        ({"id": "a", "kind": "pv", "power": 4000}, "device 1", "no column `power`"),
        ({"id": "a"}, "device 1", "`kind` is missing"),
        ("b1", "device 1", "not an object"),
    ],
)
def test_a_bad_json_device_is_named(item: object, where: str, what: str) -> None:
    problems = json_problems([item])
    assert problems[0].where == where
    assert what in problems[0].what


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"id": "a",}]', "line 1, column 13"),
        (b"", "line 1, column 1"),
        (b"7", "no array of devices"),
        (b'{"devices": {}}', "no array of devices"),
        (b"[]", "there are no devices"),
        (b"[" * 100_000, "nested too deeply"),
        (b'[{"id": "a", "id": "b", "kind": "pv"}]', "`id` stands twice"),
    ],
)
def test_a_file_that_is_no_json_is_explained(content: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read_devices(content, "json")


@given(st.binary(max_size=60), st.sampled_from(["csv", "json"]))
def test_whatever_is_in_the_file_it_is_read_or_refused(content: bytes, format: Format) -> None:
    for around in (content, HEAD.encode() + b"\n" + content, b'[{"id":"a","kind":' + content):
        with suppress(Invalid):
            found = read_devices(around, format)
            assert not any(flaws(device) for device in found.values())


def test_an_import_is_whole_or_nothing(registry: Registry) -> None:
    with pytest.raises(Invalid):
        import_devices(registry, f"{HEAD}\n{GOOD}\nb2,pv,4kW,,".encode(), "csv", 1)
    assert registry.count() == 0
    assert registry.due().rows == 0
    done = import_devices(registry, f"{HEAD}\n{GOOD}\nb2,pv,4000,,".encode(), "csv", 1)
    assert (done.count, done.created, done.updated) == (2, 2, 0)
    assert sorted(done.credentials) == ["b1", "b2"]
    again = import_devices(registry, f"{HEAD}\n{GOOD}\nb2,pv,4000,,".encode(), "csv", 2)
    assert (again.count, again.created, again.updated, again.credentials) == (2, 0, 0, {})
    changed = import_devices(registry, f"{HEAD}\n{GOOD}\nb2,pv,4100,,".encode(), "csv", 3)
    assert (changed.created, changed.updated, changed.credentials) == (0, 1, {})


def test_what_the_registry_refuses_is_named_by_line(registry: Registry) -> None:
    head = f"{HEAD},site\n"
    import_devices(registry, f"{head}{GOOD},one\nb2,pv,4000,,,two".encode(), "csv", 1)
    with pytest.raises(Invalid) as refused:
        import_devices(registry, f"{head}b3,pv,4000,,,x\nb2,pv,4000,,,one".encode(), "csv", 2)
    assert [problem.where for problem in refused.value.problems] == ["line 3, site"]
    assert registry.count() == 2


def test_a_file_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file"):
        import_devices(registry, tmp_path / "none.csv", "csv", 1)
    path = tmp_path / "fleet.csv"
    path.write_text(f"{HEAD}\n{GOOD}\n")
    assert import_devices(registry, path, "csv", 1).created == 1
    assert isinstance(to_device(registry.device("b1")), Device)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_devices_take_less_than_thirty_seconds(tmp_path: Path) -> None:
    kinds = ["battery", "pv", "ev", "heat_pump"]
    rows = (
        f"dev-{i:06},home-{i // 2},{kinds[i % 4]},vendor-{i % 9},m{i % 30},zone-{i % 5},"
        f"f{i % 800},isp-{i % 7},{3000 + i % 900},{4000 + i % 700},{8000 + i % 4000},0.2"
        for i in range(100_000)
    )
    head = (
        "id,site,kind,vendor,model,zone,feeder,provider,"
        "nameplate_up_w,nameplate_down_w,energy_wh,reserve_soc\n"
    )
    path = tmp_path / "fleet.csv"
    path.write_text(head + "\n".join(rows))
    with Registry(f"sqlite:///{tmp_path / 'registry.db'}", 8) as registry:
        registry.put_resource("north", "zone:zone-1,zone-2 kind:battery,ev", 1)
        # Of this process: what its neighbours take does not count.
        began = time.process_time()
        done = import_devices(registry, path, "csv", 1)
        took_s = time.process_time() - began
        assert done.created == 100_000
        assert registry.due().rows
        assert took_s < 30
        began = time.process_time()
        again = import_devices(registry, path, "csv", 1)
        assert (again.created, again.updated) == (0, 0)
        print(f"import {took_s:.1f} s, the same again {time.process_time() - began:.1f} s")


def test_what_is_particular_in_an_allocation_is_read_stored_and_told(registry: Registry) -> None:
    head = f"{HEAD},tier,priority,steps,min_on_s,min_off_s,must_run,opted_out_until"
    row = f"{GOOD},3,2.5,4,600,300,yes,2026-05-01T16:00:00+02:00"
    import_devices(registry, f"{head}\n{row}\nb2,pv,4000,,,,,,,,,".encode(), "csv", 1)
    device, plain = to_device(registry.device("b1")), to_device(registry.device("b2"))
    assert (device.tier, device.priority, device.steps) == (3, 2.5, 4)
    assert (device.min_on_s, device.min_off_s, device.must_run) == (600.0, 300.0, True)
    assert device.opted_out_until_ns == 1_777_644_000 * 1_000_000_000
    assert plain == Device(
        "b2", DeviceKind.PV, "b2", nameplate_up_w=4000.0, revert_s=300.0, opted_out_until_ns=None
    )
    block = to_enrolled([registry.device("b1"), registry.device("b2")])
    assert block.tier.tolist() == [3, 0]
    assert block.steps.tolist() == [4, 0]
    assert block.must_run.tolist() == [1, 0]
    assert block.opted_out_until_ns.tolist() == [device.opted_out_until_ns, 0]
    assert block.priority[0] == 2.5
    assert math.isnan(block.priority[1])
    assert math.isnan(block.min_on_s[1])


def test_an_owners_word_outlasts_a_file_that_does_not_mention_it(registry: Registry) -> None:
    import_devices(registry, f"{HEAD}\n{GOOD}".encode(), "csv", 1)
    assert registry.opt_out(["b1"], 5_000, 2) == 1
    assert registry.opt_out(["b1"], 5_000, 3) == 0
    import_devices(registry, f"{HEAD}\nb1,battery,5000,4000,11000".encode(), "csv", 4)
    assert registry.device("b1").energy_wh == 11_000.0
    assert registry.device("b1").opted_out_until_ns == 5_000
    done = import_devices(registry, f"{HEAD},opted_out_until\n{GOOD},none".encode(), "csv", 5)
    assert done.updated == 1
    assert registry.device("b1").opted_out_until_ns is None
    registry.opt_out(["b1"], 5_000, 6)
    # A moment that is past takes it back.
    assert registry.opt_out(["b1"], 6, 7) == 1
    assert registry.device("b1").opted_out_until_ns is None
    with pytest.raises(NotFound):
        registry.opt_out(["b1", "nobody"], 9_000, 8)
    assert registry.device("b1").opted_out_until_ns is None
