"""A fifth of SSG-VQA: what preparing its rows takes, as a ratio to a plain `datasets.map` of the same run."""

import io
import random
import time
from functools import partial

import pytest
from PIL import Image

from recipes import ssg_vqa
from tests.support import tiny
from vlm_recipes.collators import VideoCollator
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor
from vlm_recipes.rows.formats.ssg_vqa import load_question_folder
from vlm_recipes.rows.usable import usable_rows

VIDEOS, FRAMES, QUESTIONS = ["VID01", "VID02", "VID03", "VID04"], 1250, 40
TOOLS = "grasper hook bipolar clipper scissors irrigator".split()


def draw(folder) -> None:
    source, file = random.Random(0), io.BytesIO()
    Image.new("RGB", (32, 18), "brown").save(file, "PNG")
    for video in VIDEOS:
        for part in ("ssg-qa", "data"):
            (folder / part / video).mkdir(parents=True)
        for frame in range(FRAMES):
            lines = [
                f"how many {source.choice(TOOLS)} are there?|{i % 3}|zero_hop.json|count|NA" for i in range(QUESTIONS)
            ]
            (folder / "ssg-qa" / video / f"{frame}.txt").write_text("\n".join(["header", "header", *lines]))
            (folder / "data" / video / f"{frame:06d}.png").write_bytes(file.getvalue())


@pytest.mark.slow
def test_two_hundred_thousand_rows_take_less_than_a_plain_map_and_nothing_the_next_time(tmp_path):
    draw(tmp_path)
    processor = SurgViVqaProcessor.from_pretrained(tiny.surgvivqa())
    adapt = partial(ssg_vqa.to_row, data=ssg_vqa.Data(), collator=VideoCollator(processor))

    def prepare() -> tuple[float, list]:
        begin = time.perf_counter()
        raw = {"train": load_question_folder(tmp_path / "ssg-qa", tmp_path / "data", VIDEOS)}
        (rows,), refused = usable_rows(raw, adapt, str(tmp_path / "output"), 0.0, num_proc=1)
        assert not refused and len(rows) == len(VIDEOS) * FRAMES * QUESTIONS == 200_000
        return time.perf_counter() - begin, [raw["train"], rows]

    first, (raw, rows) = prepare()
    begin = time.perf_counter()
    plain = raw.map(adapt, remove_columns=raw.column_names, load_from_cache_file=False)
    mapped = time.perf_counter() - begin
    again, (_, same) = prepare()
    assert rows["prompt"][::997] == same["prompt"][::997] == plain["prompt"][::997]
    print(f"plain map {mapped:.1f} s, prepared {first / mapped:.2f} of it, the next time {again / mapped:.3f}")
    assert first < 1.5 * mapped  # files read and pictures looked at, too
    assert again < 0.2 * mapped
