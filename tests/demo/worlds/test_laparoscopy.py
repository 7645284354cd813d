"""Drawn operations are files like SSG-VQA's, and answers follow from what is seen."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from demo.worlds.laparoscopy.dataset import draw_laparoscopy
from demo.worlds.laparoscopy.scene import ANATOMY, COLOURS, INSTRUMENTS, Scene, Thing, draw_scene

# Upstream's answers, as its reference code lists them.
LABELS = set(
    "0 1 10 2 3 4 5 6 7 8 9 False True abdominal_wall_cavity adhesion anatomy aspirate bipolar blood_vessel blue "
    "brown clip clipper coagulate cut cystic_artery cystic_duct cystic_pedicle cystic_plate dissect fluid gallbladder "
    "grasp grasper gut hook instrument irrigate irrigator liver omentum pack peritoneum red retract scissors silver "
    "specimen_bag specimenbag white yellow".split()
)
VIDEOS = {"VID01": 110, "VID31": 90, "VID02": 100}
SIDE = r"(?P<{0}>(?:to the |on the )?(?:left|right)(?: side)? of|above|below)"
PHRASE = r"(?P<{0}>(?:\w+(?:-\w+)? )*?(?:thing|object|anatomy|instrument))"
RELATED = SIDE.format("r") + " the " + PHRASE.format("y")
BOTH = RELATED + " and " + SIDE.format("q") + " the " + PHRASE.format("z")
X, Y = PHRASE.format("x"), PHRASE.format("y")
FORMS = {  # every typed question has exactly one of these
    "zero_hop": (
        rf"(?:How many|What number of|Are there any) {X}s(?: are there)?\?",
        rf"Is there a {X}\?",
        rf"What (?:color|type) is the {X}\?",
        rf"The {X} is what (?:color|type)\?",
        rf"There is a {X}; what (?:color |type |name )?is it\?",
    ),
    "one_hop": (
        rf"What number of {X}s are {RELATED}\?",
        rf"Are there any {X}s {RELATED}\?",
        rf"There is a {Y}; (?:how many|are there any) {X}s (?:are )?{SIDE.format('r')} it\?",
        rf"The {X} (?:that is )?{RELATED} is what (?:color|type)\?",
        rf"What type is the {X} that is {RELATED}\?",
        rf"There is a {X} (?:that is )?{RELATED}; what is it\?",
    ),
    "single_and": (
        rf"What number of {X}s are {BOTH}\?",
        rf"Are there any {X}s {BOTH}\?",
        rf"What (?:color|type) is the {X} that is both {BOTH}\?",
        rf"There is a {X} that is {BOTH}\?; what name is it\?",
    ),
}


class Line(NamedTuple):
    question: str
    answer: str
    hops: str = ""
    kind: str = "untyped"
    centre: tuple[float, float] | None = None


def parse(path: Path) -> tuple[list[list[str]], list[Line]]:
    """The names in the two headers and the lines of a file, by upstream's description of the format."""
    texts = [text for text in path.read_text(encoding="utf-8").split("\n") if text]
    assert texts[0].startswith("Which anatomical structures are present?|")
    assert texts[1].startswith("Which tools are present?|")
    lines = []
    for text in texts[2:]:
        question, answer, *rest = text.split("|")
        if len(rest) == 3:
            file, kind, relation = rest
            assert relation == ("relate_spatial" if file == "one_hop.json" else "NA")
            lines.append(Line(question, answer, file.removesuffix(".json"), kind))
        elif len(rest) == 1:
            assert re.fullmatch(r"\[\d+\.\d, \d+\.\d\]", rest[0])
            lines.append(Line(question, answer, centre=tuple(json.loads(rest[0]))))
        else:
            assert not rest
            lines.append(Line(question, answer))
    return [text.split("|")[1].split(", ") for text in texts[:2]], lines


def cell(thing: Thing) -> str:
    return "-".join((("top", "mid", "bottom")[int(thing.y * 3)], ("left", "mid", "right")[int(thing.x * 3)]))


def named(scene: Scene, phrase: str) -> list[Thing]:
    """The things that every word of a phrase fits."""
    words = [word for word in phrase.split() if word not in ("thing", "object")]
    return [one for one in scene if set(words) <= {one.colour, one.component, cell(one), one.type}]


def is_there(thing: Thing, side: str, other: Thing) -> bool:
    """By the centres alone; a difference of less than a fifth of the picture must not matter for any answer."""
    ahead = {"left": other.x - thing.x, "right": thing.x - other.x, "above": other.y - thing.y}
    ahead["below"] = -ahead["above"]
    (word,) = (word for word in ahead if word in side.split())
    return ahead[word] > 0.19


def solve(scene: Scene, line: Line) -> str:
    """The answer to a typed question, from its words and the centres, colours and names of the things."""
    found = [match for form in FORMS[line.hops] if (match := re.fullmatch(form, line.question))]
    assert len(found) == 1, line.question
    parts = found[0].groupdict()
    things = named(scene, parts["x"])
    for side, reference in (("r", "y"), ("q", "z")):
        if reference in parts:
            (other,) = named(scene, parts[reference])
            things = [one for one in things if is_there(one, parts[side], other)]
    if line.kind in ("count", "exist"):
        return str(len(things) if line.kind == "count" else bool(things))
    (thing,) = things
    return {"query_color": thing.colour, "query_type": thing.type, "query_component": thing.component}[line.kind]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "laparoscopy"
    draw_laparoscopy(folder, VIDEOS, seed=4)
    return folder


@pytest.fixture(scope="module")
def frames(drawn) -> dict[tuple[str, int], tuple[Scene, list[list[str]], list[Line]]]:
    """Of each video and number: the scene that was drawn, and what the file says."""
    return {
        (video, number): (
            draw_scene(np.random.default_rng([4, index, number])),
            *parse(drawn / "ssg-qa" / video / f"{number}.txt"),
        )
        for index, (video, count) in enumerate(VIDEOS.items())
        for number in range(count)
    }


@pytest.fixture(scope="module")
def lines(frames) -> list[Line]:
    return [line for *_, rows in frames.values() for line in rows]


def test_every_video_has_consecutive_frames_and_a_file_of_questions_for_each(drawn):
    for video, count in VIDEOS.items():
        assert {path.name for path in (drawn / "data" / video).iterdir()} == {f"{n:06}.png" for n in range(count)}
        assert {path.name for path in (drawn / "ssg-qa" / video).iterdir()} == {f"{n}.txt" for n in range(count)}
    with Image.open(drawn / "data" / "VID31" / "000007.png") as image:
        assert (image.size, image.mode) == ((72, 72), "RGB")


def test_every_typed_answer_follows_from_names_colours_and_centres(frames):
    checked = Counter()
    for scene, _, rows in frames.values():
        for line in rows:
            if line.hops:
                assert solve(scene, line) == line.answer, line
                checked[line.hops, line.kind] += 1
    assert len(checked) == 15 and min(checked.values()) > 30


def test_a_thing_has_its_colour_at_its_centre_and_no_component_has_a_colour_of_its_own(tmp_path):
    draw_laparoscopy(tmp_path / "drawn", {"VID01": 100}, seed=6)
    names, values = list(COLOURS), np.array(list(COLOURS.values()))
    seen = set()
    for number in range(100):
        with Image.open(tmp_path / "drawn" / "data" / "VID01" / f"{number:06}.png") as image:
            pixels = np.asarray(image).astype(int)
        assert pixels.shape == (72, 72, 3)
        for thing in draw_scene(np.random.default_rng([6, 0, number])):
            x, y = int(thing.x * 72), int(thing.y * 72)
            centre = np.median(pixels[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3), axis=0)
            assert names[np.linalg.norm(values - centre, axis=1).argmin()] == thing.colour, (number, thing)
            seen.add((thing.component, thing.colour))
    assert len(seen) == 2 * (len(ANATOMY) + len(INSTRUMENTS))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("first", 3), ("second", 3), ("other", 5)):
        draw_laparoscopy(tmp_path / name, {"VID01": 6, "VID18": 5}, seed=seed, broken=5)
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert len(first) == 2 * 11 + 3 and first == second and first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())
    whole = [
        first[f"data/{video}/{number:06}.png"]
        for video, frames in (("VID01", 6), ("VID18", 5))
        for number in range(frames)
    ]
    assert len(set(whole)) == 11


def test_broken_ones_are_broken_each_in_its_own_way_and_change_nothing_else(tmp_path):
    draw_laparoscopy(tmp_path / "whole", {"VID01": 4, "VID02": 3})
    draw_laparoscopy(tmp_path / "broken", {"VID01": 4, "VID02": 3}, broken=10)
    whole, broken = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    added = {name: broken[name] for name in broken.keys() - whole.keys()}
    assert sorted(added) == sorted(
        ["data/VID01/000007.png", "data/VID01/000012.png"]
        + [f"ssg-qa/VID01/{number}.txt" for number in (6, 7, 11, 12)]
    )
    extra = []
    for name, content in whole.items():
        assert broken[name].startswith(content)
        lines = broken[name].removeprefix(content).decode().splitlines()
        assert not lines or name in ("ssg-qa/VID01/0.txt", "ssg-qa/VID01/1.txt")
        extra += [tuple(line.split("|")) for line in lines]
    assert len(extra) == 6 and len(set(extra)) == 5
    assert sum(len(parts) == 6 for parts in extra) == 2
    assert sum(parts[0] == "" for parts in extra) == 2
    assert sum(len(parts) == 5 and parts[0] != "" and parts[1] not in LABELS for parts in extra) == 2
    for name, content in added.items():
        if name.endswith(".txt"):
            assert len(parse(tmp_path / "broken" / name)[1]) == 2
        else:
            assert content.startswith(b"\x89PNG")
            with pytest.raises(OSError), Image.open(tmp_path / "broken" / name) as image:
                image.load()
