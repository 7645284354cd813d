"""Draws a `Scene` as a grey-scale scan: simple shapes for organs, then lesions, tissue, marks, blur and noise."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from demo.worlds.radiology.scene import Scene

SIGNS = {"left": -1, "right": 1}
Points = list[tuple[float, float]] | np.ndarray


def oval(
    x: float, y: float, across: float, along: float, start: float = 0, stop: float = 360, tilt: float = 0
) -> np.ndarray:
    """Points [48, 2] on an ellipse with half-axes `across` and `along`, in degrees (0 is right, 90 is down)."""
    angles, tilt = np.radians(np.linspace(start, stop, 48)), np.radians(tilt)
    u, v = across * np.cos(angles), along * np.sin(angles)
    return np.stack([x + u * np.cos(tilt) - v * np.sin(tilt), y + u * np.sin(tilt) + v * np.cos(tilt)], axis=1)


class Canvas:
    """A grey picture drawn in body units: (0, 0) is the body's middle, 1 is about half its width, y points down."""

    def __init__(self, rng: np.random.Generator):
        self.size = rng.integers(144, 200, 2)
        self.image = Image.new("L", tuple(2 * self.size))  # twice as large, so that edges become smooth
        self.unit = float(self.size.min() * rng.uniform(0.88, 0.97))
        self.middle = self.size * (1 + rng.uniform(-0.04, 0.04, 2))
        angle = np.radians(rng.uniform(-6, 6))
        self.turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Body units [n, 2] to pixels of the large picture."""
        return [tuple(point) for point in (self.middle + self.unit * (np.asarray(points) @ self.turn)).tolist()]

    def fill(self, points: Points, grey: int) -> None:
        ImageDraw.Draw(self.image).polygon(self.pixels(points), fill=grey)

    def ellipse(self, x: float, y: float, across: float, along: float, grey: int, tilt: float = 0) -> None:
        self.fill(oval(x, y, across, along, tilt=tilt), grey)

    def line(self, points: Points, grey: int, thickness: float) -> None:
        width = max(1, round(thickness * self.unit))
        ImageDraw.Draw(self.image).line(self.pixels(points), fill=grey, width=width, joint="curve")


def draw_head(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    skull, gap, brain, fold, fluid = (245, 245, 125, 102, 40) if scene.modality == "CT" else (135, 12, 112, 76, 215)
    canvas.ellipse(0, 0, 0.80, 0.98, skull)
    canvas.ellipse(0, 0, 0.75, 0.93, gap)
    canvas.ellipse(0, 0, 0.69, 0.87, brain)
    for angle in np.arange(0, 360, 15) + rng.uniform(-5, 5, 24):  # the folds of the cortex
        canvas.line([oval(0, 0, 0.69 * r, 0.87 * r, angle + 14 * r)[0] for r in (0.99, 0.9, 0.8)], fold, 0.02)
    shift = 0.10 * SIGNS.get(scene.shift, 0)
    canvas.line([(shift * (1 - (y / 0.86) ** 2), y) for y in np.linspace(-0.86, 0.86, 15)], fold, 0.025)
    grow = 1.7 if scene.enlarged else 1.0
    for sign in (-1, 1):
        x = shift + sign * 0.05 * (1 + grow)
        canvas.ellipse(x, -0.14, 0.05 * grow, 0.13 + 0.05 * grow, fluid, tilt=-sign * 14)
        canvas.ellipse(x + sign * 0.02, 0.20, 0.045 * grow, 0.10 + 0.04 * grow, fluid, tilt=-sign * 20)


def draw_chest(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    canvas.image.paste(22, (0, 0, *canvas.image.size))
    shoulder = np.array([(0.2, -1.4), (0.24, -0.98), (0.9, -0.84), (1.2, -0.5), (1.3, 1.5)])
    canvas.fill(np.concatenate([shoulder, shoulder[::-1] * [-1, 1]]), 150)
    for sign in (-1, 1):
        canvas.ellipse(sign * 0.45, -0.06, 0.34, 0.68, 80, tilt=sign * 5)
        canvas.ellipse(sign * 0.46, 0.86, 0.52, 0.34, 190)  # the dome of the diaphragm
        if SIGNS.get(scene.effusion) == sign:
            canvas.ellipse(sign * 0.58, 0.66, 0.50, 0.36, 190, tilt=-sign * 30)
    canvas.fill([(-1.3, 0.8), (1.3, 0.8), (1.3, 1.5), (-1.3, 1.5)], 190)
    canvas.line([(0, -1.4), (0, 1.4)], 176, 0.20)
    canvas.line([(0, -1.4), (0.01, -0.45)], 112, 0.09)  # the windpipe
    canvas.ellipse(0.10, 0.30, *((0.50, 0.34) if scene.enlarged else (0.26, 0.28)), 188, tilt=20)
    soft, canvas.image = canvas.image, Image.new("L", canvas.image.size)
    for sign in (-1, 1):  # bones add to what lies behind them
        canvas.line(np.array([(0.06, -0.70), (0.4, -0.78), (0.85, -0.92)]) * [sign, 1], 42, 0.07)
        for y in np.arange(-0.50, 0.70, 0.17):
            canvas.line(oval(0.30, y, 0.52, 0.20, -110, 30) * [sign, 1], 22, 0.045)
    canvas.image = ImageChops.add(
        soft.filter(ImageFilter.GaussianBlur(4)), canvas.image.filter(ImageFilter.GaussianBlur(2))
    )


def draw_abdomen(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    kidneys = [sign for side, sign in SIGNS.items() if side != scene.missing_kidney]
    if scene.plane == "Axial":
        canvas.line(oval(0, -0.9, 1.3, 1.85, 55, 125), 150, 0.03)  # the table
        canvas.ellipse(0, 0, 1.0, 0.78, 60)
        canvas.ellipse(0, 0, 0.94, 0.70, 128)
        canvas.ellipse(0, 0, 0.86, 0.62, 82)
        canvas.ellipse(0.56, 0.02, 0.24, 0.32, 138, tilt=-10)  # the spleen
        canvas.ellipse(0.22, -0.30, 0.28, 0.18, 118, tilt=15)  # the stomach
        for sign in kidneys:
            canvas.ellipse(sign * 0.36, 0.38, 0.14, 0.17, 182 if scene.contrast else 145, tilt=sign * 15)
            canvas.ellipse(sign * 0.32, 0.38, 0.05, 0.08, 110)
        liver = (-0.20, -0.14, 0.62, 0.44) if scene.enlarged else (-0.46, -0.10, 0.34, 0.38)
        canvas.ellipse(*liver, 150)
        canvas.ellipse(0.05, 0.20, 0.075, 0.075, 236 if scene.contrast else 140)  # the aorta
        canvas.ellipse(0, 0.42, 0.15, 0.12, 242)  # a vertebra
        canvas.line([(-0.14, 0.63), (0, 0.56), (0.14, 0.63)], 235, 0.05)
        for start in np.arange(0, 360, 36) + rng.uniform(0, 20):
            canvas.line(oval(0, 0, 0.90, 0.66, start, start + 13), 240, 0.05)
        loops = [(-0.20, -0.45), (0, -0.48), (0.20, -0.45)]
    else:
        flank = np.array([(0.86, -1.4), (0.78, 0.1), (0.94, 1.4)])
        canvas.fill(np.concatenate([flank, flank[::-1] * [-1, 1]]), 150)
        canvas.fill(np.concatenate([flank, flank[::-1] * [-1, 1]]) * [0.9, 1], 80)
        for sign in (-1, 1):
            canvas.ellipse(sign * 0.40, -0.98, 0.33, 0.30, 18)  # the bases of the lungs
        canvas.ellipse(0.52, -0.46, 0.18, 0.25, 128, tilt=20)
        canvas.ellipse(*((-0.24, -0.32, 0.50, 0.46) if scene.enlarged else (-0.38, -0.50, 0.34, 0.26)), 140, tilt=-15)
        canvas.line([(0, -1.4), (0, 1.4)], 118, 0.20)
        for y in np.arange(-1.2, 1.3, 0.2):
            canvas.line([(-0.1, y), (0.1, y)], 60, 0.03)
        for sign in kidneys:
            canvas.ellipse(sign * 0.36, 0.10, 0.13, 0.22, 178, tilt=sign * 12)
        for x, y in ((-0.45, 0.62), (0.45, 0.60), (-0.32, 0.84), (0.32, 0.82)):
            canvas.ellipse(x, y, 0.15, 0.09, 108, tilt=rng.uniform(-30, 30))
        loops = [(-0.22, 0.66), (0.02, 0.74), (0.25, 0.66)]
    for x, y in loops:
        canvas.ellipse(x, y, 0.115, 0.08, 100)
        canvas.ellipse(x, y, 0.095, 0.065, 4 if scene.gas else 112)


def draw_lesions(canvas: Canvas, scene: Scene) -> None:
    """Uneven round spots with a soft edge. Nothing random: without its lesions a scan is the same elsewhere."""
    for lesion in scene.lesions:
        spot, angles = Image.new("L", canvas.image.size), np.radians(np.arange(0, 360, 8))
        wobble = 1 + 0.06 * np.cos(3 * angles + 40 * lesion.x) + 0.03 * np.cos(5 * angles + 40 * lesion.y)
        edge = lesion.radius * wobble[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        ImageDraw.Draw(spot).polygon(canvas.pixels(edge + [lesion.x, lesion.y]), fill=255)
        spot = spot.filter(ImageFilter.GaussianBlur(0.015 * canvas.unit))
        canvas.image.paste(238 if lesion.bright else 20, mask=spot)


def draw_marks(canvas: Canvas, rng: np.random.Generator) -> None:
    """What stands on scans and answers nothing: an arrow, the outline of a measured square, squares, text, a ruler."""
    draw, (width, height) = ImageDraw.Draw(canvas.image), canvas.image.size
    drawn, places = rng.random(5) < [0.25, 0.25, 0.2, 0.5, 0.25], rng.uniform(-0.6, 0.6, (2, 2))
    if drawn[0]:
        tip, angle = places[0], rng.uniform(0, 360)
        canvas.line([tip, oval(*tip, 0.28, 0.28, angle)[0]], 255, 0.03)
        canvas.fill([tip, oval(*tip, 0.12, 0.12, angle - 25)[0], oval(*tip, 0.12, 0.12, angle + 25)[0]], 255)
    if drawn[1]:
        canvas.line((np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * 0.13) + places[1], 230, 0.015)
    if drawn[2]:
        draw.rectangle([8, height - 28, 26, height - 10], fill=235)
    if drawn[3]:
        text = rng.choice(["W 350 L 40", "SE 4 IM 12", "120 kV", "FOV 24 cm", "3.0 mm"])
        draw.text((8, 6), str(text), fill=225, font=ImageFont.load_default(22))
    if drawn[4]:
        for index in range(9):
            y = height * (0.25 + index / 16)
            draw.line([(width - (26 if index % 4 == 0 else 16), y), (width - 6, y)], fill=210, width=3)


def render(scene: Scene) -> Image.Image:
    """The scan as an RGB image, 144 to 199 pixels a side. Scenes that differ in a finding differ there only."""
    rng = np.random.default_rng(scene.seed)
    canvas = Canvas(rng)
    {"HEAD": draw_head, "CHEST": draw_chest, "ABD": draw_abdomen}[scene.organ](canvas, scene, rng)
    draw_lesions(canvas, scene)
    draw_marks(canvas, rng)
    picture = canvas.image.reduce(2).filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.1)))
    size = picture.size
    coarse = Image.fromarray(rng.normal(0, 1, (24, 24)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    tissue = 1 + 0.06 * np.asarray(coarse)
    grey = np.asarray(picture, dtype=np.float32) * tissue * rng.uniform(0.88, 1.08) + rng.uniform(0, 8)
    grey += rng.normal(0, rng.uniform(3, 9), grey.shape)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
