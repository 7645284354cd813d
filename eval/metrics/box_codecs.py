"""Boxes as the text that each family of models was trained to write, and back."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from qwen_vl_utils.vision_process import smart_resize

from .box_tokens import Florence2Boxes, InternVLBoxes, PaliGemmaBoxes, Qwen2VLBoxes
from .box_units import NUMBERS, BoxCodec, Found, Size


def _in_json(key: str, quotes: str = '"') -> re.Pattern:
    """A box under `key`, and the label right after it or before.

    Keys with bare quotes: inside a JSON string they are escaped, so a label cannot pose as a box. A pattern rather
    than a JSON parser, because the boxes before the cut of a truncated answer still count.
    """
    text = "|".join(rf"{quote}(?:[^{quote}\\]|\\.)*{quote}" for quote in quotes)
    label = rf"[{quotes}]label[{quotes}]\s*:\s*({text})"
    box = rf"[{quotes}]{key}[{quotes}]\s*:\s*\[{NUMBERS}\]"
    return re.compile(rf"(?:{label}\s*,\s*)?{box}(?:\s*,\s*{label})?", re.DOTALL)


def _of_json(pattern: re.Pattern, text: str) -> Iterator[Found]:
    for before, *numbers, after in pattern.findall(text):
        label = after or before
        try:
            yield json.loads(label, strict=False) if label else "", numbers
        except ValueError:  # Python's quotes, or half an escape
            yield label[1:-1], numbers


class Qwen3VLBoxes(BoxCodec):
    """Qwen3-VL's box text: JSON `[{"bbox_2d": [x1, y1, x2, y2], "label": …}]`, in thousandths.

    Source: cookbooks/2d_grounding.ipynb of github.com/QwenLM/Qwen3-VL, for its mixture of experts as well ("relative
    coordinates ranging from 0 to 1000"; also its issues 1427 and 1623). For Qwen3.5, whose model card says nothing,
    issue 4 of github.com/QwenLM/Qwen3.8-Flash-Next: a maintainer's "still" 0-1000 to who has them so from Qwen3.5.
    """

    key, pattern = "bbox_2d", _in_json("bbox_2d")

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return json.dumps([{self.key: box, "label": label} for label, box in boxes], ensure_ascii=False)

    def _find(self, text: str) -> Iterable[Found]:
        return _of_json(self.pattern, text)


@dataclass(frozen=True)
class Qwen25VLBoxes(Qwen3VLBoxes):
    """Qwen2.5-VL's box text: the same JSON, in pixels of the resized image.

    The numbers mean pixels of what an image processor makes of the image: `of` takes its budget (`min_pixels` and
    `max_pixels` are its `size["shortest_edge"]` and `size["longest_edge"]`) and `factor`, patch size times merge size.
    Raises ValueError where the smallest budget is above the largest; `encode` and `decode` do where an image's sides
    differ more than 200-fold, which the processor refuses too. Source: arXiv 2502.13923, section 2.
    """

    min_pixels: int
    max_pixels: int
    factor: int = 28

    def __post_init__(self):
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}: lower it")

    @classmethod
    def of(cls, processor: Any) -> "Qwen25VLBoxes":
        """The codec for what this processor makes of images."""
        images = processor.image_processor
        sides = images.size["shortest_edge"], images.size["longest_edge"]
        return cls(*sides, images.patch_size * images.merge_size)

    def used_with(self, processor: Any) -> BoxCodec:
        return self.of(processor)

    def _grid(self, size: Size) -> Size:
        height, width = smart_resize(size[1], size[0], self.factor, self.min_pixels, self.max_pixels)
        # Two things the processor of transformers does otherwise, and it is what the model sees: a side that rounds to
        # nothing has the image enlarged to the smallest budget, and no side is less than one patch.
        if 2 * min(size) <= self.factor:
            scale = math.sqrt(self.min_pixels / math.prod(size))
            width, height = (math.ceil(side * scale / self.factor) * self.factor for side in size)
        return max(width, self.factor), max(height, self.factor)


class Gemma4Boxes(Qwen3VLBoxes):
    """Gemma 4's box text: JSON `[{"box_2d": [y1, x1, y2, x2], "label": …}]`, in thousandths.

    Source: huggingface.co/blog/gemma4, "GUI detection", whose `[171, 75, 245, 308]` of a button is wider than high
    with y first, as cloud.google.com/vertex-ai/generative-ai/docs/bounding-box-detection has it for Gemini's `box_2d`.
    Not for Gemma 3: Google does not confirm that it was trained on boxes (huggingface.co/google/gemma-3-4b-it,
    discussion 38), and github.com/ariG23498/gemma3-object-detection says that it was not.
    """

    key, pattern, y_first = "box_2d", _in_json("box_2d"), True


class GLM4VBoxes(BoxCodec):
    """GLM-4.1V's, 4.5V's and 4.6V's: JSON `[{"label": …, "bbox_2d": [x1, y1, x2, y2]}]`, in rounded thousandths.

    Boxes without labels are `<|begin_of_box|>[[x1, y1, x2, y2], …]<|end_of_box|>`. Source: "Grounding" in the README
    of github.com/zai-org/GLM-V ("the bracket style may vary"), and its skills/glmv-grounding/SKILL.md for the JSON and
    the rounding. What a model thinks before its answer may name boxes, too: of text without JSON, only boxes between
    the special tokens are read, where there are any.
    """

    rounded = True
    pattern = _in_json("bbox_2d", quotes="\"'")
    answers = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)", re.DOTALL)
    brackets = re.compile(rf"[\[(<]{NUMBERS}[\])>]")

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        if any(label for label, _ in boxes):
            return json.dumps([{"label": label, "bbox_2d": box} for label, box in boxes], ensure_ascii=False)
        return f"<|begin_of_box|>{json.dumps([box for _, box in boxes])}<|end_of_box|>"

    def _find(self, text: str) -> Iterable[Found]:
        found = list(_of_json(self.pattern, text))
        parts = self.answers.findall(text) or [text]
        return found or [("", numbers) for part in parts for numbers in self.brackets.findall(part)]


FAMILIES = {  # by `config.model_type`
    "qwen2_vl": Qwen2VLBoxes,
    "qwen2_5_vl": Qwen25VLBoxes,
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), Qwen3VLBoxes),
    "internvl": InternVLBoxes,
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v"), GLM4VBoxes),
    "gemma4": Gemma4Boxes,
    "paligemma": PaliGemmaBoxes,
    "florence2": Florence2Boxes,
}


def box_codec(model_type: str, processor: Any) -> BoxCodec:
    """The codec of a model's `config.model_type`: Qwen3-VL's where none is known, see `FAMILIES`.

    `processor` is the model's own; only Qwen2.5-VL's boxes depend on it.
    """
    family = FAMILIES.get(model_type, Qwen3VLBoxes)
    return family.of(processor) if family is Qwen25VLBoxes else family()
