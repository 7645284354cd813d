"""One drawn photograph of a food package, with the place of every nutrition table on it."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Rectangle = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels
Colour = tuple[int, int, int]

FACES = ((196, 58, 49), (236, 152, 42), (240, 200, 72), (88, 148, 76), (34, 110, 120), (52, 92, 160), (118, 72, 140))
FACES += ((222, 122, 146), (142, 92, 58), (238, 226, 198), (166, 204, 222), (44, 48, 60))
ROOMS = (((214, 206, 194), (150, 112, 78)), ((190, 204, 208), (206, 200, 190)), ((228, 222, 214), (120, 92, 70)))
ROOMS += (((168, 176, 170), (196, 164, 124)), ((210, 196, 200), (92, 84, 88)))
BRANDS = ("Solena", "Dorfgut", "Halden", "Mirabel", "Verde", "Kornhof", "Brisa", "Oh Oats", "Nordlys", "Pomona")
PRODUCTS = ("Muesli", "Crackers", "Yaourt", "Granola", "Biscuits", "Soup", "Choco", "Nudeln", "Pesto", "Chips")
TITLES = (
    "Nutrition Facts",
    "Nutrition",
    "Valeurs nutritives",
    "Durchschnittswerte",
    "Valori nutrizionali",
    "Voedingswaarde",
)
NUTRIENTS = ("Energy", "Fat", "saturates", "Carbohydrate", "sugars", "Fibre", "Protein", "Salt", "Calcium", "Iron")
INGREDIENTS = "Ingredients: wheat flour, sugar, oats, palm oil, cocoa, milk powder, salt, honey, hazelnuts, soy "


def draw_photo(rng: np.random.Generator) -> tuple[Image.Image, list[Rectangle]]:
    """An RGB photograph with sides of 120 to 400 pixels, and its tables' bounding boxes in reading order."""
    long = int(rng.integers(190, 401))
    short = int(np.clip(long * rng.uniform(0.55, 1.0), 120, 400))
    width, height = (long, short) if rng.random() < 0.4 else (short, long)
    photo = _room(rng, width, height)
    face, tables = _face(rng, int(width * 1.15), int(height * 1.15))
    corners = _corners(rng, width, height)
    forward = _homography(_outline(face.width, face.height), corners)

    shadow = Image.new("L", photo.size)
    ImageDraw.Draw(shadow).polygon([(x + width * 0.02, y + height * 0.025) for x, y in corners], fill=150)
    photo.paste((30, 24, 20), mask=shadow.filter(ImageFilter.BoxBlur(width * 0.02)))
    backward = _homography(corners, _outline(face.width, face.height)).flatten()[:8]
    placed = face.transform(photo.size, Image.Transform.PERSPECTIVE, tuple(backward), Image.Resampling.BICUBIC)
    photo.paste(placed, mask=placed.getchannel("A"))

    boxes = [_bounds(forward, table, width, height) for table in tables]
    return _expose(rng, photo), sorted(boxes, key=lambda box: (box[1], box[0]))


def _room(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    wall, desk = ROOMS[rng.integers(len(ROOMS))]
    horizon = rng.uniform(0.55, 0.9)
    rows = np.linspace(0, 1, height)[:, None]
    colour = np.where(rows < horizon, np.array(wall) * (0.85 + 0.25 * rows), np.array(desk) * (1.25 - 0.4 * rows))
    grain = 6 * np.sin(rows * rng.uniform(60, 200)) * (rows > horizon)
    pixels = np.broadcast_to((colour + grain)[:, None], (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _face(rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, list[Rectangle]]:
    """The flat, printed side of a package: RGBA, and the rectangles of its tables."""
    base = FACES[rng.integers(len(FACES))]
    accent = FACES[rng.integers(len(FACES))]
    ink = _readable_on(base)
    face = Image.new("RGB", (width, height), base)
    pen = ImageDraw.Draw(face)
    _pattern(rng, pen, base, accent, width, height)

    header = 0.14 * height
    pen.rectangle((0, 0, width, header), fill=accent)
    _fit_text(pen, (0.06 * width, 0.1 * header, 0.6 * width, 0.9 * header), _pick(rng, BRANDS), _readable_on(accent))
    taken: list[Rectangle] = [(0, 0, width, header)]

    tables = _table_spots(rng, width, height, taken)
    for table in tables:
        _table(rng, pen, table)
    taken += tables
    others = ((_ingredients, 0.5, 0.22), (_barcode, 0.34, 0.13), (_logo, 0.24, 0.18), (_name, 0.55, 0.1))
    for draw, share_x, share_y in others:
        grow = rng.uniform(0.75, 1.15)
        spot = _free_spot(rng, (share_x * grow * width, share_y * grow * height), (width, height), taken, tries=25)
        if spot:
            draw(rng, pen, spot, ink)
            taken.append(spot)
    return _shape(rng, face), tables


def _table(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle) -> None:
    left, top, right, bottom = spot
    paper, ink = ((252, 250, 244), (22, 22, 24)) if rng.random() < 0.8 else ((244, 234, 206), (64, 40, 24))
    rows = int(np.clip((bottom - top) / rng.uniform(11, 16), 4, len(NUTRIENTS) + 1))
    step = (bottom - top) / (rows + 1)
    pen.rectangle(spot, fill=paper, outline=ink, width=2)
    pen.rectangle((left, top, right, top + step), fill=ink)
    _fit_text(pen, (left + 4, top + 1, right - 4, top + step - 1), _pick(rng, TITLES), paper)
    middle = left + (right - left) * rng.uniform(0.58, 0.68)
    if rng.random() < 0.6:
        pen.line((middle, top + step, middle, bottom), fill=ink)
    font = _font(max(6, int(min(step * 0.72, (right - left) * 0.085))))
    for row in range(rows):
        y = top + step * (row + 1)
        pen.line((left, y, right, y), fill=ink)
        pen.text((left + 4, y + 1), NUTRIENTS[row % len(NUTRIENTS)], fill=ink, font=font)
        pen.text((right - 4, y + 1), f"{rng.uniform(0, 60):.1f} g", fill=ink, font=font, anchor="ra")


def _ingredients(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle, ink: Colour) -> None:
    left, top, right, bottom = spot
    font = _font(int(rng.integers(7, 11)))
    columns = max(6, int((right - left) / (font.size * 0.52)))
    start = 0
    for y in np.arange(top, bottom - font.size, font.size * 1.25):
        line = (INGREDIENTS * 9)[start : start + columns]
        pen.text((left, y), line, fill=ink, font=font)
        start += columns


def _barcode(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle, ink: Colour) -> None:
    left, top, right, bottom = spot
    pen.rectangle(spot, fill=(255, 255, 255))
    x, foot = round(left) + 4, max(top + 4, bottom - 0.2 * (bottom - top))
    while x < right - 5:
        bar = rng.integers(1, 4)
        pen.rectangle((x, top + 3, x + bar - 1, foot), fill=(12, 12, 12))
        x += bar + rng.integers(1, 4)
    _fit_text(pen, (left + 4, foot, right - 4, bottom), "2 401837 550914", (12, 12, 12))


def _logo(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle, ink: Colour) -> None:
    left, top, right, bottom = spot
    x, y, r = (left + right) / 2, (top + bottom) / 2, min(right - left, bottom - top) / 2
    fruit = FACES[rng.integers(7)]
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(250, 246, 236))
    pen.ellipse((x - 0.62 * r, y - 0.45 * r, x + 0.62 * r, y + 0.75 * r), fill=fruit)
    pen.ellipse((x - 0.35 * r, y - 0.25 * r, x - 0.05 * r, y + 0.05 * r), fill=_mix(fruit, (255, 255, 255), 0.5))
    pen.polygon(((x, y - 0.4 * r), (x + 0.5 * r, y - 0.85 * r), (x + 0.3 * r, y - 0.4 * r)), fill=(70, 130, 60))


def _name(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle, ink: Colour) -> None:
    _fit_text(pen, spot, _pick(rng, PRODUCTS), ink)


def _pattern(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, base: Colour, accent: Colour, width: int, height: int
) -> None:
    soft = _mix(base, accent, 0.25)
    kind = rng.integers(4)
    if kind == 0:
        for x in range(-height, width, int(rng.integers(24, 60))):
            pen.line((x, height, x + height, 0), fill=soft, width=8)
    elif kind == 1:
        for x, y in rng.uniform((0, 0), (width, height), (24, 2)):
            pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=soft)
    elif kind == 2:
        y = height * rng.uniform(0.5, 0.75)
        pen.ellipse((-0.4 * width, y, 1.4 * width, y + height), fill=soft)


def _shape(rng: np.random.Generator, face: Image.Image) -> Image.Image:
    """Cut the outline and add the shading of a box, a pouch or a tin."""
    width, height = face.size
    across = np.linspace(-1, 1, width)
    kind = rng.integers(3)
    if kind == 0:
        light = np.linspace(1.06, 0.92, width)
    elif kind == 1:
        light = 1.06 - 0.3 * np.abs(across) ** 6
    else:
        light = 0.62 + 0.46 * np.sqrt(1 - 0.86 * across**2)
    shaded = np.asarray(face) * light[None, :, None]
    if kind:  # a pouch's crimped seams, a tin's rims
        seam = max(3, int(0.035 * height))
        stripes = 0.8 + 0.25 * np.sin(np.arange(width) * 0.9) if kind == 1 else np.full(width, 1.0)
        metal = (1.0 if kind == 1 else 0.4) * shaded[:seam] + (0 if kind == 1 else 110) * light[None, :, None]
        shaded[:seam] = shaded[-seam:] = metal * stripes[None, :, None]
    outline = Image.new("L", face.size)
    radius = int((0.01, 0.05, 0.03)[kind] * width)
    ImageDraw.Draw(outline).rounded_rectangle((1, 1, width - 2, height - 2), radius, fill=255)
    result = Image.fromarray(shaded.clip(0, 255).astype(np.uint8)).convert("RGBA")
    result.putalpha(outline)
    return result


def _expose(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Uneven light, a glare spot, a little blur and sensor noise."""
    width, height = photo.size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.82, 1.08) + rng.uniform(0, 0.16) * (np.cos(angle) * x + np.sin(angle) * y)
    spot_x, spot_y = rng.uniform(-1, 1, 2)
    glare = rng.choice((0, 45)) * np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / 0.12)
    tint = rng.uniform(0.94, 1.06, 3)
    blurred = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.1)))
    noise = rng.normal(0, rng.uniform(0, 6), (height, width, 1))
    pixels = np.asarray(blurred) * light[..., None] * tint + glare[..., None] + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _corners(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Where a package's four corners fall in the photograph: inset, turned a little, seen from a little aside."""
    inset = rng.uniform(0.04, 0.13, 4)
    left, top, right, bottom = inset * (1, 1, -1, -1) + (0, 0, 1, 1)
    corners = np.array(((left, top), (right, top), (right, bottom), (left, bottom))) * (width, height)
    turn = np.deg2rad(rng.normal(0, 3.0))
    centre = np.array((width / 2, height / 2))
    turned = (corners - centre) @ np.array(((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn)))) + centre
    turned += rng.uniform(-0.035, 0.035, (4, 2)) * (width, height)
    return turned.clip((1, 1), (width - 2, height - 2))


def _outline(width: int, height: int) -> np.ndarray:
    return np.array(((0, 0), (width, 0), (width, height), (0, height)), dtype=float)


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3x3 perspective map that takes four points to four points."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return np.append(np.linalg.solve(np.array(rows), target.flatten()), 1.0).reshape(3, 3)


def _bounds(forward: np.ndarray, table: Rectangle, width: int, height: int) -> Rectangle:
    left, top, right, bottom = table
    corners = np.array(((left, top, 1), (right, top, 1), (right, bottom, 1), (left, bottom, 1)))
    projected = corners @ forward.T
    x, y = (projected[:, :2] / projected[:, 2:]).T
    return max(0.0, x.min()), max(0.0, y.min()), min(width, x.max()), min(height, y.max())


def _table_spots(rng: np.random.Generator, width: int, height: int, taken: list[Rectangle]) -> list[Rectangle]:
    """Places for one table, or for two or three on one package in five: smaller and smaller until all fit."""
    count = rng.choice((1, 2, 3), p=(0.8, 0.16, 0.04))
    shrink = (1.0, 0.8, 0.65)[count - 1]
    while True:
        spots: list[Rectangle] = []
        for _ in range(count):
            size = rng.uniform((0.42, 0.36), (0.78, 0.62)) * (width, height) * shrink
            spot = _free_spot(rng, size, (width, height), taken + spots, tries=30)
            if spot:
                spots.append(spot)
        if len(spots) == count:
            return spots
        shrink *= 0.93


def _free_spot(
    rng: np.random.Generator,
    size: tuple[float, float],
    face: tuple[int, int],
    taken: list[Rectangle],
    *,
    tries: int,
) -> Rectangle | None:
    gap = 0.02 * face[0]
    room = (face[0] - size[0] - gap, 0.95 * face[1] - size[1])
    for _ in range(tries):
        left, top = rng.uniform((gap, gap), room)
        spot = (left, top, left + size[0], top + size[1])
        if not any(_overlap(spot, other, gap) for other in taken):
            return spot
    return None


def _overlap(one: Rectangle, other: Rectangle, gap: float) -> bool:
    beside = one[2] + gap < other[0] or other[2] + gap < one[0]
    above = one[3] + gap < other[1] or other[3] + gap < one[1]
    return not (beside or above)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fit_text(pen: ImageDraw.ImageDraw, spot: Rectangle, text: str, ink: Colour) -> None:
    left, top, right, bottom = spot
    font = _font(max(6, int((bottom - top) * 0.85)))
    if font.getlength(text) > right - left:
        font = _font(max(6, int(font.size * (right - left) / font.getlength(text))))
    pen.text((left, (top + bottom) / 2), text, fill=ink, font=font, anchor="lm", stroke_width=0.3)


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def _readable_on(colour: Colour) -> Colour:
    return (34, 30, 30) if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else (250, 246, 238)
