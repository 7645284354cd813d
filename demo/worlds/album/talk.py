"""Conversations about one or two drawn scenes; each of their questions has one of the kinds in `KINDS`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo.worlds.scenes.queries import SIDES, targets
from demo.worlds.scenes.scene import COLOURS, SHAPES, Scene

ORDER = ("first", "second")
COUNTS = {2: "two", 3: "three"}  # figures on a picture


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    kind: str
    question: str
    answer: str


Asked = Callable[[list[Scene], np.random.Generator], Turn | None]  # None where the kind does not suit the pictures


def any_of(options: list, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def describe(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    """From left to right."""
    figures = sorted(scenes[0].figures, key=lambda figure: figure.x)
    return Turn("description", "Describe the picture.", ", ".join(f"{one.colour} {one.shape}" for one in figures))


def colour(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    figure = any_of(scenes[0].figures, rng)
    return Turn("colour", f"What colour is the {figure.shape}?", figure.colour)


def shape(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    figure = any_of(scenes[0].figures, rng)
    return Turn("shape", f"What shape is the {figure.colour} thing?", figure.shape)


def count(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    return Turn("count", "How many things are there?", COUNTS[len(scenes[0].figures)])


def colours(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    """In the order of the alphabet."""
    named = sorted(figure.colour for figure in scenes[0].figures)
    return Turn("colours", "Which colours are there?", " ".join(named))


def place(scenes: list[Scene], rng: np.random.Generator) -> Turn | None:
    found = targets(scenes[0], "place")
    if not found:
        return None
    figure, side = any_of(found, rng)
    return Turn("place", f"What colour is furthest to the {side}?", figure.colour)


def largest(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    figure, which = any_of(targets(scenes[0], "largest"), rng)
    return Turn("size", f"What colour is the {which} thing?", figure.colour)


def follow_up(scenes: list[Scene], before: Turn) -> Turn:
    """About what the answer before names by its colour."""
    figure = next(one for one in scenes[0].figures if one.colour == before.answer)
    return Turn("follow-up", "And what shape is it?", figure.shape)


def compare(scenes: list[Scene], rng: np.random.Generator) -> Turn | None:
    """What one of the two pictures has and the other has not."""
    colours = [{figure.colour for figure in scene.figures} for scene in scenes]
    names = sorted(colours[0] ^ colours[1])
    if not names:
        return None
    named = any_of(names, rng)
    return Turn("comparison", f"Which of the two pictures has something {named}?", ORDER[named in colours[1]])


def one_of_two(scenes: list[Scene], rng: np.random.Generator) -> Turn:
    number = int(rng.integers(2))
    figure, which = any_of(targets(scenes[number], "largest"), rng)
    return Turn("one of two", f"What colour is the {which} thing in the {ORDER[number]} picture?", figure.colour)


ALONE: dict[str, Asked] = {
    "description": describe,
    "colour": colour,
    "shape": shape,
    "count": count,
    "colours": colours,
    "place": place,
    "size": largest,
}
IN_TWO: dict[str, Asked] = {"comparison": compare, "one of two": one_of_two}
KINDS = (*ALONE, "follow-up", *IN_TWO)
NAMES_A_COLOUR = ("colour", "place", "size")
TELL_ALL = ("description", "colours")  # much of what could be asked later
LONGEST = 6  # turns


def converse(scenes: list[Scene], rng: np.random.Generator) -> list[Turn]:
    """One to six turns about one picture or two, each of another kind.

    The last one's kind is drawn first, so that all are as frequent; a "follow-up" asks about the answer before, and
    what would tell the answers to other questions comes last.
    """
    known = ALONE if len(scenes) == 1 else IN_TWO
    last = any_of([*known, "follow-up"] if known is ALONE else [*known], rng)
    before = any_of(NAMES_A_COLOUR, rng) if last == "follow-up" else None
    others = [kind for kind in known if kind not in (last, before, *TELL_ALL)]
    chosen = rng.permutation(others).tolist()[: rng.integers(LONGEST)]
    asked = [known[kind](scenes, rng) for kind in [*chosen, before or last]]
    turns = [turn for turn in asked if turn is not None]
    if before and turns and turns[-1].kind == before:
        turns.append(follow_up(scenes, turns[-1]))
    return turns or converse(scenes, rng)


PHRASES = (  # what questions are made of, beside words
    "You are a helpful assistant.",  # the chat template's
    "Describe the picture.",
    "What colour is the",
    "What shape is the",
    " thing?",
    "How many things are there?",
    "Which colours are there?",
    "What colour is furthest to the",
    "And what shape is it?",
    " in the",
    " picture?",
    "Which of the two pictures has something",
)


def all_words() -> list[str]:
    """What fills questions, and what answers are made of, for a tokenizer's vocabulary."""
    fillers = [*COLOURS, *SHAPES, *SIDES, *ORDER, "largest", "smallest"]
    answers = [f"{colour} {shape}, {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    answers += [*COLOURS, *SHAPES, *ORDER, *COUNTS.values()]
    return [*answers, *(f" {filler}" for filler in fillers), *(f" {filler}?" for filler in fillers)]
