"""The token is random, made once, and nobody else's to read."""

import stat
from pathlib import Path

import pytest

from kapelle.api.service import check_exposure
from kapelle.api.settings import ApiSettings
from kapelle.api.token import bearer, is_token, load_token
from kapelle.errors import Invalid


def test_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    token = load_token(path)
    assert len(token) >= 43, "256 bit"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(path) == token
    assert load_token(tmp_path / "other") != token


def test_a_token_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    load_token(path)
    path.chmod(0o644)
    with pytest.raises(Invalid, match="chmod 600"):
        load_token(path)


def test_a_token_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    path.touch(0o600)
    path.chmod(0o600)
    with pytest.raises(Invalid, match="remove it"):
        load_token(path)


def test_headers() -> None:
    assert bearer("Bearer abc") == "abc"
    assert bearer("bearer abc") == "abc"
    assert bearer("Basic abc") is None
    assert bearer("Bearer ") is None
    assert bearer("") is None
    assert is_token("abc", "abc")
    assert not is_token("", "abc")
    assert not is_token("äbc", "abc")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_may_be_plain(host: str) -> None:
    check_exposure(ApiSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "plant.example"])
def test_plain_http_is_not_shown_to_a_network(host: str) -> None:
    with pytest.raises(Invalid, match="tls_certificate"):
        check_exposure(ApiSettings(host=host))
    check_exposure(ApiSettings(host=host, insecure=True))
    check_exposure(ApiSettings(host=host, tls_certificate="c.pem", tls_key="k.pem"))


def test_half_of_tls_is_none() -> None:
    with pytest.raises(Invalid, match="go together"):
        check_exposure(ApiSettings(tls_certificate="c.pem"))
