"""`kapelle order why`: a sentence for each thing that bound an order."""

from contextlib import contextmanager

import pytest
from tests.test_order_watch import FakeClient

from kapelle import cli
from kapelle.api.shapes import NoticeTold
from kapelle.api.times import to_datetime
from kapelle.api.why_shapes import OrderWhyTold
from kapelle.cli import why
from kapelle.model.ids import NS_PER_S


class Asked(FakeClient):
    """A plant with an order that is short."""

    def why_order(self, number: int) -> OrderWhyTold:
        order = self.order(number).model_copy(update={"why": "feeder 12 is too warm"})
        text = f"order {number} misses 1.2 kW of 9.0 kW: vendor acme is lost"
        notice = NoticeTold(
            at=to_datetime(1_700_000_000 * NS_PER_S),
            code="shortfall",
            text=text,
            order_no=number,
            power_w=1_200.0,
        )
        return OrderWhyTold(
            order=order,
            bound=["9.0 kW of 10.0 kW are promised: headroom", "40 devices follow order 3"],
            delivered_w=7_800.0,
            reserve_w=0.0,
            extent=None,
            excluded={},
            claimed={3: 40},
            caps=[],
            shortfall=notice,
            life=[notice],
        )


@pytest.mark.parametrize("json", [False, True])
def test_what_bound_an_order_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json: bool
) -> None:
    @contextmanager
    def plant(*_: object):
        yield Asked(None, "completed")

    monkeypatch.setattr(why, "plant", plant)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["kapelle", "order", "why", "7", *(["--json"] * json)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    said = ("feeder 12 is too warm", "40 devices follow order 3", "misses 1.2 kW of 9.0 kW")
    assert all(sentence in told for sentence in said)
    if not json:
        assert "delivers 7.8 kW now" in told
        assert "22:13:20Z" in told
