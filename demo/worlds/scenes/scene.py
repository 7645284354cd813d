"""What a drawn scene shows: three or four plain figures that differ in colour, in shape and in size."""

from dataclasses import dataclass
from math import cos, hypot, pi, sin, sqrt

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {  # corners of the colour cube, or nearly: even a small encoder can tell them apart
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 225),
    "yellow": (245, 220, 50),
    "purple": (175, 50, 205),
    "white": (248, 248, 248),
}
BACKGROUNDS = ((30, 60), (120, 145))  # ranges of grey: dark, and light but far from white
SMALLEST, LARGEST = 1 / 5, 1 / 2.8  # the diameters of discs of a figure's area, in picture sizes
CLEARLY = 1.4  # a figure is called larger than another where its area is so many times the other's
GAP = 1 / 32  # what is left free between two figures and along the edge, in picture sizes
SMOOTH = 8  # pictures are drawn so many times larger, then reduced

Points = list[tuple[float, float]]


def around(*radii: float, turn: float = 0.0) -> Points:
    """Corners at equal angles around the origin, the first one straight above it, or turned from there."""
    angles = [turn - pi / 2 + 2 * pi * index / len(radii) for index in range(len(radii))]
    return [(radius * cos(angle), radius * sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def area(points: Points) -> float:
    """The area that a polygon encloses, by the shoelace formula."""
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x * b - a * y for (x, y), (a, b) in pairs)) / 2


ARM, END = 3, 9  # of the cross: half the width and the length of an arm
SHAPES = {  # outlines around the centre of gravity; `Figure.points` gives them their size
    "circle": around(*[1] * 24),
    "bar": [(-3, -1), (3, -1), (3, 1), (-3, 1)],
    "pole": [(-1, -3), (1, -3), (1, 3), (-1, 3)],
    "cross": [
        (-ARM, -END),
        (ARM, -END),
        (ARM, -ARM),
        (END, -ARM),
        (END, ARM),
        (ARM, ARM),
        (ARM, END),
        (-ARM, END),
        (-ARM, ARM),
        (-END, ARM),
        (-END, -ARM),
        (-ARM, -ARM),
    ],
}


@dataclass(frozen=True)
class Figure:
    """A figure with its centre of gravity at (`x`, `y`), of the area of a disc of that diameter, in pixels."""

    colour: str
    shape: str
    diameter: float
    x: float = 0.0
    y: float = 0.0

    @property
    def points(self) -> Points:
        outline = SHAPES[self.shape]
        scale = self.diameter * sqrt(pi / 4 / area(outline))
        return [(round(self.x + scale * x, 2), round(self.y + scale * y, 2)) for x, y in outline]

    @property
    def reach(self) -> float:
        """The distance from the centre to the furthest corner."""
        return max(hypot(x - self.x, y - self.y) for x, y in self.points)


@dataclass(frozen=True)
class Scene:
    size: int  # of the square picture, in pixels
    grey: int  # of the background, 0–255
    figures: tuple[Figure, ...]  # largest first; the first and the last are clearly the largest and the smallest

    def render(self) -> Image.Image:
        picture = Image.new("RGB", (SMOOTH * self.size,) * 2, (self.grey,) * 3)
        draw = ImageDraw.Draw(picture)
        for figure in self.figures:
            draw.polygon([(SMOOTH * x, SMOOTH * y) for x, y in figure.points], COLOURS[figure.colour])
        return picture.reduce(SMOOTH)


def place(figures: list[Figure], size: int, rng: np.random.Generator) -> tuple[Figure, ...] | None:
    """Put the figures, in order, where the circles around them are free; None where one finds no room."""
    placed: list[Figure] = []
    for figure in figures:
        margin = figure.reach + GAP * size
        for x, y in rng.uniform(margin, size - margin, (30, 2)).tolist():
            if all(hypot(x - other.x, y - other.y) > margin + other.reach for other in placed):
                placed.append(Figure(figure.colour, figure.shape, figure.diameter, x, y))
                break
        else:
            return None
    return tuple(placed)


def draw_scene(rng: np.random.Generator, size: int = 64, counts: tuple[int, int] = (3, 4)) -> Scene:
    """Choose figures of different colours and shapes, one of them clearly the largest and one the smallest.

    `counts` are the fewest and the most figures, two to four.
    """
    count = int(rng.integers(counts[0], counts[1] + 1))
    grey = int(rng.integers(*BACKGROUNDS[rng.integers(2)]))
    colours, shapes = rng.permutation(list(COLOURS)).tolist(), rng.permutation(list(SHAPES)).tolist()
    while True:
        diameters = sorted(rng.uniform(SMALLEST * size, LARGEST * size, count).tolist(), reverse=True)
        if diameters[0] ** 2 < CLEARLY * diameters[1] ** 2 or diameters[-2] ** 2 < CLEARLY * diameters[-1] ** 2:
            continue
        figures = [Figure(*parts) for parts in zip(colours, shapes, diameters, strict=False)]
        if placed := place(figures, size, rng):
            return Scene(size, grey, placed)
