"""docs/models.md, made by trying: `python -m tests.support.families.table` writes it, in some minutes.

A cell says "works", or what works, or the line that refuses. What a cell of the first table says is tried anew by
`make test`, of the second by `make test-slow`.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.families import FAMILIES, STRANGERS, checkpoint
from tests.support.families.runs import WAYS, export_adapter, resume, start
from tests.support.paths import ROOT
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.collators.sharing import refuse_state
from vlm_recipes.eval.boxes import codec_of
from vlm_recipes.eval.generation.constraints import Constraint
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.metrics.box_codecs import FAMILIES as KNOWN
from vlm_recipes.models.chat import has_budget, set_pixel_budget
from vlm_recipes.models.lora import layers_of
from vlm_recipes.models.parts import fused_layers, parts_of

PAGE = ROOT / "docs" / "models.md"
NAMES = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL-MoE",
    "qwen3_5": "Qwen3.5",
    "glm4v": "GLM-4.1V",
    "llava": "LLaVA-1.5",
    "llava_next": "LLaVA-NeXT",
    "llava_onevision": "LLaVA-OneVision",
    "internvl": "InternVL3",
    "ovis2": "Ovis2",
    "deepseek_vl": "DeepSeek-VL",
    "smolvlm": "SmolVLM",
    "idefics3": "Idefics3",
    "gemma3": "Gemma 3",
    "paligemma": "PaliGemma",
    "pixtral": "Pixtral",
    "mistral3": "Mistral Small 3.1",
    "mllama": "Llama 3.2 Vision",
    "gemma4": "Gemma 4",
    "lfm2_vl": "LFM2-VL",
}
PICTURES = [Image.new("RGB", size, colour) for size, colour in (((64, 48), "red"), ((40, 80), "blue"))]


@cache
def loaded(family: str):
    network = AutoModelForImageTextToText.from_pretrained(checkpoint(family), attn_implementation="sdpa").eval()
    return network, AutoProcessor.from_pretrained(checkpoint(family))


def row(pictures: int, *said: str, system: str = "") -> dict:
    messages = [{"role": "system", "content": system}] if system else []
    for place, text in enumerate(said):
        shown = [{"type": "image"}] * (pictures if place == 0 else 0)
        role, text = ("assistant", "user")[place % 2 == 0], {"type": "text", "text": text}
        messages.append({"role": role, "content": [*shown, text]})
    return {"id": "row", "image_id": pictures, "images": PICTURES[:pictures], "messages": messages}


@torch.no_grad()
def trained(family: str, *rows: dict) -> str:
    """Collate the rows: their labels, decoded, are the answers, and the model has a loss of them."""
    network, processor = loaded(family)
    collator = ChatCollator(processor)
    batch = collator(list(rows))
    for one, labels in zip(rows, batch["labels"], strict=True):
        answers = [m["content"][0]["text"] for m in one["messages"] if m["role"] == "assistant"]
        said = "".join(processor.tokenizer.decode(labels[labels != -100]).split())
        assert said == "".join(f"{answer}{collator.template.end}" for answer in answers).replace(" ", "")
    assert network(**batch).loss > 0
    return "works"


@torch.no_grad()
def shared(family: str) -> str:
    """Two conversations in one sequence have the logits that they have apart, or a line says why not."""
    network, processor = loaded(family)
    refuse_state(network.config)
    collator = SharedImageCollator(processor)
    found = []
    for batch in collator.both_ways():
        trains = batch.pop("labels")[:, 1:] != -100
        found.append(network(**batch).logits[:, :-1][trains])
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)
    return "works"


def closed_set(family: str) -> str:
    network, processor = loaded(family)
    answers = ["red", "reddish", "none"]
    kept = [Constraint(answers, ChatCollator(processor).answer_ids)]
    collator = ChatCollator(processor, prompt_only=True)
    [said] = generate(network, [row(1, "What is it?")], collator, constraints=kept, max_new_tokens=4)
    assert said in answers
    return "works"


def boxes(family: str) -> str:
    network, processor = loaded(family)
    with redirect_stdout(StringIO()):  # the line is said once a process
        codec = codec_of(network, processor)
    box, size = [16.0, 12.0, 48.0, 36.0], (64, 48)
    [again] = codec.decode(codec.encode([box], size, ["table"]), size)
    assert max(abs(a - b) for a, b in zip(again, box, strict=True)) <= 1
    name = type(codec).__name__.removesuffix("Boxes")
    return name if network.config.model_type in KNOWN else f"none known: {name}"


def lora(family: str, part: str) -> str:
    network, _ = loaded(family)
    layers = layers_of(network, (part,))
    assert layers and parts_of(network) is not None
    fused = fused_layers(network, parts_of(network).language) if part == "language" else ()
    return "works; experts stay as they are" if fused else "works"


def budget(family: str) -> str:
    processor = AutoProcessor.from_pretrained(checkpoint(family))  # to be changed
    if not has_budget(processor):
        return "its own"
    set_pixel_budget(processor, 4 * 32 * 32, 8 * 32 * 32)
    return "works"


TRIED: dict[str, Callable[[str], str]] = {
    "several turns": lambda f: trained(f, row(1, "What is it?", "a dog", "Sure?", "yes, it is")),
    "a system message": lambda f: trained(f, row(1, "What is it?", "a dog", system="Be short.")),
    "no picture": lambda f: trained(f, row(0, "What is it?", "a dog")),
    "two pictures": lambda f: trained(f, row(2, "What are they?", "a dog, a cat")),
    "with and without in a batch": lambda f: trained(f, row(0, "Is it?", "no"), row(1, "And it?", "yes")),
    "an image shared": shared,
    "closed sets": closed_set,
    "boxes as": boxes,
    "LoRA, language": lambda f: lora(f, "language"),
    "LoRA, vision": lambda f: lora(f, "vision"),
    "pixel budget": budget,
}


def ran(family: str, run: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        run(Path(folder) / "run")
    return "works"


TRAINED: dict[str, Callable[[str], str]] = {
    **{way: lambda f, way=way: ran(f, lambda folder: start(way, f, folder)) for way in WAYS},
    "resumed": lambda f: ran(f, lambda folder: resume(f, folder)),
    "exported": lambda f: ran(f, lambda folder: export_adapter(f, folder)),
}
COLUMNS = TRIED | TRAINED


def cell(family: str, column: str) -> str:
    """What happens; a refusal is a ValueError in one line, whatever else is raised is a defect."""
    try:
        return COLUMNS[column](family)
    except ValueError as error:
        line = re.sub("^(train|test|row '[^']*'): ", "", str(error)).replace(repr(str(checkpoint(family))), "it")
        assert "\n" not in line
        return f"no: {line}"


def table(families: Sequence[str], columns: Sequence[str], cells: dict, notes: list[str]) -> str:
    """A refusal is a number, which leads to `notes`, below."""
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    for family in families:
        said = [cells[family, column] for column in columns]
        notes += [text for text in dict.fromkeys(said) if text.startswith("no: ") and text not in notes]
        lines.append([NAMES[family], *(f"no [{notes.index(text) + 1}]" if text in notes else text for text in said)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


BEGIN = """# Which models work with what

The collators, LoRA and the recipes for chat models know no family by name: they ask processor and model. Tried on
tiny checkpoints with the real classes, templates and special tokens, random weights and stand-in tokenizers
(`tests/support/families`). `python -m tests.support.families.table` writes this page; `make test` tries the first
table anew, `make test-slow` the second.

## Rows, closed sets, boxes, LoRA

"Works", of rows: the model reads the batch, and only the assistant's tokens train. Of a shared image: questions in
one sequence have the logits that they have apart. "boxes as": the format, a class of `vlm_recipes.eval.metrics`;
Qwen3-VL's where none is known for a family. A pixel budget is `--min_pixels` and `--max_pixels`; "its own": the
processor resizes in its own way.
"""
MIDDLE = """
## Recipes

"Works": two steps, evaluated, saved, and loaded by the recipe and by plain transformers and PEFT with the same
logits. Resumed: a whole model goes on from its first step's checkpoint with the same loss and weights. Exported: the
adapter merged, under the base's names. kvasir_vqa trains on one question a row where no image can be shared; in
Qwen3-VL-MoE it leaves out the experts' balancing loss.
"""
END = """
Gemma 4 and LFM2-VL were tried last, when the rest was written, and needed no change.
"""


def page(cells: dict) -> str:
    notes: list[str] = []
    first = table((*FAMILIES, *STRANGERS), list(TRIED), cells, notes)
    second = table((*FAMILIES, *STRANGERS), list(TRAINED), cells, notes)
    numbered = "\n".join(f"{number}. {note.removeprefix('no: ')}" for number, note in enumerate(notes, start=1))
    return f"{BEGIN}\n{first}\n{MIDDLE}\n{second}\n\nWhat the numbers in brackets say:\n\n{numbered}\n{END}"


def documented() -> dict[tuple[str, str], str]:
    """(family, column) -> what the page says."""
    text = PAGE.read_text(encoding="utf-8")
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    of_name, cells = {name: family for family, name in NAMES.items()}, {}
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    columns: list[str] = []
    for name, *said in ([part.strip() for part in line] for line in lines):
        if not name:
            columns = said
        elif name != "---":
            for column, one in zip(columns, said, strict=True):
                number = re.fullmatch(r"no \[(\d+)\]", one)
                cells[of_name[name], column] = f"no: {notes[number[1]]}" if number else one
    return cells


if __name__ == "__main__":
    PAGE.write_text(page({(f, c): cell(f, c) for f in (*FAMILIES, *STRANGERS) for c in COLUMNS}), encoding="utf-8")
