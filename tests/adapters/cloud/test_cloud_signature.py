"""A delivery is the vendor's, or it is refused."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.cloud.settings import CloudEvent, CloudWebhook
from kapelle.adapters.cloud.signature import Genuine, Remembered, examine
from kapelle.model.ids import NS_PER_S

SECRET = "a secret of some length"
EVENTS = (CloudEvent("e", "item", "s"),)
NOW_NS = 1_777_593_600 * NS_PER_S
ENODE = CloudWebhook(
    secret="example-secret-but-longer",
    events=EVENTS,
    algorithm="sha1",
    signature_header="X-Enode-Signature",
    signature_prefix="sha1=",
)
STAMPED = CloudWebhook(
    secret=SECRET, events=EVENTS, encoding="base64", timestamp_header="X-Timestamp"
)


def forgery(settings: CloudWebhook, headers: dict[str, str], body: bytes, now_ns: int) -> str:
    """Return what is wrong with a delivery, empty where it is the vendor's."""
    found = examine(settings, headers, body, now_ns)
    return "" if isinstance(found, Genuine) else found


def test_the_example_of_the_vendor_s_own_page() -> None:
    """developers.enode.com/docs/webhooks, "Verifying a payload signature"."""
    page = CloudWebhook(
        secret="example-secret",
        events=(),
        algorithm="sha1",
        signature_header="x-enode-signature",
        signature_prefix="sha1=",
    )
    headers = {"x-enode-signature": "sha1=e417e6fc2e7f8a78c93a35a7b344d36ce179fc8d"}
    assert forgery(page, headers, b'{"payload":"example"}', NOW_NS) == ""
    assert forgery(page, headers, b'{"payload":"exemple"}', NOW_NS) == "signature wrong"


@given(st.binary(max_size=60), st.text(max_size=60) | st.just("sha1="))
def test_only_the_key_makes_a_signature(body: bytes, told: str) -> None:
    made = "sha1=" + hmac.new(ENODE.secret.encode(), body, hashlib.sha1).hexdigest()
    assert forgery(ENODE, {"x-enode-signature": made}, body, NOW_NS) == ""
    assert forgery(ENODE, {"x-enode-signature": told}, body, NOW_NS)
    assert forgery(ENODE, {"x-enode-signature": made}, body + b" ", NOW_NS)
    assert forgery(ENODE, {"x-enode-signature": made.upper()}, body, NOW_NS)
    assert forgery(ENODE, {}, body, NOW_NS)


def stamped(stamp: str, body: bytes = b"{}") -> dict[str, str]:
    digest = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).digest()
    return {"x-timestamp": stamp, "x-signature": base64.b64encode(digest).decode()}


@pytest.mark.parametrize(("off_s", "is_taken"), [(0, True), (-299, True), (299, True)])
def test_a_clock_may_differ_a_little(off_s: int, is_taken: bool) -> None:
    headers = stamped(str(NOW_NS // NS_PER_S + off_s))
    assert (forgery(STAMPED, headers, b"{}", NOW_NS) == "") == is_taken


@pytest.mark.parametrize("stamp", ["1777593299", "1777593901", "", "soon", "-1", "9" * 30, "1e9"])
def test_a_delivery_of_another_time_is_a_replay(stamp: str) -> None:
    assert "timestamp" in forgery(STAMPED, stamped(stamp), b"{}", NOW_NS)


def test_the_timestamp_is_signed_with_the_body() -> None:
    headers = stamped(str(NOW_NS // NS_PER_S)) | {"x-timestamp": str(NOW_NS // NS_PER_S + 1)}
    assert forgery(STAMPED, headers, b"{}", NOW_NS) == "signature wrong"


def test_what_is_remembered_is_bounded() -> None:
    seen = Remembered(3)
    for number in range(5):
        seen.add(b"%d" % number)
    assert [b"%d" % number in seen for number in range(5)] == [False, False, True, True, True]


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        CloudWebhook(secret="short", events=EVENTS)


def test_a_key_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="base64"):
        CloudWebhook(secret="whsec_not base64 at all!", key_form="base64")
    with pytest.raises(ValueError, match="timestamp_header"):
        CloudWebhook(id_header="webhook-id")


def test_one_signature_of_several_suffices_and_they_are_bounded() -> None:
    headers = stamped(str(NOW_NS // NS_PER_S))
    right = headers["x-signature"]
    for told, fits in (
        (f"old {right}", True),
        (f"{right} new", True),
        ("old new", False),
        (right.replace("=", " ="), False),
        ("x " * 10_000 + right, False),
    ):
        found = forgery(STAMPED, headers | {"x-signature": told}, b"{}", NOW_NS)
        assert (found == "") == fits


def test_what_was_signed_names_a_delivery() -> None:
    first = examine(STAMPED, stamped(str(NOW_NS // NS_PER_S)), b"{}", NOW_NS)
    again = examine(STAMPED, stamped(str(NOW_NS // NS_PER_S)) | {"x-id": "2"}, b"{}", NOW_NS)
    later = examine(STAMPED, stamped(str(NOW_NS // NS_PER_S + 1)), b"{}", NOW_NS)
    assert isinstance(first, Genuine)
    assert first == again
    assert isinstance(later, Genuine)
    assert later.signed != first.signed
    assert later.at_ns - first.at_ns == NS_PER_S
