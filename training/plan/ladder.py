"""What to change where a run does not fit a card: flags of the recipes, in the order in which they cost least."""

from collections.abc import Callable, Mapping
from typing import Any

from .count import PAGED, Step
from .gpus import Gpu

TOKEN = 28 * 28  # pixels
FEWEST = 256 * TOKEN
SMALLER = {
    "Qwen/Qwen2-VL-7B-Instruct": "Qwen/Qwen2-VL-2B-Instruct",
    "facebook/sam-vit-huge": "facebook/sam-vit-base",
}
Asked = tuple[Any, Any, Any]  # a recipe's data, training and model
Rung = Callable[[Asked, Step, Mapping[str, str]], list[str]]


def smaller_evaluation(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    """Where it takes more than training: a row at a time."""
    training = max(step.counted.gradients + step.counted.activations, step.stepping)
    return ["--per_device_eval_batch_size", "1"] if step.evaluated > 1 and step.evaluation > training else []


def checkpointing(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    """Compute activations twice."""
    return [] if asked[1].gradient_checkpointing else ["--gradient_checkpointing", "true"]


def single_rows(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    """The same step of more and smaller batches."""
    size, batches = asked[1].per_device_train_batch_size, asked[1].gradient_accumulation_steps
    more = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", str(size * batches)]
    return more if size > 1 else []


def four_bits(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    if step.bits == 4:
        return []
    return [*(["--load_in_8bit", "false"] if step.bits == 8 else []), "--load_in_4bit", "true"]


def fewer_pixels(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    most = getattr(asked[0], "max_pixels", FEWEST) // 2 // TOKEN * TOKEN
    if most < FEWEST:
        return []
    return [*(["--min_pixels", str(most)] if asked[0].min_pixels > most else []), "--max_pixels", str(most)]


def fewer_questions(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    questions = getattr(asked[0], "questions_per_row", 1)
    return ["--questions_per_row", str(questions // 2)] if questions > 1 else []


def paged(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    """AdamW's moments in 8 bits, in the main memory where the card is full."""
    return [] if step.paged else ["--optim", PAGED]


def fewer_trained(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    """Of LISA's vocabulary the row of `[SEG]` alone."""
    return ["--tune", "seg"] if getattr(asked[2], "tune", None) == "lisa" else []


def smaller_model(asked: Asked, step: Step, smaller: Mapping[str, str]) -> list[str]:
    """The next smaller one of the same family."""
    names = {name: value for name, value in vars(asked[2]).items() if name.endswith("name_or_path")}
    return [part for name, value in names.items() if value in smaller for part in (f"--{name}", smaller[value])]


# The lasting part of the memory is made smaller by some, and what a batch takes by others.
OF_WEIGHTS: tuple[Rung, ...] = (four_bits, fewer_trained, paged, smaller_model)
LADDER: tuple[Rung, ...] = (
    smaller_evaluation,
    checkpointing,
    single_rows,
    four_bits,
    fewer_pixels,
    fewer_pixels,
    fewer_questions,
    fewer_questions,
    fewer_trained,
    paged,
    smaller_model,
)


def climb(
    count: Callable[[list[str]], tuple[Asked, Step] | None],
    asked: Asked,
    step: Step,
    gpu: Gpu,
    smaller: Mapping[str, str],
) -> tuple[list[str], Step | None]:
    """The flags that make it fit the card, and the step with them; None where the whole ladder does not.

    Rungs add up; one that saves less than a hundredth is left out, and in the end those that the later ones have made
    needless. Where what lasts leaves no room already, those for that come first. `count` is called with flags; None
    where the recipe refuses them.
    """
    kept: list[list[str]] = []
    left = list(LADDER)
    while left and step.needed > gpu.gib:
        rung = next((one for one in left if step.lasting <= gpu.gib or one in OF_WEIGHTS), None)
        if rung is None:
            break
        left.remove(rung)
        if not (more := rung(asked, step, smaller)):
            continue
        tried = (asked, step.with_paged_optimizer()) if rung is paged else count(flags_of([*kept, more]))
        if tried is not None and tried[1].needed <= 0.99 * step.needed:
            kept, (asked, step) = [*kept, more], tried
    if step.needed > gpu.gib:
        return [], None
    for more in kept[:-1]:
        without = [one for one in kept if one is not more]
        if (tried := count(flags_of(without))) is not None and tried[1].needed <= gpu.gib:
            kept, step = without, tried[1]
    return flags_of(kept), step


def flags_of(rungs: list[list[str]]) -> list[str]:
    """A flag that was given twice counts as it was given last."""
    pairs = dict(pair for rung in rungs for pair in zip(rung[::2], rung[1::2], strict=True))
    return [part for pair in pairs.items() for part in pair]
