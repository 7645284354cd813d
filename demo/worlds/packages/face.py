"""The flat, printed side of a drawn food package: nutrition tables among everything else that is printed there."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rectangle = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels
Colour = tuple[int, int, int]

FACES = ((196, 58, 49), (236, 152, 42), (240, 200, 72), (88, 148, 76), (34, 110, 120), (52, 92, 160), (118, 72, 140))
FACES += ((222, 122, 146), (142, 92, 58), (238, 226, 198), (166, 204, 222), (44, 48, 60))
BRANDS = ("Solena", "Dorfgut", "Halden", "Mirabel", "Verde", "Kornhof", "Brisa", "Oh Oats", "Nordlys", "Pomona")
PRODUCTS = ("Muesli", "Crackers", "Yaourt", "Granola", "Biscuits", "Soup", "Choco", "Nudeln", "Pesto", "Chips")
TITLES = ("Nutrition Facts", "Nutrition", "Valeurs nutritives", "Durchschnittswerte", "Valori nutrizionali")
NUTRIENTS = ("Energy", "Fat", "saturates", "Carbohydrate", "sugars", "Fibre", "Protein", "Salt", "Calcium", "Iron")
INGREDIENTS = "Ingredients: wheat flour, sugar, oats, palm oil, cocoa, milk powder, salt, honey, hazelnuts, soy " * 9


def draw_face(rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, list[Rectangle]]:
    """An RGB picture of the size asked for, and the rectangles of its nutrition tables."""
    base, accent = (FACES[index] for index in rng.choice(len(FACES), 2, replace=False))
    ink = _readable_on(base)
    face = Image.new("RGB", (width, height), base)
    pen = ImageDraw.Draw(face)
    _pattern(rng, pen, _mix(base, accent, 0.25), width, height)

    header = rng.choice((0.04, 0.12, 0.17), p=(0.25, 0.4, 0.35)) * height
    if header > 0.1 * height:
        pen.rectangle((0, 0, width, header), fill=accent)
        brand = (0.06 * width, 0.15 * header, 0.6 * width, 0.9 * header)
        _fit_text(pen, brand, _pick(rng, BRANDS), _readable_on(accent))
    tables = _table_spots(rng, width, height, header)
    for table in tables:
        _table(rng, pen, table)

    taken = [(0.0, 0.0, float(width), header), *tables]
    distractors = ((_barcode, 0.32, 0.12), (_ingredients, 0.5, 0.2), (_logo, 0.22, 0.16), (_name, 0.5, 0.09))
    for index in rng.permutation(len(distractors)):
        draw, share_x, share_y = distractors[index]
        spot = _free_spot(rng, share_x * width, share_y * height, width, height, taken)
        if spot:
            draw(rng, pen, spot, ink)
            taken.append(spot)
    return face, tables


def _table_spots(rng: np.random.Generator, width: int, height: int, header: float) -> list[Rectangle]:
    """Below the header: one table, or, on one package in five, two or three below or beside each other."""
    count = int(rng.choice((1, 2, 3), p=(0.8, 0.16, 0.04)))
    stacked = rng.random() < 0.5
    low, high = ((0.4, 0.3), (0.88, 0.72))
    if count > 1:
        low, high = ((0.5, 0.6), (0.8, 0.74)) if stacked else ((0.74, 0.4), (0.92, 0.62))
    across, down = rng.uniform(low, high) * (width, height)
    left = rng.uniform(0.04 * width, 0.96 * width - across)
    top = rng.uniform(header + 0.03 * height, 0.95 * height - down)
    gap = 0.03 * height
    cuts = np.arange(1, count) / count + rng.uniform(-0.08, 0.08, count - 1)
    edges = np.concatenate(((0.0,), cuts, (1.0,)))
    if stacked:
        spans = [(top + down * a + gap * (a > 0), top + down * b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        return [(left, start, left + across, end) for start, end in spans]
    spans = [
        (left + across * a + gap * (a > 0), left + across * b) for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    return [(start, top, end, top + down) for start, end in spans]


def _free_spot(
    rng: np.random.Generator, across: float, down: float, width: int, height: int, taken: list[Rectangle]
) -> Rectangle | None:
    """Somewhere no taken rectangle is touched, smaller if need be; None if the face is full."""
    gap = 0.02 * width
    for attempt in range(40):
        share = rng.uniform(0.75, 1.15) * (1 if attempt < 20 else 0.7)
        left, top = rng.uniform((gap, gap), (width - share * across - gap, 0.95 * height - share * down))
        spot = (left, top, left + share * across, top + share * down)
        if not any(_overlap(spot, other, gap) for other in taken):
            return spot
    return None


def _overlap(one: Rectangle, other: Rectangle, gap: float) -> bool:
    beside = one[2] + gap < other[0] or other[2] + gap < one[0]
    above = one[3] + gap < other[1] or other[3] + gap < one[1]
    return not (beside or above)


def _table(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle) -> None:
    left, top, right, bottom = spot
    paper, ink = ((252, 250, 244), (22, 22, 24)) if rng.random() < 0.8 else ((244, 234, 206), (64, 40, 24))
    rows = int(np.clip((bottom - top) / rng.uniform(11, 16), 4, len(NUTRIENTS)))
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
        pen.text((left + 4, y + 1), NUTRIENTS[row], fill=ink, font=font)
        pen.text((right - 4, y + 1), f"{rng.uniform(0, 60):.1f} g", fill=ink, font=font, anchor="ra")


def _ingredients(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle, ink: Colour) -> None:
    left, top, right, bottom = spot
    font = _font(int(rng.integers(7, 11)))
    columns = max(6, int((right - left) / (font.size * 0.52)))
    for line, y in enumerate(np.arange(top, bottom - font.size, font.size * 1.25)):
        pen.text((left, y), INGREDIENTS[line * columns : (line + 1) * columns], fill=ink, font=font)


def _barcode(rng: np.random.Generator, pen: ImageDraw.ImageDraw, spot: Rectangle, ink: Colour) -> None:
    left, top, right, bottom = spot
    pen.rectangle(spot, fill=(255, 255, 255))
    x, foot = round(left) + 4, max(top + 4, bottom - 0.2 * (bottom - top))
    while x < right - 5:
        bar = int(rng.integers(1, 4))
        pen.rectangle((x, top + 3, x + bar - 1, foot), fill=(12, 12, 12))
        x += bar + int(rng.integers(1, 4))
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


def _pattern(rng: np.random.Generator, pen: ImageDraw.ImageDraw, soft: Colour, width: int, height: int) -> None:
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
