"""`edge.toml`: every mistake named, no secret in it, none in clear over a network."""

import subprocess
import sys
from pathlib import Path

import pytest

from kapelle.edge.settings import EdgeConfig, secrets_of
from kapelle.errors import Invalid
from kapelle.runtime.sections import read

DEVICE = '[[sunspec.devices]]\nid = "bat-1"\nhost = "192.168.1.20"\n'


def parsed(text: str) -> EdgeConfig:
    return read(EdgeConfig, text, {}, "edge.toml")[0]


def test_little_is_needed() -> None:
    config = parsed(DEVICE)
    (device,) = config.sunspec.devices
    assert (device.port, device.unit, device.control) == (502, 1, "auto")
    assert config.plant.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[plant]\nhots = "x"\n' + DEVICE, "did you mean host"),
        ('[plant]\nhost = "plant.example"\n' + DEVICE, "in clear"),
        ("[buffer]\nrows_max = 3\n" + DEVICE, "at least 1000"),
        ("[bufer]\n" + DEVICE, "did you mean buffer"),
        (DEVICE + "unit = 300\n", "between 0 and 255"),
        (DEVICE + "poll_s = 0\n", "at least 0.1"),
        (DEVICE + 'control = "705"\n', "one of auto, 704"),
        (DEVICE + 'measure = "meter"\n', "meter import"),
        (DEVICE + 'secret = "hunter2"\n', "secret in plain text"),
        (DEVICE + DEVICE, "twice: bat-1"),
        (DEVICE.replace("bat-1", "bat/1"), "neither"),
        ('[sunspec]\ndevices = "all"\n', "is not a list"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        parsed(text)
    assert "hunter2" not in str(caught.value)


def test_a_secret_comes_from_its_own_file_the_environment_or_the_common_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "own").write_text("of its own\n")
    (tmp_path / "secrets.csv").write_text("id,secret\nbat-1,common\npv-2,also common\n")
    common = f'[plant]\nsecrets = "{tmp_path / "secrets.csv"}"\n'
    own = DEVICE + f'secret = "file:{tmp_path / "own"}"\n'
    variable = {"KAPELLE_EDGE_SECRET_BAT_1": "environment"}
    assert secrets_of(parsed(common + own), variable) == {"bat-1": "of its own"}
    assert secrets_of(parsed(common + DEVICE), variable) == {"bat-1": "environment"}
    assert secrets_of(parsed(common + DEVICE), {}) == {"bat-1": "common"}
    with pytest.raises(Invalid, match="KAPELLE_EDGE_SECRET_BAT_1"):
        secrets_of(parsed(DEVICE), {})


@pytest.mark.parametrize(
    "content", [b"name,password\nbat-1,hunter2\n", b"id,secret\n\xff\xfe", None]
)
def test_a_common_file_that_cannot_be_read_is_named_and_not_quoted(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secrets.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Invalid, match=r"secrets\.csv") as caught:
        secrets_of(parsed(f'[plant]\nsecrets = "{path}"\n' + DEVICE), {})
    assert "hunter2" not in str(caught.value)


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kapelle.cli", "edge"],
        cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "edge.toml" in done.stderr
    assert "--config" in done.stderr
