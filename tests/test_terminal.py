"""What strangers sent is shown on a terminal, and never obeyed by it."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from kapelle.cli import output
from kapelle.cli.output import Terminal, print_table

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08\u202e[/bold][red]x\x7f"


def drawn(what: object, **options: bool) -> str:
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, width=200, highlight=False).print(
        what, markup=False, **options
    )
    return file.getvalue()


@given(st.text(min_size=1))
def test_no_character_of_a_text_controls_the_terminal(text: str) -> None:
    for soft_wrap in (False, True):
        shown = drawn(text, soft_wrap=soft_wrap)
        assert not {c for c in shown if c < " " and c != "\n"} - {"\t"}
        assert not {c for c in shown if "\x7f" <= c <= "\x9f"}


def test_styles_of_our_own_stay() -> None:
    grid = Table.grid()
    grid.add_row(Text("loud", "bold"), Text(EVIL))
    shown = drawn(grid)
    assert "\x1b[1mloud\x1b[0m" in shown
    assert "\x1b[2J" not in shown
    assert "␛[2J" in shown


def test_a_table_shows_square_brackets_as_they_are(capsys, monkeypatch) -> None:
    monkeypatch.setattr(output.sys, "argv", ["kapelle"])
    print_table([{"id": "[/bold]a[red]b", "[/x]": EVIL}], ("id", "[/x]"), "none")
    shown = capsys.readouterr().out
    assert "[/bold]a[red]b" in shown
    assert "\x1b" not in shown
    assert "[/x]" in shown
