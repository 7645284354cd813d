"""What a drawn laparoscopy frame shows: two to four structures and instruments, each in its own cell of a 3x3 grid."""

from dataclasses import dataclass
from functools import cached_property
from math import atan2, cos, hypot, pi, sin

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (200, 22, 28),
    "brown": (102, 56, 22),
    "yellow": (242, 206, 52),
    "white": (250, 248, 242),
    "blue": (40, 84, 222),
    "silver": (142, 150, 162),
}
ROWS, COLUMNS = ("top", "mid", "bottom"), ("left", "mid", "right")
PLACES = [f"{row}-{column}" for row in ROWS for column in COLUMNS]
LINES = (0.2, 0.5, 0.8)  # where the middles of the three rows and columns are; the cells are thirds of the picture
JITTER = 0.05  # how far from there a centre may be, at most, across and down
APART = 0.32  # the least distance of two centres
NEARER = 1.2  # an instrument acts on the nearest structure where the next one is so many times as far
REACH = 0.155  # of a structure and of an instrument's tip, from the centre
SMOOTH = 4  # pictures are drawn so many times larger, then reduced

Disc = tuple[float, float, float]  # the centre and the radius


def along(*points: tuple[float, float], radius: float, end: float | None = None) -> list[Disc]:
    """Discs in short steps along a path; the radius changes evenly to `end`."""
    end = radius if end is None else end
    parts = len(points) - 1
    steps = [min(step / 6, parts) for step in range(6 * parts + 1)]
    discs = []
    for step in steps:
        part = min(int(step), parts - 1)
        (x, y), (to_x, to_y) = points[part : part + 2]
        share = step - part
        discs.append((x + share * (to_x - x), y + share * (to_y - y), radius + step / parts * (end - radius)))
    return discs


def ring(*degrees: float, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    return [(x + radius * cos(pi * angle / 180), y + radius * sin(pi * angle / 180)) for angle in degrees]


# Each is a union of discs around the centre, which one of them covers; 1 is REACH. An instrument's tip looks to the
# right, away from its shaft.
ANATOMY: dict[str, list[Disc]] = {
    "liver": [*along((-0.62, 0.5), (0.62, 0.5), radius=0.4), *along((0, 0.3), (0, -0.7), radius=0.6, end=0.2)],
    "gallbladder": along((-0.45, 0.3), (0.9, -0.6), radius=0.62, end=0.18),
    "omentum": [(0, 0, 0.6), *((x, y, 0.36) for x, y in ring(*range(0, 360, 60), x=0, y=0, radius=0.72))],
    "cystic_plate": along((-0.9, 0), (0.9, 0), radius=0.32),
}
INSTRUMENTS: dict[str, list[Disc]] = {
    "grasper": along(*ring(*range(50, 311, 26), x=0.6, y=0, radius=0.58), radius=0.19),
    "hook": along((0, 0), (0.75, 0), (0.75, -0.95), radius=0.2),
    "irrigator": along((0.1, 0), (0.55, 0), radius=0.45, end=0.55),
}
COLOURS_OF = {  # the usual one and another: upstream, a component has one colour
    "liver": ("brown", "red"),
    "gallbladder": ("white", "yellow"),
    "omentum": ("yellow", "white"),
    "cystic_plate": ("red", "brown"),
    "grasper": ("silver", "blue"),
    "hook": ("white", "silver"),
    "irrigator": ("blue", "white"),
}
USUAL = 0.75  # the share of things that have their usual colour


@dataclass(frozen=True)
class Thing:
    """A node of the scene graph: a structure, or an instrument that comes in from the edge; `x`, `y` in 0–1."""

    component: str
    colour: str
    x: float
    y: float
    turn: float  # in radians, clockwise

    @property
    def type(self) -> str:
        return "anatomy" if self.component in ANATOMY else "instrument"

    @property
    def column(self) -> int:
        return int(3 * self.x)

    @property
    def row(self) -> int:
        return int(3 * self.y)

    @property
    def place(self) -> str:
        return f"{ROWS[self.row]}-{COLUMNS[self.column]}"

    @cached_property
    def facts(self) -> dict[str, str]:
        """What a question can name."""
        return {"colour": self.colour, "place": self.place, "component": self.component, "type": self.type}


Scene = tuple[Thing, ...]


def distance(first: Thing, second: Thing) -> float:
    return hypot(first.x - second.x, first.y - second.y)


def acts_on(instrument: Thing, structures: list[Thing]) -> Thing | None:
    """The structure nearest to an instrument, or None unless it is so clearly."""
    nearest, *others = sorted(structures, key=lambda structure: distance(instrument, structure))
    is_clear = all(distance(instrument, other) > NEARER * distance(instrument, nearest) for other in others)
    return nearest if is_clear else None


def put(component: str, rng: np.random.Generator) -> Thing:
    """A thing of that name, somewhere and in some colour; an instrument has its shaft towards the nearest edge."""
    is_anatomy = component in ANATOMY
    cells = 9 if is_anatomy else [0, 1, 2, 3, 5, 6, 7, 8]  # in the middle, a shaft would hide another thing
    row, column = divmod(int(rng.choice(cells)), 3)
    x, y = LINES[column] + rng.uniform(-JITTER, JITTER), LINES[row] + rng.uniform(-JITTER, JITTER)
    inwards = 0.0 if is_anatomy else atan2(1 - row, 1 - column)
    colour = COLOURS_OF[component][int(rng.random() >= USUAL)]
    return Thing(component, colour, x, y, inwards + rng.uniform(-0.25, 0.25))


def draw_scene(rng: np.random.Generator) -> Scene:
    """Choose two to four different things, at least one structure and one instrument, clearly apart."""
    anatomy, instruments = rng.permutation(list(ANATOMY)).tolist(), rng.permutation(list(INSTRUMENTS)).tolist()
    counts = ((1, 1), (1, 2), (2, 1), (2, 1), (2, 2), (2, 2), (1, 3), (3, 1))
    first, second = counts[rng.integers(len(counts))]
    things: list[Thing] = []
    for component in anatomy[:first] + instruments[:second]:
        thing = put(component, rng)
        while any(distance(thing, other) < APART or thing.place == other.place for other in things):
            thing = put(component, rng)
        things.append(thing)
    return tuple(things)


@dataclass(frozen=True)
class View:
    """What the frames of one video have in common: the tissue behind, and where the round field of view ends."""

    tissue: tuple[float, float, float]
    x: float
    y: float
    radius: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "View":
        red = rng.uniform(175, 215)
        tissue = (red, red * rng.uniform(0.52, 0.66), red * rng.uniform(0.48, 0.62))
        return cls(tissue, *rng.uniform(0.47, 0.53, 2), rng.uniform(0.56, 0.62))


def backdrop(view: View, size: int, rng: np.random.Generator) -> Image.Image:
    """Tissue with folds and grain, lit from the middle, and black outside the field of view."""
    coarse = Image.fromarray(rng.uniform(0, 255, (8, 8)).astype(np.uint8)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    down, across = np.mgrid[:size, :size] / size
    far = np.hypot(across - view.x, down - view.y)
    light = (1.08 - 0.55 * far) * np.clip((view.radius + 0.03 - far) / 0.06, 0, 1)
    folds = np.asarray(coarse, float) / 255 * 0.3 + 0.85 + rng.normal(0, 0.02, (size, size))
    pixels = np.multiply.outer(light * folds, view.tissue)
    return Image.fromarray(np.clip(pixels + 6, 0, 255).astype(np.uint8))


def shade(colour: tuple[int, ...], factor: float) -> tuple[int, ...]:
    """Darker, or lighter where the factor is above 1."""
    goal = 0 if factor < 1 else 255
    return tuple(round(part + (goal - part) * abs(factor - 1)) for part in colour)


def outline(thing: Thing) -> list[Disc]:
    """The discs that a thing is drawn of, with its place, turn and, for an instrument, its shaft."""
    discs = ANATOMY.get(thing.component) or [
        *along(*((step, 0) for step in range(-4, 1)), radius=0.27),
        *INSTRUMENTS[thing.component],
    ]
    across, down = cos(thing.turn), sin(thing.turn)
    return [
        (thing.x + REACH * (across * x - down * y), thing.y + REACH * (down * x + across * y), REACH * radius)
        for x, y, radius in discs
    ]


def render(scene: Scene, view: View, size: int, rng: np.random.Generator) -> Image.Image:
    """The picture of a scene: every thing in one colour, with a dark rim and a gleam."""
    whole = SMOOTH * size
    picture = backdrop(view, size, rng).resize((whole, whole), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for thing in scene:
        colour = shade(COLOURS[thing.colour], rng.uniform(0.92, 1.08))
        discs = outline(thing)
        # From the outside in: the rim, the thing, and on it, towards the light, a paler part.
        for factor, growth, lift in ((0.3, 0.012, 0), (1, 0, 0), (1.12, -0.024, 0.006)):
            for x, y, radius in discs:
                reach = max(radius + growth, 0)
                box = (x - lift - reach, y - lift - reach, x - lift + reach, y - lift + reach)
                draw.ellipse([whole * side for side in box], shade(colour, factor))
    return picture.reduce(SMOOTH)
