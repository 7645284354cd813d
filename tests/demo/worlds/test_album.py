"""Drawn conversations: in the format that the recipe reads, the same for a seed, true of their pictures."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from demo.worlds.album.dataset import draw_album
from demo.worlds.album.talk import KINDS, PHRASES, all_words, converse
from demo.worlds.scenes.scene import draw_scene
from recipes import visual_chat
from vlm_recipes.rows.parts import parts_of
from vlm_recipes.rows.reading import read_rows
from vlm_recipes.rows.usable import usable_rows


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("album") / "drawn"
    draw_album(folder, train=40, test=4, broken=5)
    return folder


def lines(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]


def test_all_rows_are_read_but_the_broken_ones_each_for_its_own_reason(album, tmp_path):
    data = visual_chat.Data(dataset_name=str(album))
    raw = parts_of(read_rows("chats", data, ("messages", "images")).splits, data, seed=0)
    (train, test), refused = usable_rows(raw, lambda row: visual_chat.to_chat(row, []), str(tmp_path), 1.0)
    assert (len(train), len(test)) == (100, 10)
    assert Counter(len(row["image_ids"]) for row in train) == {1: 80, 2: 20}
    assert max(Counter(train["image_id"]).values()) == 2  # conversations that share a picture
    reasons = ["is missing", "cannot be read", "mention", "last turn is not the assistant's", "an empty answer"]
    assert [row["id"] for row in refused] == [f"train/metadata.jsonl, line {i}" for i in range(101, 106)]
    assert all(reason in row["reason"] for reason, row in zip(reasons, refused, strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_others(album, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        draw_album(tmp_path / name, train=40, test=4, broken=5, seed=seed)
    files = {file.relative_to(album): file.read_bytes() for file in album.rglob("*") if file.is_file()}
    assert files == {path: (tmp_path / "same" / path).read_bytes() for path in files}
    assert files[Path("test/00000.png")] != (tmp_path / "other" / "test" / "00000.png").read_bytes()


def test_the_parts_show_no_picture_of_one_another(album):
    shown = [{file.read_bytes() for file in (album / split).glob("0*.png")} for split in ("train", "test")]
    assert not shown[0] & shown[1] and (len(shown[0]), len(shown[1])) == (40, 4)


def truth(question: str, scenes: list, before: str) -> set[str]:
    """Every right answer, by another way than the world's: over all figures of the picture that is asked about."""
    scene = scenes["second picture" in question]
    figures = scene.figures
    areas = sorted(figures, key=lambda one: one.diameter)
    if question == "Describe the picture.":
        return {", ".join(f"{one.colour} {one.shape}" for one in sorted(figures, key=lambda one: one.x))}
    if question == "How many things are there?":
        return {"zero one two three".split()[len(figures)]}
    if question == "And what shape is it?":
        return {one.shape for one in figures if one.colour == before}
    if question == "Which colours are there?":
        return {" ".join(sorted({one.colour for one in figures}))}
    if named := re.fullmatch(r"Which of the two pictures has something (\w+)\?", question):
        has = [any(one.colour == named[1] for one in own.figures) for own in scenes]
        return {"first"} if has == [True, False] else {"second"} if has == [False, True] else set()
    if named := re.fullmatch(r"What shape is the (\w+) thing\?", question):
        return {one.shape for one in figures if one.colour == named[1]}
    if named := re.fullmatch(r"What colour is furthest to the (\w+)\?", question):
        along = {"left": (0, min), "right": (0, max), "top": (1, min), "bottom": (1, max)}
        axis, end = along[named[1]]
        return {end(figures, key=lambda one: end(point[axis] for point in one.points)).colour}
    if named := re.fullmatch(
        r"What colour is the (largest|smallest) thing( in the (first|second) picture)?\?", question
    ):
        return {areas[-1 if named[1] == "largest" else 0].colour}
    named = re.fullmatch(r"What colour is the (\w+)\?", question)
    return {one.colour for one in figures if one.shape == named[1]}


def test_every_answer_is_true_of_the_pictures_and_every_kind_is_as_frequent():
    kinds, turns_of, asked_of_two = Counter(), Counter(), Counter()
    for index in range(1500):
        rng = np.random.default_rng(index)
        scenes = [draw_scene(rng, 64, (2, 3)) for _ in range(1 + (index % 5 == 4))]
        turns, before = converse(scenes, rng), ""
        for turn in turns:
            assert truth(turn.question, scenes, before) == {turn.answer}, (turn, scenes)
            before = turn.answer
        assert len({turn.kind for turn in turns}) == len(turns)
        assert all(turn.kind not in ("description", "colours") for turn in turns[:-1])
        kinds[turns[-1].kind] += 1
        turns_of[len(turns)] += 1
        asked_of_two[turns[-1].kind] += len(scenes) == 2
    assert set(kinds) == set(KINDS) and min(kinds.values()) > 100 and max(kinds.values()) < 230
    assert set(turns_of) == set(range(1, 7))
    assert {kind for kind, n in asked_of_two.items() if n} == {"comparison", "one of two"}


def test_the_small_vocabulary_has_every_word_as_one_token(tmp_path):
    from demo.checkpoints.qwen2_vl import train_tokenizer

    tokenizer = train_tokenizer([*all_words(), "system", "user", "assistant"] * 20, 640)
    tokenizer.add_tokens(list(PHRASES))
    for index in range(200):
        rng = np.random.default_rng(index)
        for turn in converse([draw_scene(rng, 64, (2, 3))], rng):
            assert len(tokenizer.tokenize(turn.answer)) <= len(turn.answer.split()) + turn.answer.count(",")
            assert len(tokenizer.tokenize(turn.question)) <= 4
