"""Questions about a drawn laparoscopy frame in SSG-VQA's wordings; each answer follows from the scene graph."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np

from demo.worlds.laparoscopy.scene import (
    ANATOMY,
    COLOURS,
    COLOURS_OF,
    INSTRUMENTS,
    PLACES,
    Scene,
    Thing,
    acts_on,
)

VALUES = {  # what a phrase can name of a thing, in the order of its words
    "colour": list(COLOURS),
    "place": PLACES,
    "component": [*ANATOMY, *INSTRUMENTS],
    "type": ["anatomy", "instrument"],
}
ONE = (("colour",), ("component",), ("place",))
TWO = (("colour", "type"), ("place", "type"), ("colour", "component"), ("colour", "place"))
COUNTED = ((), ("type",), *ONE, *ONE[:2], *TWO[:2])  # the parts named of what is counted or looked for
RELATED = (*[()] * 4, *COUNTED)  # the parts named of a thing that a relation singles out
MEANT = (*ONE, *ONE, *TWO, ("place", "component", "type"))  # the parts named of a thing that no other may fit
RELATIONS = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "top": ("above",),
    "bottom": ("below",),
}
TEMPLATES = {  # upstream's slips are kept: "a anatomy", "anatomys", "?;"
    "zero_hop": {
        "count": ("How many {x}s are there?", "What number of {x}s are there?"),
        "exist": ("Are there any {x}s?", "Is there a {x}?"),
        "query_color": ("What color is the {x}?", "The {x} is what color?", "There is a {x}; what color is it?"),
        "query_type": ("What type is the {x}?", "The {x} is what type?", "There is a {x}; what type is it?"),
        "query_component": ("There is a {x}; what is it?", "There is a {x}; what name is it?"),
    },
    "one_hop": {
        "count": ("What number of {x}s are {r} the {y}?", "There is a {y}; how many {x}s are {r} it?"),
        "exist": ("Are there any {x}s {r} the {y}?", "There is a {y}; are there any {x}s {r} it?"),
        "query_color": ("The {x} {r} the {y} is what color?", "The {x} that is {r} the {y} is what color?"),
        "query_type": ("The {x} {r} the {y} is what type?", "What type is the {x} that is {r} the {y}?"),
        "query_component": (
            "There is a {x} {r} the {y}; what is it?",
            "There is a {x} that is {r} the {y}; what is it?",
        ),
    },
    "single_and": {
        "count": ("What number of {x}s are {r} the {y} and {q} the {z}?",),
        "exist": ("Are there any {x}s {r} the {y} and {q} the {z}?",),
        "query_color": ("What color is the {x} that is both {r} the {y} and {q} the {z}?",),
        "query_type": ("What type is the {x} that is both {r} the {y} and {q} the {z}?",),
        "query_component": ("There is a {x} that is {r} the {y} and {q} the {z}?; what name is it?",),
    },
}
SHARES = {  # how many of a kind are tried for in a frame; the order is that of a file
    "single_and": {"count": 1.5, "exist": 1, "query_color": 0.5, "query_component": 0.5, "query_type": 0.5},
    "zero_hop": {"count": 7, "exist": 8, "query_color": 4.5, "query_component": 3.5, "query_type": 2.5},
    "one_hop": {"count": 3, "exist": 3.5, "query_color": 1, "query_component": 1, "query_type": 2},
}
SOUGHT = {  # the answers to look for, each as often, so that none is much more frequent than the others of its kind
    "count": ["0", "1", "2"] * 3 + ["3"],
    "exist": ["True", "False"],
    "query_type": VALUES["type"],
}
TRIES = 25
ACTIONS = {
    "grasper": ("grasp", "grasped"),
    "hook": ("dissect", "dissected"),
    "irrigator": ("irrigate", "irrigated"),
}

KINDS = [  # of things that can be drawn
    {"colour": colour, "place": place, "component": component, "type": name}
    for name, components in (("anatomy", ANATOMY), ("instrument", INSTRUMENTS))
    for component in components
    for colour in COLOURS_OF[component]
    for place in PLACES
    if name == "anatomy" or place != "mid-mid"
]

Phrase = dict[str, str]
Option = TypeVar("Option")


class Clause(NamedTuple):
    relation: str
    thing: Thing
    phrase: Phrase


def pick(options: Sequence[Option], rng: np.random.Generator) -> Option:
    return options[rng.integers(len(options))]


def fits(thing: Thing, phrase: Phrase) -> bool:
    return phrase.items() <= thing.facts.items()


def stands(thing: Thing, relation: str, other: Thing) -> bool | None:
    """Whether the thing is on that side of the other; None in the same column or row, where one cannot say."""
    first, second = (thing.column, other.column) if relation in ("left", "right") else (thing.row, other.row)
    return None if first == second else (first < second) == (relation in ("left", "top"))


def matches(scene: Scene, phrase: Phrase, clauses: list[Clause]) -> list[Thing] | None:
    """The things of a phrase for which all clauses hold; None where this cannot be said of one of them."""
    found = []
    for thing in scene:
        if fits(thing, phrase) and not any(thing is clause.thing for clause in clauses):
            holds = [stands(thing, clause.relation, clause.thing) for clause in clauses]
            if all(holds):
                found.append(thing)
            elif False not in holds:
                return None
    return found


@cache
def variety(words: frozenset[tuple[str, str]], name: str) -> int:
    """How many values of that name the things have that can be drawn and that the words fit."""
    return len({facts[name] for facts in KINDS if words <= facts.items()})


def choose_clauses(scene: Scene, number: int, rng: np.random.Generator) -> list[Clause] | None:
    """Relations to so many different things; None where other things fit a phrase, or it says that none is there."""
    clauses = []
    for index in rng.permutation(len(scene))[:number] if number else ():
        relation, phrase = pick(list(RELATIONS), rng), {name: scene[index].facts[name] for name in pick(MEANT, rng)}
        if sum(fits(thing, phrase) for thing in scene) > 1 or relation in phrase.get("place", "").split("-"):
            return None
        clauses.append(Clause(relation, scene[index], phrase))
    return clauses if len(clauses) == number else None


def find(scene: Scene, kind: str, clauses: list[Clause], rng: np.random.Generator) -> tuple[Phrase, str] | None:
    """A phrase and the answer, or None where this try led to none, or to one that the words alone give away."""
    asked = {"query_color": "colour", "query_component": "component", "query_type": "type"}.get(kind)
    names = pick(COUNTED if not asked else RELATED if clauses else MEANT, rng)
    is_shown = asked or rng.random() < 0.5
    model = pick(scene, rng).facts if is_shown else {name: pick(VALUES[name], rng) for name in names}
    phrase = {name: model[name] for name in names}
    found = matches(scene, phrase, clauses)
    if found is None:
        return None
    if asked:
        is_open = len(found) == 1 and variety(frozenset(phrase.items()), asked) > 1
        return (phrase, found[0].facts[asked]) if is_open else None
    is_certain = kind == "exist" and not clauses and phrase.keys() <= {"type"}  # every frame has both types
    if is_certain or not variety(frozenset(phrase.items()), "type"):
        return None
    return phrase, str(len(found) if kind == "count" else bool(found))


def say(phrase: Phrase, rng: np.random.Generator) -> str:
    words = [phrase[name] for name in VALUES if name in phrase]
    return " ".join(words if "type" in phrase else [*words, pick(["thing", "object"], rng)])


def ask_typed(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Lines with the hops, the kind and whether there is a relation; no question twice."""
    lines: dict[str, str] = {}
    for clause_count, (hops, share) in zip((2, 0, 1), SHARES.items(), strict=True):
        relation = "relate_spatial" if hops == "one_hop" else "NA"
        for kind, number in share.items():
            for _ in range(int(number + rng.random())):
                answer = pick(SOUGHT.get(kind, [None]), rng)
                for _ in range(TRIES):
                    clauses = choose_clauses(scene, clause_count, rng)
                    result = None if clauses is None else find(scene, kind, clauses, rng)
                    if result is None or answer not in (None, result[1]):
                        continue
                    words = {"x": say(result[0], rng)}
                    for (side, name), clause in zip(("ry", "qz"), clauses, strict=False):
                        words |= {side: pick(RELATIONS[clause.relation], rng), name: say(clause.phrase, rng)}
                    question = pick(TEMPLATES[hops][kind], rng).format(**words)
                    if question not in lines:
                        lines[question] = f"{question}|{result[1]}|{hops}.json|{kind}|{relation}"
                        break
    return list(lines.values())


def ask(scene: Scene, size: int, rng: np.random.Generator) -> list[str]:
    """A frame's lines: two headers, then questions in the order of the original; centres are in pixels."""
    groups = {name: [thing for thing in scene if thing.type == name] for name in VALUES["type"]}
    present = [", ".join(thing.component for thing in group) for group in groups.values()]
    lines = [f"Which anatomical structures are present?|{present[0]}", f"Which tools are present?|{present[1]}"]
    targets = {thing.component: acts_on(thing, groups["anatomy"]) for thing in groups["instrument"]}
    for name, target in targets.items():
        if None not in targets.values() and list(targets.values()).count(target) == 1:
            lines.append(f"What is the action being performed on {target.component}?|{ACTIONS[name][0]}")
    for name, target in targets.items():
        if target:
            lines.append(f"Which target is being {ACTIONS[name][1]} in the scene?|{target.component}")
    for thing in groups["anatomy"]:
        centre = [round(size * side, 1) for side in (thing.x, thing.y)]
        lines.append(f"What anatomy is at the {thing.place} of the frame ?|{thing.component}|{centre}")
    return lines + ask_typed(scene, rng)
