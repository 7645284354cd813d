"""The queries about a drawn scene: each has one figure as its target and one of five kinds, `KINDS`."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from demo.worlds.scenes.scene import COLOURS, SHAPES, Figure, Scene

SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
MARGIN = 1 / 8  # how much further to a side than any other a centre has to be, in picture sizes
KINDS = {  # what a kind's queries can name
    "colour": list(COLOURS),
    "shape": list(SHAPES),
    "place": list(SIDES),
    "largest": ["largest", "smallest"],
    "colour and shape": [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES],
}
PHRASES = {
    "colour": ("the {} thing", "the thing that is {}"),
    "shape": ("the {}", "the thing that is a {}"),
    "place": ("the thing furthest to the {}", "the thing nearest to the {} edge"),
    "largest": ("the {} thing", "the thing that is {}"),
    "colour and shape": ("the {}", "the thing that is a {}"),
}
OPENINGS = ("Which of these", "Which thing here")
CLUES = {  # how a sentence goes on, without naming what it means
    "red": "has the colour of blood",
    "green": "has the colour of grass",
    "blue": "has the colour of the sea",
    "yellow": "has the colour of a lemon",
    "purple": "has the colour of a plum",
    "white": "has the colour of snow",
    "circle": "could roll down a slope",
    "bar": "is long and flat",
    "pole": "stands tall and thin",
    "cross": "looks like a plus sign",
    "left": "comes first from the left",
    "right": "comes first from the right",
    "top": "comes first from the top",
    "bottom": "comes first from the bottom",
    "largest": "takes up the most space",
    "smallest": "takes up the least space",
}
SENTENCES, PAIRS, CURLY = 1 / 4, 1 / 3, 1 / 16  # shares; of the last, about a third has a place for an apostrophe


@dataclass(frozen=True)
class Query:
    kind: str
    figure: Figure  # the target
    texts: tuple[str, ...]  # one, or two that mean the same
    is_sentence: bool


def curl(text: str) -> str:
    """With a typographic apostrophe, if there is a place for one: outside ASCII, and another byte in cp1252."""
    return text.replace("that is", "that’s")


def wordings(kind: str, value: str, is_sentence: bool) -> list[str]:
    if is_sentence:
        return [f"{opening} {CLUES.get(value, f'is a {value}')}?" for opening in OPENINGS]
    return [phrase.format(value) for phrase in PHRASES[kind]]


def all_queries() -> list[str]:
    """Every text that a query can have, for a tokenizer's vocabulary."""
    values = [(kind, value) for kind, values in KINDS.items() for value in values]
    texts = [text for kind, value in values for flag in (False, True) for text in wordings(kind, value, flag)]
    return list(dict.fromkeys(form for text in texts for form in (text, curl(text))))


def first_from(scene: Scene, side: str) -> Figure | None:
    """The figure furthest to a side, or None unless its centre is so by a margin and its outline is so as well."""
    across, down = SIDES[side]
    first, second, *_ = sorted(scene.figures, key=lambda figure: -across * figure.x - down * figure.y)
    outermost = max(scene.figures, key=lambda figure: max(across * x + down * y for x, y in figure.points))
    ahead = across * (first.x - second.x) + down * (first.y - second.y)
    return first if outermost is first and ahead >= MARGIN * scene.size else None


def targets(scene: Scene, kind: str) -> list[tuple[Figure, str]]:
    """The figures that a query of this kind can single out, each with the value that names it."""
    if kind == "place":
        firsts = [(first_from(scene, side), side) for side in SIDES]
        return [(figure, side) for figure, side in firsts if figure]
    if kind == "largest":
        return [(scene.figures[0], "largest"), (scene.figures[-1], "smallest")]
    names = {"colour": "{0.colour}", "shape": "{0.shape}", "colour and shape": "{0.colour} {0.shape}"}
    return [(figure, names[kind].format(figure)) for figure in scene.figures]


def ask(scene: Scene, rng: np.random.Generator) -> list[Query]:
    """Four queries of different kinds, which together ask about as many of the figures as they can."""
    candidates = {kind: targets(scene, kind) for kind in KINDS}
    # In one scene of six no figure is clearly the first from any side: leaving place out there balances the kinds.
    left_out = rng.choice([kind for kind in KINDS if kind != "place"]) if candidates["place"] else "place"
    kinds = sorted(KINDS.keys() - {left_out}, key=lambda kind: (len(candidates[kind]), kind))  # the least choice first
    queries, asked = [], Counter()
    for kind in kinds:
        fewest = min(asked[figure] for figure, _ in candidates[kind])
        pool = [(figure, value) for figure, value in candidates[kind] if asked[figure] == fewest]
        figure, value = pool[rng.integers(len(pool))]
        asked[figure] += 1
        is_sentence = bool(rng.random() < SENTENCES)
        count = 2 if rng.random() < PAIRS else 1
        texts = rng.permutation(wordings(kind, value, is_sentence)).tolist()[:count]
        if rng.random() < CURLY:
            texts = [curl(text) for text in texts]
        queries.append(Query(kind, figure, tuple(texts), is_sentence))
    return queries
