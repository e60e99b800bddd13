"""Puts the demo's scenes before people: a live picture on a terminal, lines elsewhere."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from kapelle.sim.demo_view import SIZE, Scene, draw, plain

_LINE_EVERY_S = 2.0
_PICTURE_AT = 0.91
"""When the picture is taken, as a share of the demo: both faults are behind it."""


@contextmanager
def showing(
    *, live: bool, picture: Path | None, seconds: float
) -> Iterator[Callable[[Scene], None]]:
    """Return what shows a scene. Everything goes to stderr: stdout belongs to the result."""
    camera = _Camera(picture, seconds * _PICTURE_AT)
    if not live:
        lines = _Lines()

        def tell(scene: Scene) -> None:
            camera.see(scene)
            lines.see(scene)

        yield tell
        return
    console = Console(stderr=True)
    last: list[Scene] = []
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False) as screen:

        def show(scene: Scene) -> None:
            camera.see(scene)
            last[:] = [scene]
            screen.update(draw(scene, (console.width, console.height)), refresh=True)

        yield show
    for scene in last:
        # The screen of the live picture is gone: leave its last state in the scroll-back.
        console.print(draw(scene, (console.width, SIZE[1])), height=SIZE[1])


class _Lines:
    """One line every two seconds, and one for each event."""

    def __init__(self) -> None:
        self._last_s = -_LINE_EVERY_S
        self._told = 0
        self._heading = ""

    def see(self, scene: Scene) -> None:
        for event in scene.log[self._told :]:
            _write(f"{scene.record.seconds(event.at_ns):6.1f} s  {event.mark} {event.text}")
        self._told = len(scene.log)
        now_s = scene.record.seconds(scene.now_ns)
        if now_s < 0.0 or now_s < self._last_s:
            self._last_s = -_LINE_EVERY_S
        if scene.aggregate is None and scene.heading != self._heading:
            self._heading = scene.heading
            _write(f"{max(0.0, now_s):6.1f} s  {scene.heading}")
        elif scene.aggregate is not None and now_s - self._last_s >= _LINE_EVERY_S:
            self._last_s = now_s
            _write(plain(scene))


class _Camera:
    """Takes one picture."""

    def __init__(self, path: Path | None, at_s: float) -> None:
        self._path = path
        self._at_s = at_s

    def see(self, scene: Scene) -> None:
        if self._path is None or scene.record.seconds(scene.now_ns) < self._at_s:
            return
        width, height = SIZE
        with open("/dev/null", "w") as nowhere:
            console = Console(
                record=True, width=width, height=height, file=nowhere, force_terminal=True,
                color_system="truecolor",
            )  # fmt: skip
            console.print(draw(scene, (width, height)))
            svg = console.export_svg(title="kapelle demo")
            # Rich names fonts on the web; a picture must not fetch anything.
            self._path.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))
        self._path = None


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
