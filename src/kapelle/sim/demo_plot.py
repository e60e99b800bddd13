"""A small plot of curves in Braille dots, two by four in a cell, for terminals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isnan, log10

from rich.text import Text

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BAND = "░"
_LABEL = 7
_QUIET = "grey50"


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. A NaN leaves a gap."""

    points: Sequence[tuple[float, float]]
    style: str
    steps: bool = False
    """Whether values hold until the next point."""


@dataclass(frozen=True, slots=True)
class Band:
    """The range between two curves: x, low, high."""

    points: Sequence[tuple[float, float, float]]
    style: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to point out below the plot."""

    x: float
    shape: str
    style: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What part of the plane is drawn on how many cells."""

    width: int
    height: int
    x0: float
    x1: float
    low: float
    high: float
    step: float

    def dot_x(self, x: float) -> int:
        """Return the column of dots of an x."""
        return round((x - self.x0) / (self.x1 - self.x0) * (self.width * 2 - 1))

    def dot_y(self, y: float) -> int:
        """Return the row of dots of a y, counted from above."""
        return round((self.high - y) / (self.high - self.low) * (self.height * 4 - 1))


def plot(
    lines: Sequence[Line],
    band: Band,
    *,
    size: tuple[int, int],
    span_x: tuple[float, float],
    marks: Sequence[Mark] = (),
) -> list[Text]:
    """Draw curves, later ones above earlier ones, with both axes; return one text per row.

    Args:
        lines: Curves.
        band: Drawn below all curves.
        size: Width and height in cells, axes included.
        span_x: Least and greatest x.
        marks: Drawn on the x axis.
    """
    values = [y for line in lines for _, y in line.points]
    values += [y for _, low, high in band.points for y in (low, high)]
    height = size[1] - 2
    frame = Frame(size[0] - _LABEL, height, *span_x, *_span_y(values, height))
    bits: dict[tuple[int, int], tuple[int, str]] = {}
    for line in lines:
        for x, y in _dots(line, frame):
            cell = y // 4, x // 2
            bits[cell] = bits.get(cell, (0, ""))[0] | _DOTS[y % 4][x % 2], line.style
    filled = _filled(band, frame)
    labels = _labels(frame)
    rows = [
        Text.assemble((f"{labels.get(row, ''):>{_LABEL - 1}}┤", _QUIET)) for row in range(height)
    ]
    for row, text in enumerate(rows):
        for column in range(frame.width):
            dots, style = bits.get((row, column), (0, ""))
            if dots:
                text.append(chr(_BLANK | dots), style)
            else:
                text.append(*((_BAND, band.style) if (row, column) in filled else (" ", "")))
    return [*rows, *_axis(frame, marks)]


def _span_y(values: Sequence[float], height: int) -> tuple[float, float, float]:
    known = [value for value in values if not isnan(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(2, height // 2)
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    half = step / 2
    return floor(low / half + 1e-9) * half, ceil(high / half - 1e-9) * half, step


def _dots(line: Line, frame: Frame) -> Iterator[tuple[int, int]]:
    """Yield every dot of a curve, so that neighbours touch."""
    before: tuple[int, int] | None = None
    for x, y in line.points:
        if isnan(y):
            before = None
            continue
        here = frame.dot_x(x), frame.dot_y(y)
        for dot in _joined(before or here, here, steps=line.steps):
            if 0 <= dot[0] < frame.width * 2 and 0 <= dot[1] < frame.height * 4:
                yield dot
        before = here


def _joined(
    start: tuple[int, int], end: tuple[int, int], *, steps: bool
) -> Iterator[tuple[int, int]]:
    x0, y0 = start
    x1, y1 = end
    y_before = y0
    for x in range(x0, x1 + 1):
        share = 1.0 if x1 == x0 else (x - x0) / (x1 - x0)
        y = (y1 if x == x1 else y0) if steps else round(y0 + share * (y1 - y0))
        # A steep rise fills the whole column between two heights.
        for between in range(min(y_before, y), max(y_before, y) + 1):
            yield x, between
        y_before = y


def _filled(band: Band, frame: Frame) -> set[tuple[int, int]]:
    cells: set[tuple[int, int]] = set()
    for x, low, high in band.points:
        if isnan(low) or isnan(high):
            continue
        top, bottom = max(0, frame.dot_y(high)), min(frame.height * 4 - 1, frame.dot_y(low))
        cells.update((row, frame.dot_x(x) // 2) for row in range(top // 4, bottom // 4 + 1))
    return cells


def _labels(frame: Frame) -> dict[int, str]:
    digits = max(0, -floor(log10(frame.step)))
    first, last = ceil(frame.low / frame.step - 1e-9), floor(frame.high / frame.step + 1e-9)
    ticks = [frame.step * number for number in range(first, last + 1)]
    return {frame.dot_y(tick) // 4: f"{tick + 0.0:.{digits}f}" for tick in ticks}


def _axis(frame: Frame, marks: Sequence[Mark]) -> list[Text]:
    line = Text.assemble((" " * (_LABEL - 1) + "└", _QUIET))
    shapes = {frame.dot_x(mark.x) // 2: mark for mark in marks}
    for column in range(frame.width):
        mark = shapes.get(column)
        line.append(mark.shape if mark else "─", mark.style if mark else _QUIET)
    numbers = [" "] * (frame.width + _LABEL)
    span = frame.x1 - frame.x0
    every = next(s for s in (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600) if span / s <= 10)
    for number in range(0, int(span) + 1, every):
        word = f"{number} s" if number == 0 else str(number)
        at = _LABEL + frame.dot_x(frame.x0 + number) // 2
        if at + len(word) <= len(numbers):
            numbers[at : at + len(word)] = word
    return [line, Text("".join(numbers), _QUIET)]
