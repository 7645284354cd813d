"""Drawn laparoscopy frames with questions in the layout of SSG-VQA (arXiv 2312.10251) and CholecT45."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from demo.worlds.laparoscopy.questions import ask
from demo.worlds.laparoscopy.scene import View, draw_scene, render

BLANK = 0.1  # the share of question files with an empty line in them


def add_broken(folder: Path, video: str, frames: int, broken: int) -> None:
    """Add to a video, in turn, what a reader has to refuse.

    A line with too many bars, an answer that is no label, questions without their frame, half a frame, no question.
    """
    texts, pictures = folder / "ssg-qa" / video, folder / "data" / video
    first_lines = (texts / "0.txt").read_text(encoding="utf-8").splitlines(keepends=True)[:4]
    for index in range(broken):
        reason, number = index % 5, index // 5
        frame = number % frames if reason in (0, 1, 4) else frames + index
        questions = texts / f"{frame}.txt"
        if reason in (2, 3):
            questions.write_text("".join(first_lines), encoding="utf-8", newline="\n")
        if reason == 3:
            picture = (pictures / "000000.png").read_bytes()
            (pictures / f"{frame:06}.png").write_bytes(picture[: len(picture) // 2])
        lines = {
            0: f"How many broken {number} things are there?|1|zero_hop.json|count|NA|NA",
            1: f"There is a broken {number} thing; what is it?|spleen|zero_hop.json|query_component|NA",
            4: "|1|zero_hop.json|count|NA",
        }
        if reason in lines:
            with questions.open("a", encoding="utf-8", newline="\n") as file:
                file.write(lines[reason] + "\n")


def draw_laparoscopy(
    folder: str | PathLike[str], videos: Mapping[str, int], size: int = 72, seed: int = 0, broken: int = 0
) -> None:
    """Write so many frames of each video to `data/`, and their questions to `ssg-qa/`; same seed, same bytes.

    The frames are `size` pixels wide and high; each shows another scene. `broken` lines and frames that a reader has
    to refuse are added to the first video. Raises FileExistsError where the folder is there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    for index, (video, frames) in enumerate(videos.items()):
        pictures, texts = folder / "data" / video, folder / "ssg-qa" / video
        pictures.mkdir(parents=True)
        texts.mkdir(parents=True)
        view = View.draw(np.random.default_rng([seed, index]))
        for frame in range(frames):
            rng = np.random.default_rng([seed, index, frame])
            scene = draw_scene(rng)
            render(scene, view, size, rng).save(pictures / f"{frame:06}.png")
            lines = ask(scene, size, rng)
            if rng.random() < BLANK:
                lines.insert(int(rng.integers(2, len(lines))), "")
            (texts / f"{frame}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    if broken:
        video, frames = next(iter(videos.items()))
        add_broken(folder, video, frames, broken)
