"""Files of TLS that cannot be used are named before the plant opens anything."""

import asyncio
from pathlib import Path

import pytest
from tests.adapters.ieee2030.certificates import authority, signed

from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.vtn import Vtn
from kapelle.app.certificates import check_certificates
from kapelle.app.plant import open_plant
from kapelle.config import parse
from kapelle.errors import Invalid, LinkLost
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

LISTENERS = ("mqtt", "ocpp", "openadr", "ieee2030", "api")


def section(name: str, certificate: Path, key: Path, more: str = "") -> str:
    return f'[{name}]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n{more}\n'


def refused(text: str) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        check_certificates(parse(text, {}).config)
    assert all(problem.remedy for problem in caught.value.problems)
    return [(problem.where, problem.what) for problem in caught.value.problems]


def test_pairs_that_fit_are_served() -> None:
    pair = signed("server")
    trusted = f'tls_client_authority = "{authority().certificate}"'
    text = "".join(
        section(name, *pair, more=trusted if name in ("ocpp", "ieee2030") else "")
        for name in LISTENERS
    )
    check_certificates(parse(text, {}).config)
    check_certificates(parse("", {}).config)


def test_what_is_missing_or_does_not_fit_is_named_for_everybody_at_once(tmp_path: Path) -> None:
    pair, garbage, nowhere = signed("server"), tmp_path / "bad.pem", tmp_path / "nowhere.pem"
    garbage.write_text("no certificate")
    text = (
        section("mqtt", nowhere, pair.key)
        + section("ocpp", pair.certificate, nowhere)
        + section("openadr", pair.certificate, signed("device").key)
        + section("ieee2030", *pair, more=f'tls_client_authority = "{garbage}"')
        + section("api", garbage, pair.key)
    )
    found = refused(text)
    assert [where for where, _ in found] == [
        "[mqtt] tls_certificate",
        "[ocpp] tls_key",
        "[openadr] tls_certificate",
        "[ieee2030] tls_client_authority",
        "[api] tls_certificate",
    ]
    files = (nowhere, nowhere, pair.certificate, garbage, garbage)
    for (_, what), file in zip(found, files, strict=True):
        assert what.startswith(str(file))
        assert "_ssl.c" not in what
    assert "mismatch" in found[2][1]


def test_an_authority_of_a_broker_is_looked_for(tmp_path: Path) -> None:
    text = f"""
    [broker]
    tls = true
    tls_authority = "{tmp_path}/ca.pem"
    """
    assert refused(text) == [
        ("[broker] tls_authority", f"{tmp_path}/ca.pem cannot be read: No such file or directory")
    ]


def test_a_plant_does_not_begin_with_them(tmp_path: Path) -> None:
    text = section("openadr", tmp_path / "a.pem", tmp_path / "a.key")
    text += f'[plant]\ndata_dir = "{tmp_path}/data"\n'

    async def begin() -> None:
        async with open_plant(parse(text, {}).config):
            pass

    with pytest.raises(Invalid, match="TLS"):
        asyncio.run(begin())
    assert not (tmp_path / "data").exists()


def test_a_certificate_that_goes_while_the_plant_runs_is_a_lost_link(tmp_path: Path) -> None:
    settings = OpenAdrSettings(
        port=0, tls_certificate=f"{tmp_path}/a.pem", tls_key=f"{tmp_path}/a.key"
    )
    vtn = Vtn(
        settings=settings, directory=Directory(1), clock=SystemClock(), file=tmp_path / "notes.db"
    )

    async def begin() -> None:
        async with vtn.open():
            pass

    with pytest.raises(LinkLost, match="and its key cannot be used"):
        asyncio.run(begin())
