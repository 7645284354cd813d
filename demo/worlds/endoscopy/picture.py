"""Draws a `Scene` as an endoscopy frame: mucosa, findings, instruments, light, the dark surround and its marks."""

from dataclasses import replace
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from demo.worlds.endoscopy.canvas import SCALE, Canvas, Colour, Field, cover
from demo.worlds.endoscopy.scene import (
    HEAD,
    HEIGHT,
    LANDMARK,
    PATCH,
    ROD,
    SCAR,
    WIDTH,
    Instrument,
    Polyp,
    Scene,
    Spot,
)

MUCOSA = {"colonoscopy": (200, 104, 98), "gastroscopy": (186, 126, 72)}
METAL = {"polyp snare": (190, 222, 255), "biopsy forceps": (70, 84, 120), "metal clip": (130, 160, 210)}
STEEL, IVORY, EDGE = (232, 236, 240), (250, 250, 235), (30, 30, 36)
STROKES = {  # (forward, sideward) from the middle of the head to the same, half a width, colour
    "biopsy forceps": [((-2, 2), (4, 6), 2, METAL["metal clip"]), ((4, 6), (8, 3.5), 2, METAL["metal clip"])],
    "metal clip": [((-6, 0), (-2, 0), 3.6, (236, 148, 30)), ((-1, 1.5), (8, 5), 1.2, STEEL)],
}
DARK, OUTLINE, CREAM, CLIP, SHINE = (22, 8, 8), (58, 10, 18), (238, 214, 190), (20, 190, 170), (255, 248, 242)
TEXTS = ("ID 24", "07:42", "A 108", "F 63y", "Ce: 3")
CHORD = 0.25  # from the middle of a disc, in radii: it cuts off 0.34 of it (`endoscopy_scene.CAP`)


def draw_mucosa(scene: Scene, rng: np.random.Generator) -> Canvas:
    """Rings of folds in the colon, long folds in the stomach; on them vessels and two wet highlights."""
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    y, x = (np.indices(size[::-1], dtype=np.float32) + 0.5) / SCALE
    mucosa = (np.array(MUCOSA[scene.procedure]) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    middle_x, middle_y, angle, phase = rng.uniform((40, 30, 0, 0), (100, 82, pi, 2 * pi)).tolist()
    along = (x - middle_x) * cos(angle) + (y - middle_y) * sin(angle)
    across = (y - middle_y) * cos(angle) - (x - middle_x) * sin(angle)
    if scene.procedure == "colonoscopy":
        wave = 1.2 * np.sin(np.hypot(along, 1.4 * across) / 5.5 + phase)
    else:
        wave = 1 - 1.6 * np.abs(np.sin(across / 8 + 1.2 * np.sin(along / 19 + phase) + phase))
    coarse = Image.fromarray(rng.normal(0, 1, (16, 20)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    light = 1 + 0.06 * wave + 0.03 * np.asarray(coarse)
    canvas, vessels = Canvas(light[..., None] * mucosa, x, y, mucosa, scene.easy), Image.new("L", size)
    for x, y, turn in rng.uniform((10, 5, 0), (130, 107, 2 * pi), (7, 3)):
        turns = turn + np.cumsum(rng.normal(0, 0.35, 14))
        points = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * 3.2, axis=0) + (x, y)
        ImageDraw.Draw(vessels).line([tuple(point) for point in (points * SCALE).tolist()], fill=255, width=2)
    vessels = np.asarray(vessels.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    canvas.paint(0.3 / 255 * vessels, mucosa * (0.72, 0.5, 0.5))
    for x, y, turn in rng.uniform((20, 12, 0), (120, 100, pi), (2, 3)).tolist():
        window, stop = canvas.around(Spot(x, y), 8), (x + 2.5 * cos(turn), y + 2.5 * sin(turn))
        window.paint(0.85 * cover(window.segment((x, y), stop) - 1.2, 2.6), SHINE)
    return canvas


def draw_landmark(canvas: Canvas, spot: Spot, procedure: str) -> None:
    """A dark opening in a pale rim: the pylorus is round, the caecum's is a crescent."""
    canvas = canvas.around(spot, LANDMARK + 4)
    middle, hole = canvas.circle(spot.x, spot.y), canvas.circle(spot.x, spot.y, 0.66 * LANDMARK)
    if procedure == "colonoscopy":
        hole = np.maximum(canvas.circle(spot.x, spot.y, 0.85 * LANDMARK), 8 - canvas.circle(spot.x, spot.y - 7))
    canvas.paint(0.6 * cover(middle - LANDMARK, 5), canvas.mucosa * 0.6)
    canvas.paint(0.8 * cover(np.abs(middle - 0.88 * LANDMARK) - 1.5, 2), canvas.mucosa * 1.25)
    canvas.paint(cover(hole, 2), DARK)


def draw_patch(canvas: Canvas, spot: Spot, scene: Scene) -> None:
    """A field of red speckles for colitis; a pale star of tongues for Barrett's mucosa."""
    rng, canvas = np.random.default_rng([scene.seed, 1]), canvas.around(spot, PATCH + 4)
    if scene.procedure == "colonoscopy":
        canvas.paint(0.35 * cover(canvas.circle(spot.x, spot.y, PATCH), 4), canvas.mucosa * (0.95, 0.6, 0.6))
        shape, colour = np.inf, "red"
        for index, turn in enumerate(rng.uniform(-0.3, 0.3, 34)):  # a sunflower's spiral spreads them evenly
            far, angle = (PATCH - 2) * ((index + 0.5) / 34) ** 0.5, 2.39996 * index + turn
            shape = np.minimum(shape, canvas.circle(spot.x + far * cos(angle), spot.y + far * sin(angle), 2))
    else:
        turn = 7 * np.arctan2(canvas.y - spot.y, canvas.x - spot.x) + rng.uniform(0, 2 * pi)
        tongues = np.arcsin(np.sin(turn)) / (pi / 2)
        shape, colour = canvas.circle(spot.x, spot.y, 0.84 * PATCH) - 0.16 * PATCH * tongues, "flesh"
    if scene.easy:
        canvas.paint(cover(np.abs(shape) - 0.9), OUTLINE)
    canvas.find(shape, colour)


def draw_scar(canvas: Canvas, spot: Spot) -> None:
    """A pale ring with a clip in it."""
    canvas = canvas.around(spot, SCAR + 2)
    canvas.paint(cover(np.abs(canvas.circle(spot.x, spot.y, SCAR - 1.8)) - 1.8, 1.5), CREAM)
    canvas.paint(cover(canvas.circle(spot.x, spot.y, 4)), CLIP)
    canvas.paint(0.8 * cover(canvas.segment((spot.x - 2, spot.y + 2), (spot.x + 2, spot.y - 2)) - 0.6), STEEL)


def draw_polyp(canvas: Canvas, polyp: Polyp, scene: Scene) -> None:
    """A shaded, not quite round blob, with the second colour on one side of a chord."""
    (wide, high), radius, turn = polyp.axes, polyp.radius, scene.seed % 628 / 100
    canvas = canvas.around(polyp, wide + polyp.stalk + 6)
    u, v = (canvas.x - polyp.x) / wide, (canvas.y - polyp.y) / high
    angle = np.arctan2(v, u)
    edge = 1 + 0.04 * np.cos(3 * angle + polyp.x) + 0.02 * np.cos(5 * angle + polyp.y)
    shape = (np.hypot(u, v) - edge) * min(wide, high)
    shadow = (np.hypot(u - 2 / wide, v - 2.5 / high) - edge) * min(wide, high)
    canvas.paint((0.45 if scene.easy else 0.2) * cover(shadow, 6), DARK)
    if polyp.kind == "paris ip":
        foot = (polyp.x, polyp.y + 0.62 * radius + polyp.stalk)
        stalk = canvas.segment((polyp.x, polyp.y), foot) - 0.38 * radius
        canvas.paint(cover(stalk - 0.8), OUTLINE if scene.easy else canvas.mucosa * 0.65)
        canvas.paint(cover(stalk + 0.8), canvas.mucosa * (0.75, 0.55, 0.55))
    if scene.easy:
        canvas.paint(cover(np.abs(shape) - 1.2), OUTLINE)
    light = 1.03 - 0.13 * (u + v) - 0.12 * np.minimum(u**2 + v**2, 1)
    canvas.find(shape, scene.polyp_colours[0], light)
    if len(scene.polyp_colours) == 2:
        beyond = (CHORD - u * cos(turn) - v * sin(turn)) * radius
        canvas.find(np.maximum(shape, beyond), scene.polyp_colours[1], light)
    gloss = canvas.circle(polyp.x - 0.4 * wide, polyp.y - 0.4 * high, 0.1 * radius)
    canvas.paint(0.7 * cover(gloss, 0.2 * radius), SHINE)


def draw_instrument(canvas: Canvas, instrument: Instrument) -> None:
    """A metal rod from the edge, with a loop, open jaws or a two-pronged clip at its end."""
    ahead, aside = -cos(instrument.angle), -sin(instrument.angle)
    # Coordinates whose x points forward along the rod and whose origin is the middle of the head.
    x, y = canvas.x - instrument.x, canvas.y - instrument.y
    canvas = replace(canvas, x=x * ahead + y * aside, y=y * ahead - x * aside)

    def stroke(distance: Field, half: float, colour: Colour) -> None:
        canvas.paint(cover(distance - half - 0.8), EDGE)
        canvas.paint(cover(distance - half), colour)

    light = 1.12 - 0.03 * (canvas.y - 1.2) ** 2
    if instrument.name == "biopsy forceps":  # a coiled sheath
        light = light * (0.88 + 0.22 * np.sin(1.9 * canvas.x))
    metal = np.array(METAL[instrument.name], dtype=np.float32) * light[..., None]
    stroke(canvas.segment((-90, 0), (-HEAD if instrument.name == "polyp snare" else -3, 0)), ROD - 1, metal)
    if instrument.name == "polyp snare":
        stroke(0.8 * HEAD * np.abs(np.hypot(canvas.x / HEAD, canvas.y / (0.72 * HEAD)) - 1), 1.1, IVORY)
    else:
        canvas = replace(canvas, y=np.abs(canvas.y))  # both sides at once
        for start, stop, half, colour in STROKES[instrument.name]:
            stroke(canvas.segment(start, stop), half, colour)


def draw_marks(picture: Image.Image, scene: Scene) -> None:
    """White letters in the upper left corner, and in the lower left one the box of a position finder."""
    draw, rng = ImageDraw.Draw(picture), np.random.default_rng([scene.seed, 2])
    wave, number = rng.uniform(-4, 4, 6), rng.integers(10, 99)
    if scene.text:
        text, font = f"{rng.choice(TEXTS)}\n{number}", ImageFont.load_default(19)
        draw.text((3, 0), text, (255, 255, 255), font, spacing=0, stroke_width=0.4)
    if scene.box:
        top = HEIGHT - 32
        draw.rectangle([SCALE * side for side in (2, top, 32, HEIGHT - 2)], (4, 16, 8), (0, 150, 60), 2)
        x, y = np.array([(24, 27, 17, 8, 7, 16), (26, 12, 5, 7, 18, 20)]) * SCALE + (wave, wave[::-1])
        draw.line(list(zip(x.tolist(), (y + SCALE * top).tolist(), strict=True)), (30, 230, 90), 6, joint="curve")


def render(scene: Scene) -> Image.Image:
    """The frame as an RGB image of 280x224 pixels. Scenes that differ in a finding differ there only."""
    rng = np.random.default_rng(scene.seed)
    canvas = draw_mucosa(scene, rng)
    if scene.landmark:
        draw_landmark(canvas, scene.landmark, scene.procedure)
    if scene.patch:
        draw_patch(canvas, scene.patch, scene)
    if scene.scar:
        draw_scar(canvas, scene.scar)
    for polyp in scene.polyps:
        draw_polyp(canvas, polyp, scene)
    for instrument in scene.instruments:
        draw_instrument(canvas, instrument)
    across, down = np.abs(canvas.x - WIDTH / 2), np.abs(canvas.y - HEIGHT / 2)
    far, bright = np.hypot(across, down), float(rng.uniform(1.0, 1.1))
    corners = (across + down - 90) / 2**0.5 if rng.random() < 0.5 else far - 66  # an octagon, or round
    inside = cover(np.maximum(corners, np.maximum(across - 67, down - 54)), 2)
    canvas.pixels *= (inside * (bright - 4e-5 * far**2) + (1 - inside) * 0.03)[..., None]  # light falls off
    canvas.pixels += 2.5 * rng.standard_normal((*canvas.x.shape, 1), dtype=np.float32)
    picture = Image.fromarray(canvas.pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5))
    draw_marks(picture, scene)
    return picture
