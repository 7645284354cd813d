"""A picture in floats on which soft-edged shapes are painted, and the colours of findings."""

from dataclasses import dataclass, replace

import numpy as np

from demo.worlds.endoscopy.scene import Spot

SCALE = 2  # pixels per unit
PAINT = {"pink": (250, 142, 200), "red": (178, 8, 26), "white": (240, 238, 232), "yellow": (244, 214, 40)}
PAINT |= {"blue": (44, 70, 196), "flesh": (244, 206, 176)}
FADED = 0.22  # how much of a finding that is hard to detect is mucosa

Field = np.ndarray  # [height, width]: lengths in units, or coverage in 0-1
Colour = tuple[int, int, int] | np.ndarray


def cover(distance: Field, softness: float = 0.6) -> Field:
    """How much of each pixel a shape covers, from the signed distance to its edge (negative inside)."""
    return np.clip(0.5 - distance / softness, 0, 1)


@dataclass
class Canvas:
    """A picture in floats, or a window of one, with the coordinates of its pixels in units."""

    pixels: np.ndarray  # [height, width, 3]
    x: Field
    y: Field
    mucosa: np.ndarray  # its colour
    easy: bool

    def around(self, spot: Spot, reach: float) -> "Canvas":
        """A square window: painting there paints here."""
        x, y = (slice(max(0, int((at - reach) * SCALE)), int((at + reach) * SCALE) + 1) for at in (spot.x, spot.y))
        return replace(self, pixels=self.pixels[y, x], x=self.x[y, x], y=self.y[y, x])

    def paint(self, coverage: Field, colour: Colour) -> None:
        self.pixels += coverage[..., None] * (np.asarray(colour, dtype=np.float32) - self.pixels)

    def find(self, shape: Field, colour: str, light: Field | float = 1.0) -> None:
        """Paint a finding; mixed with mucosa and with a soft edge if it is hard to detect."""
        share, softness = (1.0, 0.6) if self.easy else (1 - FADED, 2.5)
        mixed = share * np.array(PAINT[colour], dtype=np.float32) + (1 - share) * self.mucosa
        self.paint(cover(shape, softness), mixed * np.atleast_2d(light)[..., None])

    def circle(self, x: float, y: float, radius: float = 0.0) -> Field:
        return np.hypot(self.x - x, self.y - y) - radius

    def segment(self, start: tuple[float, float], stop: tuple[float, float]) -> Field:
        """The distance to a straight line between two points."""
        across, down = stop[0] - start[0], stop[1] - start[1]
        along = ((self.x - start[0]) * across + (self.y - start[1]) * down) / (across**2 + down**2)
        return np.hypot(self.x - start[0] - along.clip(0, 1) * across, self.y - start[1] - along.clip(0, 1) * down)
