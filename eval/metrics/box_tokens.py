"""Box texts of families that spell boxes with special tokens."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator

from .box_units import NUMBER, NUMBERS, BoxCodec, Found, Size


def _after_labels(pattern: re.Pattern, text: str) -> Iterator[Found]:
    """What a pattern of a label, or else four numbers, finds: a label is that of all boxes up to the next."""
    label = ""
    for found in pattern.finditer(text):
        said, *numbers = found.groups()
        if said is None:
            yield label, numbers
        else:
            label = said


class Qwen2VLBoxes(BoxCodec):
    """Qwen2-VL's box text: special tokens around `(x1,y1),(x2,y2)`, joined by a space, in thousandths (0-1000).

    Source: the grounding format of the Qwen2-VL model card and of arXiv 2409.12191.
    """

    marks = ("<|",)
    pattern = re.compile(
        r"<\|object_ref_start\|>((?:(?!<\|object_ref_).)*)<\|object_ref_end\|>"
        rf"|\({NUMBER},{NUMBER}\)\s*,\s*\({NUMBER},{NUMBER}\)",
        re.DOTALL,
    )

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return " ".join(
            f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"
            for label, (x1, y1, x2, y2) in boxes
        )

    def _find(self, text: str) -> Iterable[Found]:
        return _after_labels(self.pattern, text)


class InternVLBoxes(BoxCodec):
    """InternVL's box text: `<ref>label</ref><box>[[x1, y1, x2, y2], …]</box>`, in thousandths.

    Source: internvl_chat/eval/refcoco/evaluate_grounding.py of github.com/OpenGVLab/InternVL, which reads one bracket
    or two and divides by 1000.
    """

    marks = ("<ref>", "</ref>")
    pattern = re.compile(rf"<ref>((?:(?!</?ref>).)*)</ref>|\[{NUMBERS}\]", re.DOTALL)

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return "\n".join(
            f"<ref>{label}</ref><box>{json.dumps([box for _, box in own])}</box>"
            for label, own in itertools.groupby(boxes, key=lambda item: item[0])
        )

    def _find(self, text: str) -> Iterable[Found]:
        return _after_labels(self.pattern, text)


class PaliGemmaBoxes(BoxCodec):
    """PaliGemma's box text: `<locYYYY><locXXXX><locYYYY><locXXXX> label`, joined by ` ; `: y first, rounded, 0-1023.

    Source: big_vision/pp/proj/paligemma/segmentation.py (`round(bbox * 1023)`) and
    big_vision/evaluators/proj/paligemma/transfers/segmentation.py (`/ 1023`, `y1, x1, y2, x2`) of
    github.com/google-research/big_vision (huggingface.co/blog/paligemma divides by 1024: a pixel of a thousand); that
    the label follows: the same post; what joins them: `detect {object} ; {object}` in
    ai.google.dev/gemma/docs/paligemma/prompt-system-instructions, and docs/paligemma_oc_report.md of
    github.com/segis95/paligemma2-detection for the answers.
    """

    y_first, rounded, marks = True, True, (";", "<")
    pattern = re.compile("<loc([0-9]{4})>" * 4 + r"(?:<seg[0-9]{3}>)*([^;<]*)")

    def _grid(self, size: Size) -> Size:
        return 1023, 1023

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return " ; ".join("".join(f"<loc{unit:04}>" for unit in box) + f" {label}" for label, box in boxes)

    def _find(self, text: str) -> Iterable[Found]:
        return [(label.strip(), numbers) for *numbers, label in self.pattern.findall(text)]


class Florence2Boxes(BoxCodec):
    """Florence-2's box text: `label<loc_x1><loc_y1><loc_x2><loc_y2>`, one after the other, in 1000 bins, 0-999.

    A coordinate is cut to its bin and read as the bin's middle. Source: `Florence2PostProcessor` in
    transformers/models/florence2/processing_florence2.py (`quantize`, `dequantize`).
    """

    last, middle, marks = 999, True, ("<", ">")
    runs, pattern = re.compile("(?:<loc_[0-9]+>){4,}"), re.compile("<loc_([0-9]+)>" * 4)

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return "".join(label + "".join(f"<loc_{unit}>" for unit in box) for label, box in boxes)

    def _find(self, text: str) -> Iterable[Found]:
        begin = 0
        for run in self.runs.finditer(text):
            label = text[begin : run.start()].rpartition(">")[2].strip()
            yield from ((label, numbers) for numbers in self.pattern.findall(run.group()))
            begin = run.end()
