"""Every code a sender may be told is in the document, and its example works."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters" / "http.md").read_text()
CODE = re.compile(
    r'"((?:device|time|value|row|field|body|encoding|power|limit|soc|register|media|queue|journal'
    r'|credentials|too|no)(?:-[a-z]+)+)[":]'
)


def test_codes_are_documented() -> None:
    sources = [
        *(ROOT / "src/kapelle/adapters/http").glob("*.py"),
        ROOT / "src/kapelle/ingest/check.py",
    ]
    told = {code for path in sources for code in CODE.findall(path.read_text())}
    assert len(told) > 25
    missing = {code for code in told if f"`{code}`" not in PAGE}
    assert not missing
