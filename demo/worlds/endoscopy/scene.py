"""What a drawn endoscopy frame shows: polyps, other findings, instruments and marks that questions ask about."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, cos, hypot, pi, sin

import numpy as np

WIDTH, HEIGHT = 140, 112  # the unit of all lengths: five by four of Qwen2-VL's 28-pixel tokens
RADII = {"<5mm": 6.0, "5-10mm": 9.5, "11-20mm": 13.5, ">20mm": 18.0}  # gaps keep the size from being a guess
SIZE_SHARES = {  # by number of polyps: large ones leave little room, so that many are small and single ones large
    1: (0.18, 0.20, 0.27, 0.35),
    2: (0.19, 0.22, 0.26, 0.33),
    3: (0.24, 0.28, 0.28, 0.20),
    4: (0.38, 0.42, 0.20, 0.00),
}
KINDS = ("paris ip", "paris is", "paris iia")  # on a stalk, a dome, flat
COLOURS = ("pink", "red", "white", "yellow", "blue")
CAP = 0.34  # the share of a polyp that a second colour covers
PATCH, SCAR, LANDMARK, HEAD, ROD, GAP = 16.0, 8.5, 12.0, 9.0, 5.5, 3.5  # radii, and what is left free between two
PATCH_COLOURS = {"ulcerative colitis": ("red", 430.0), "barretts": ("flesh", 600.0)}  # and their area
INSTRUMENTS = ("polyp snare", "biopsy forceps", "metal clip")
CELLS = ("upper-left", "upper-center", "upper-right", "center-left", "center", "center-right")
CELLS += ("lower-left", "lower-center", "lower-right")
OUTER = (0, 1, 2, 3, 5, 6, 7, 8)  # where instruments end: every cell but the middle one

Circle = tuple[float, float, float]
BOX: Circle = (18.0, 94.0, 21.0)  # around the box in the lower left corner, under which nothing may lie


@dataclass(frozen=True)
class Spot:
    x: float
    y: float

    @property
    def cell(self) -> str:
        """The ninth of the picture that the spot lies in."""
        return CELLS[3 * int(3 * self.y / HEIGHT) + int(3 * self.x / WIDTH)]


@dataclass(frozen=True)
class Polyp(Spot):
    size: str  # a key of RADII
    kind: str  # one of KINDS

    @property
    def radius(self) -> float:
        return RADII[self.size]

    @property
    def axes(self) -> tuple[float, float]:
        """Half of its width and height: of a disc, or of an ellipse of about the same area."""
        return (1.3 * self.radius, 0.7 * self.radius) if self.kind == "paris iia" else (self.radius, self.radius)

    @property
    def stalk(self) -> float:
        return min(1.1 * self.radius, 13.0) if self.kind == "paris ip" else 0.0


@dataclass(frozen=True)
class Instrument(Spot):
    """A rod whose head is at (`x`, `y`) and which comes from the edge in the direction `angle`, in radians."""

    name: str
    angle: float


@dataclass(frozen=True)
class Scene:
    """What questions are about; `seed` decides the rest (the field's shape, folds, vessels, light, noise)."""

    procedure: str  # colonoscopy, gastroscopy
    easy: bool  # findings stand out from the mucosa
    text: bool
    box: bool  # the green and black one
    seed: int
    polyps: tuple[Polyp, ...] = ()
    polyp_colours: tuple[str, ...] = ()  # of every polyp: the base and, on two frames in five, a cap
    patch: Spot | None = None  # a field of colitis in a colonoscopy, of Barrett's mucosa in a gastroscopy
    scar: Spot | None = None  # with a clip in it: the polyps have been cut off
    landmark: Spot | None = None  # an opening: the caecum's in a colonoscopy, the pylorus in a gastroscopy
    instruments: tuple[Instrument, ...] = ()

    @property
    def patch_name(self) -> str:
        return "ulcerative colitis" if self.procedure == "colonoscopy" else "barretts"

    @property
    def colour_areas(self) -> dict[str, float]:
        """The area of each colour that findings have, largest first."""
        whole = sum(pi * polyp.axes[0] * polyp.axes[1] for polyp in self.polyps)
        shares = (1 - CAP, CAP) if len(self.polyp_colours) == 2 else (1.0,)
        areas = {colour: share * whole for colour, share in zip(self.polyp_colours, shares, strict=False)}
        if self.patch:
            colour, area = PATCH_COLOURS[self.patch_name]
            areas[colour] = areas.get(colour, 0.0) + area
        return dict(sorted(areas.items(), key=lambda item: -item[1]))


def place(
    rng: np.random.Generator, cells: Sequence[int], radius: float, taken: list[Circle], lower: float = 0.0
) -> Spot | None:
    """A spot well inside one of the cells. The circle around it, or `lower` by so much, is free and in the field."""
    for _ in range(30):
        row, column = divmod(cells[rng.integers(len(cells))], 3)
        x, y = WIDTH / 3 * (column + rng.uniform(0.11, 0.89)), HEIGHT / 3 * (row + rng.uniform(0.13, 0.87))
        across, down = abs(x - WIDTH / 2), abs(y + lower - HEIGHT / 2)
        inside = hypot(across, down) + 0.9 * radius < 65 and down + radius < 54 and across + down + 1.3 * radius < 91
        if inside and all(hypot(x - other[0], y + lower - other[1]) > radius + other[2] + GAP for other in taken):
            return Spot(float(x), float(y))
    return None


def place_instruments(rng: np.random.Generator, names: Sequence[str], taken: list[Circle]) -> list[Instrument] | None:
    """Instruments that come from the nearest edge, or about; their circles are added to `taken`."""
    instruments = []
    for name in names:
        spot = place(rng, OUTER, 1.5 * HEAD, taken)
        if not spot:
            return None
        angle = atan2(spot.y - HEIGHT / 2, spot.x - WIDTH / 2) + float(rng.uniform(-0.4, 0.4))
        rod = [(spot.x + step * cos(angle), spot.y + step * sin(angle), ROD) for step in range(10, 60, 5)]
        if any(hypot(x - other[0], y - other[1]) < ROD + other[2] + GAP for x, y, _ in rod for other in taken):
            return None
        taken += [(spot.x, spot.y, HEAD), *rod]
        instruments.append(Instrument(spot.x, spot.y, name, angle))
    return instruments


def arrange(rng: np.random.Generator, shapes: list[tuple[str, str]], names: Sequence[str], parts: dict) -> dict | None:
    """Where a scene's parts are, each apart from the others, or None. The findings share one to three cells."""
    taken: list[Circle] = [BOX] if parts["box"] else []
    instruments, polyps = place_instruments(rng, names, taken), []
    if instruments is None:
        return None
    cells = rng.choice(9, min(len(shapes) + parts["patch"], rng.integers(1, 4)), replace=False).tolist()
    for size, kind in shapes:
        shape = Polyp(0, 0, size, kind)
        radius, lower = max(shape.axes) + shape.stalk / 2, shape.stalk / 2  # a circle around blob and stalk
        spot = place(rng, cells, radius, taken, lower)
        if not spot:
            return None
        taken.append((spot.x, spot.y + lower, radius))
        polyps.append(Polyp(spot.x, spot.y, size, kind))
    spots = {}
    for part, where, radius in (("patch", cells, PATCH), ("scar", range(9), SCAR), ("landmark", range(9), LANDMARK)):
        spots[part] = place(rng, where, radius, taken) if parts[part] else None
        if parts[part] and not spots[part]:
            return None
        if parts[part]:
            taken.append((spots[part].x, spots[part].y, radius))
    return {"polyps": tuple(polyps), "instruments": tuple(instruments), **spots}


def draw_scene(rng: np.random.Generator) -> Scene:
    """Choose what is to be seen until it all finds room and no two colours of the findings have about one area."""
    while True:
        count = int(rng.choice(5, p=[0.20, 0.25, 0.25, 0.21, 0.09]))
        size, kind = str(rng.choice(list(RADII), p=SIZE_SHARES[max(count, 1)])), str(rng.choice(KINDS))
        shapes = [(size, kind)] * count
        if count == 2 and rng.random() < 0.25:
            shapes[1] = (str(rng.choice(list(RADII))), str(rng.choice(KINDS)))
        colours = rng.permutation(COLOURS)[: 1 + (rng.random() < 0.4)].tolist() if count else []
        names = rng.choice(INSTRUMENTS, rng.choice(3, p=[0.48, 0.47, 0.05])).tolist()
        shares = {"easy": 0.5, "text": 0.5, "box": 0.5, "landmark": 0.45, "colon": 0.5}
        shares |= {"patch": 0.3 if count else 1.0, "scar": 0.5 if count else 0.0}
        parts = {part: bool(rng.random() < share) for part, share in shares.items()}
        marks = {part: parts[part] for part in ("easy", "text", "box")}
        procedure, seed = "colonoscopy" if parts["colon"] else "gastroscopy", int(rng.integers(2**31))
        for _ in range(60):
            placed = arrange(rng, shapes, names, parts)
            if placed:
                scene = Scene(procedure, seed=seed, polyp_colours=tuple(colours), **marks, **placed)
                areas = list(scene.colour_areas.values())
                if all(larger > 1.3 * smaller for larger, smaller in zip(areas, areas[1:], strict=False)):
                    return scene
                break
