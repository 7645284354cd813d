"""One drawn photograph of a food package, with the place of every nutrition table in it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.worlds.packages.face import Rectangle, draw_face

# wall, desk
ROOMS = (((214, 206, 194), (150, 112, 78)), ((190, 204, 208), (206, 200, 190)), ((228, 222, 214), (120, 92, 70)))
ROOMS += (((168, 176, 170), (196, 164, 124)), ((210, 196, 200), (92, 84, 88)))


def draw_photo(rng: np.random.Generator) -> tuple[Image.Image, list[Rectangle]]:
    """An RGB photograph with sides of 120 to 400 pixels, and its tables' bounding boxes, top to bottom."""
    long = int(rng.integers(180, 401))
    short = max(120, int(long / rng.uniform(1.0, 1.48)))
    width, height = (long, short) if rng.random() < 0.35 else (short, long)
    photo = _room(rng, width, height)
    flat, tables = draw_face(rng, int(width * 1.15), int(height * 1.15))
    face = _shape(rng, flat)
    outline = np.array(((0, 0), (face.width, 0), (face.width, face.height), (0, face.height)), dtype=float)
    corners = _corners(rng, width, height)

    shadow = Image.new("L", photo.size)
    ImageDraw.Draw(shadow).polygon([(x + width * 0.02, y + height * 0.025) for x, y in corners], fill=150)
    photo.paste((30, 24, 20), mask=shadow.filter(ImageFilter.BoxBlur(width * 0.02)))
    backward = _homography(corners, outline).flatten()[:8]
    placed = face.transform(photo.size, Image.Transform.PERSPECTIVE, tuple(backward), Image.Resampling.BILINEAR)
    photo.paste(placed, mask=placed.getchannel("A"))

    forward = _homography(outline, corners)
    boxes = [_bounds(forward, table) for table in tables]
    return _expose(rng, photo), sorted(boxes, key=lambda box: (box[1], box[0]))


def _room(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    wall, desk = ROOMS[rng.integers(len(ROOMS))]
    horizon = rng.uniform(0.55, 0.9)
    rows = np.linspace(0, 1, height)[:, None]
    colour = np.where(rows < horizon, np.array(wall) * (0.85 + 0.25 * rows), np.array(desk) * (1.25 - 0.4 * rows))
    grain = 6 * np.sin(rows * rng.uniform(60, 200)) * (rows > horizon)
    pixels = np.broadcast_to((colour + grain)[:, None], (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _shape(rng: np.random.Generator, face: Image.Image) -> Image.Image:
    """Cut the outline of a box, a pouch or a tin (RGBA) and add its shading."""
    width, height = face.size
    across = np.linspace(-1, 1, width)
    kind = rng.integers(3)
    if kind == 0:
        light = np.linspace(1.06, 0.92, width)
    elif kind == 1:
        light = 1.06 - 0.3 * np.abs(across) ** 6
    else:
        light = 0.62 + 0.46 * np.sqrt(1 - 0.86 * across**2)
    shaded = np.asarray(face, dtype=np.float32) * light.astype(np.float32)[None, :, None]
    seam = max(3, int(0.035 * height))
    if kind == 1:  # crimped seams
        crimps = (0.8 + 0.25 * np.sin(np.arange(width) * 0.9))[None, :, None]
        shaded[:seam] *= crimps
        shaded[-seam:] *= crimps
    elif kind == 2:  # metal rims
        shaded[:seam] = shaded[-seam:] = 0.4 * shaded[:seam] + 110 * light[None, :, None]
    outline = Image.new("L", face.size)
    radius = int((0.01, 0.05, 0.03)[kind] * width)
    ImageDraw.Draw(outline).rounded_rectangle((1, 1, width - 2, height - 2), radius, fill=255)
    result = Image.fromarray(shaded.clip(0, 255).astype(np.uint8)).convert("RGBA")
    result.putalpha(outline)
    return result


def _expose(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Uneven light, a glare spot, a little blur and sensor noise."""
    width, height = photo.size
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.16)
    light = rng.uniform(0.82, 1.08) + float(slope * np.cos(angle)) * x + float(slope * np.sin(angle)) * y
    spot_x, spot_y = map(float, rng.uniform(-1, 1, 2))
    glare = float(rng.choice((0, 45))) * np.exp(-((x - spot_x) ** 2) / 0.12) * np.exp(-((y - spot_y) ** 2) / 0.12)
    noise = rng.uniform(0, 6) * rng.standard_normal((height, width), dtype=np.float32)
    tint = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    pixels = np.asarray(photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.1))), dtype=np.float32)
    pixels = pixels * light[..., None] * tint + (glare + noise)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _corners(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Where a package's four corners fall in the photograph: inset, turned a little, seen from a little aside."""
    left, top, right, bottom = rng.uniform(0.02, 0.09, 4) * (1, 1, -1, -1) + (0, 0, 1, 1)
    corners = np.array(((left, top), (right, top), (right, bottom), (left, bottom))) * (width, height)
    turn = np.deg2rad(rng.normal(0, 2.5))
    centre = np.array((width / 2, height / 2))
    corners = (corners - centre) @ np.array(((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn)))) + centre
    corners += rng.uniform(-0.03, 0.03, (4, 2)) * (width, height)
    return corners.clip((1, 1), (width - 2, height - 2))


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3x3 perspective map that takes four points to four points."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return np.append(np.linalg.solve(np.array(rows), target.flatten()), 1.0).reshape(3, 3)


def _bounds(forward: np.ndarray, table: Rectangle) -> Rectangle:
    left, top, right, bottom = table
    corners = np.array(((left, top, 1), (right, top, 1), (right, bottom, 1), (left, bottom, 1)))
    projected = corners @ forward.T
    x, y = (projected[:, :2] / projected[:, 2:]).T
    return x.min(), y.min(), x.max(), y.max()
