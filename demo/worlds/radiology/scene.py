"""What a drawn scan shows: the view, the lesions and the findings that questions can be asked about."""

from dataclasses import dataclass

import numpy as np

# (organ, modality, plane) of each kind of scan, and how often it is drawn.
VIEWS = {
    ("HEAD", "CT", "Axial"): 0.18,
    ("HEAD", "MRI", "Axial"): 0.16,
    ("CHEST", "X-ray", "PA"): 0.32,
    ("ABD", "CT", "Axial"): 0.18,
    ("ABD", "MRI", "Coronal"): 0.16,
}
# Where a lesion may lie: distance from the midline, and height, in body units (`radiology_scan.Canvas`).
LESION_AREAS = {
    ("HEAD", "Axial"): ((0.38, 0.46), (-0.42, 0.42)),
    ("CHEST", "PA"): ((0.38, 0.56), (-0.50, 0.12)),
    ("ABD", "Axial"): ((0.32, 0.62), (-0.28, 0.28)),
    ("ABD", "Coronal"): ((0.32, 0.56), (-0.50, 0.50)),
}
SMALL, LARGE = (0.11, 0.14), (0.20, 0.24)  # radii: the gap between them keeps size from being a guess


@dataclass(frozen=True)
class Lesion:
    """A round spot at (`x`, `y`) in body units; x < 0 is the left side of the image, y < 0 its upper half."""

    x: float
    y: float
    radius: float
    bright: bool

    @property
    def side(self) -> str:
        return "left" if self.x < 0 else "right"

    @property
    def large(self) -> bool:
        return self.radius >= LARGE[0]


@dataclass(frozen=True)
class Scene:
    """What questions are about; `seed` decides the rest (pose, tissue, noise, marks). Sides are the image's."""

    organ: str  # HEAD, CHEST, ABD
    modality: str  # CT, MRI, X-ray
    plane: str  # Axial, Coronal, PA
    seed: int
    lesions: tuple[Lesion, ...] = ()
    enlarged: bool = False  # the ventricles, the heart or the liver
    effusion: str = ""  # "left" or "right": fluid at the bottom of a lung
    shift: str = ""  # "left" or "right": where the brain's midline has gone
    missing_kidney: str = ""  # "left" or "right"
    gas: bool = False  # in the bowel
    contrast: bool = False  # bright vessels and kidneys in an abdominal CT


def draw_scene(rng: np.random.Generator) -> Scene:
    """Choose a view and, unless the scan is to be normal, 0 to 3 lesions that do not touch and other findings."""
    views = list(VIEWS)
    organ, modality, plane = views[rng.choice(len(views), p=list(VIEWS.values()))]
    across, height = LESION_AREAS[organ, plane]
    normal = rng.random() < 0.3
    count, lesions = 0 if normal else rng.choice(4, p=[0.2, 0.4, 0.25, 0.15]), []
    while len(lesions) < count:
        x, y = rng.uniform(*across) * rng.choice([-1, 1]), rng.uniform(*height)
        lesion = Lesion(x, y, rng.uniform(*(LARGE if rng.random() < 0.5 else SMALL)), bool(rng.random() < 0.5))
        if all(np.hypot(x - other.x, y - other.y) > lesion.radius + other.radius + 0.08 for other in lesions):
            lesions.append(lesion)
    side = str(rng.choice(["left", "right"]))
    enlarged, sided, gas, contrast = (bool(value) for value in rng.random(4) < [0.45, 0.45, 0.5, 0.5])
    enlarged, sided = enlarged and not normal, sided and not normal
    return Scene(
        organ,
        modality,
        plane,
        seed=int(rng.integers(2**31)),
        lesions=tuple(lesions),
        enlarged=enlarged,
        effusion=side if sided and organ == "CHEST" else "",
        shift=side if sided and organ == "HEAD" else "",
        missing_kidney=side if sided and organ == "ABD" else "",
        gas=gas and organ == "ABD",
        contrast=contrast and (organ, modality) == ("ABD", "CT"),
    )
