"""Charts as SVG, of lines and of bars: pure functions from values to text, the same text for the same values.

A picture has the reader's colours: dark where a dark page is asked for (prefers-color-scheme), on a ground of its own,
so that it can be read wherever it stands. Series differ in colour and in the shape of their marks. A value is drawn
with the least and the most of its runs, where they differ.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 76, 30, 44, 52
LEGEND, ROW = 20, 15
LETTER = 7.2
"""Width of a letter, about, at the size that names of series have."""

_COLOURS = (
    ("#0a5fb4", "#6cb6ff"),
    ("#c2410c", "#ff9e64"),
    ("#15803d", "#7ee787"),
    ("#7e22ce", "#d2a8ff"),
    ("#a16207", "#e3b341"),
    ("#be185d", "#ff8fc7"),
    ("#0e7490", "#56d4dd"),
    ("#57606a", "#a9b4c0"),
)
"""For a light ground and for a dark one."""

Extent = tuple[float, float, float]
"""A value, and the least and most of its runs."""


@dataclass(frozen=True)
class Axis:
    """`log`: equal factors take equal room. The other kind begins at zero. `names`: what stands at 0, 1, 2 …"""

    title: str
    log: bool = False
    names: Sequence[str] = ()


Lines = Mapping[str, Sequence[tuple[float, Extent]]]
"""By the series' name: places along the horizontal axis and what was measured there."""
Bars = Mapping[str, Sequence[Extent | None]]
"""By the series' name: a value for each group, or none."""


def lines(title: str, across: Axis, up: Axis, series: Lines) -> str:
    places = [place for points in series.values() for place, _ in points]
    ends = [end for points in series.values() for _, extent in points for end in extent]
    horizontal, vertical = _scale(across, places, LEFT, WIDTH - RIGHT), _scale(up, ends, HEIGHT - BOTTOM, _top(series))
    body = [*_frame(across, up, horizontal, vertical, sorted(set(places)))]
    for number, points in enumerate(series.values()):
        spots = [(horizontal(place), *map(vertical, extent)) for place, extent in points]
        way = " ".join(f"{_number(x)},{_number(y)}" for x, y, *_ in spots)
        body.append(f'<polyline class="line c{number % len(_COLOURS)}" points="{way}"/>')
        for x, y, low, high in spots:
            body += [*_whisker(x, low, high, number), _mark(x, y, number)]
    return _picture(title, series, body, HEIGHT)


def bars(title: str, groups: Sequence[str], up: Axis, series: Bars) -> str:
    ends = [end for values in series.values() for extent in values if extent for end in extent]
    horizontal = _Scale(0, len(groups), LEFT, WIDTH - RIGHT, log=False)
    vertical = _scale(up, ends, HEIGHT - BOTTOM, _top(series))
    body = [*_frame(Axis(""), up, horizontal, vertical, ())]
    floor, wide = HEIGHT - BOTTOM, (horizontal(1) - horizontal(0)) * 0.84 / max(len(series), 1)
    for number, values in enumerate(series.values()):
        for group, extent in enumerate(values):
            if extent:
                x, y = horizontal(group + 0.08) + wide * number, vertical(extent[0])
                box = f'x="{_number(x)}" y="{_number(y)}" width="{_number(wide * 0.9)}" height="{_number(floor - y)}"'
                body.append(f'<rect class="bar c{number % len(_COLOURS)}" {box}/>')
                body += _whisker(x + wide * 0.45, vertical(extent[1]), vertical(extent[2]), number)
    names = [wrap(name, max(8, int(0.96 * (WIDTH - LEFT - RIGHT) / len(groups) / LETTER))) for name in groups]
    for group, parts in enumerate(names):
        spots = ((horizontal(group + 0.5), floor + 18 + ROW * row, part) for row, part in enumerate(parts))
        body += [_text(x, y, part, "middle") for x, y, part in spots]
    return _picture(title, series, body, HEIGHT - BOTTOM + 20 + ROW * max(map(len, names), default=1))


@dataclass(frozen=True)
class _Scale:
    """From values to places on the picture."""

    low: float
    high: float
    begin: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + (self.end - self.begin) * share

    def ticks(self) -> list[float]:
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _step(self.high - self.low)
        return [step * count for count in range(math.floor(self.high / step + 1e-9) + 1)]


def _scale(axis: Axis, values: Sequence[float], begin: float, end: float) -> _Scale:
    if axis.names:
        return _Scale(-0.5, len(axis.names) - 0.5, begin, end, log=False)
    most = max(values, default=1) or 1
    if axis.log:
        least = min(value for value in values if value > 0)
        low, high = 10.0 ** math.floor(math.log10(least)), 10.0 ** math.ceil(math.log10(most) - 1e-9)
        return _Scale(low, max(high, 10 * low), begin, end, log=True)
    step = _step(most)
    return _Scale(0, step * math.ceil(most / step + 0.05), begin, end, log=False)


def _step(length: float) -> float:
    """Of round numbers that are about six to the length."""
    raw = length / 6
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def _frame(across: Axis, up: Axis, horizontal: _Scale, vertical: _Scale, places: Sequence[float]) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    for value in vertical.ticks():
        y = vertical(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_number(y)}" y2="{_number(y)}"/>'
        yield _text(LEFT - 8, y + 4, _value(value), "end")
    if across.names:
        yield from (_text(horizontal(place), floor + 18, name, "middle") for place, name in enumerate(across.names))
    else:
        yield from (_text(horizontal(place), floor + 18, _value(place), "middle") for place in places)
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, across.title, "middle")
    middle = (TOP + floor) / 2
    yield f'<text class="name" transform="translate(18 {_number(middle)}) rotate(-90)">{escape(up.title)}</text>'


def _picture(title: str, series: Mapping[str, object], body: Sequence[str], height: float) -> str:
    whole = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
        *_legend(list(series)),
        *body,
        "</svg>",
    ]
    return "\n".join(whole) + "\n"


def _legend(names: Sequence[str]) -> Iterator[str]:
    for number, (x, y) in enumerate(_places(names)):
        yield _mark(x, y - 4, number)
        yield _text(x + 10, y, names[number], "start")


def _places(names: Sequence[str]) -> list[tuple[float, float]]:
    """Of the names of series, in rows under the title."""
    found, x, y = [], float(LEFT + 6), float(TOP)
    for name in names:
        width = 26 + LETTER * len(name)
        if x + width > WIDTH - RIGHT and x > LEFT + 6:
            x, y = LEFT + 6, y + LEGEND
        found.append((x, y))
        x += width
    return found


def _top(series: Mapping[str, object]) -> float:
    """Where the frame begins, below the names."""
    return _places(list(series))[-1][1] + 14 if series else TOP


def _whisker(x: float, low: float, high: float, number: int) -> Iterator[str]:
    if abs(low - high) >= 1:
        across = f'x1="{_number(x)}" x2="{_number(x)}" y1="{_number(low)}" y2="{_number(high)}"'
        yield f'<line class="whisker c{number % len(_COLOURS)}" {across}/>'


def _mark(x: float, y: float, number: int) -> str:
    colour, shape = number % len(_COLOURS), number % 4
    if shape == 0:
        return f'<circle class="mark c{colour}" cx="{_number(x)}" cy="{_number(y)}" r="4"/>'
    corners = (
        ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        ((0, -5), (5, 4), (-5, 4)),
        ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
    )[shape - 1]
    way = " ".join(f"{_number(x + dx)},{_number(y + dy)}" for dx, dy in corners)
    return f'<polygon class="mark c{colour}" points="{way}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}">{escape(words)}</text>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _value(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:g}"


def _style() -> str:
    """No variables: not every reader of SVG knows them."""
    shapes = (
        "text{font:12px system-ui,sans-serif}.title{font-size:15px;font-weight:600}.name{text-anchor:middle}"
        ".line{fill:none;stroke-width:2}.whisker{stroke-width:1.5}"
    )
    light, dark = _ground("#ffffff", "#1f2328", "#d9dee3", 0), _ground("#0d1117", "#e6edf3", "#30363d", 1)
    return f"{shapes}{light}@media (prefers-color-scheme: dark){{{dark}}}"


def _ground(ground: str, ink: str, grid: str, which: int) -> str:
    series = "".join(
        f".mark.c{number},.bar.c{number}{{fill:{pair[which]}}}.line.c{number},.whisker.c{number}{{stroke:{pair[which]}}}"
        for number, pair in enumerate(_COLOURS)
    )
    return f".ground{{fill:{ground}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}{series}.bar+.whisker{{stroke:{ink}}}"
