"""`--plan CARD`: what a step of the run takes of a card, and for how long it runs; nothing is loaded or trained."""

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial

import datasets
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env, patch_environment

from ...callbacks.preflight.model import duration, size
from ...models.precision import DTYPES, MIXED_PRECISION, SMALL_CARD_GIB, planned_gib
from ...models.weights import without_weights
from .count import GIB, PlanError, Planned, Step
from .gpus import ALLOWANCE, GPUS, SHARE, Gpu
from .ladder import SMALLER, Asked, climb

SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
QUIET = "--report_to none --disable_tqdm true --dataloader_num_workers 0 --push_to_hub false".split()


@dataclass(frozen=True)
class Plan:
    """What one card is asked for: the run as it was `asked`, and with the flags that make it fit, if any do; what was
    `refused` of those that were tried, and why."""

    card: str
    asked: Asked
    step: Step
    flags: list[str]
    fitting: Step | None
    refused: dict[str, str]

    @property
    def gpu(self) -> Gpu:
        return GPUS[self.card]

    @property
    def precision(self) -> str:
        return self.asked[2].dtype

    @property
    def fits(self) -> bool:
        return self.step.needed <= self.gpu.gib


def plans(
    main: Callable[..., None],
    parse: Callable[[list[str]], Asked],
    arguments: Sequence[str],
    cards: Sequence[str],
    smaller: Mapping[str, str] = SMALLER,
) -> Iterator[Plan]:
    """Have the recipe's `main` run as on each card, on shapes, up to its first step, and again with other flags where
    that does not fit; what two cards would do alike is done once.

    `parse` makes the recipe's settings of its `arguments`; `smaller` has the next smaller model of some. Raises
    `PlanError`, and what the recipe refuses.
    """
    known: dict[tuple, tuple[Asked, Step] | None] = {}
    refused: dict[str, dict[str, str]] = {card: {} for card in cards}

    def count(card: str, flags: list[str]) -> tuple[Asked, Step] | None:
        alike = GPUS[card].precision, GPUS[card].gib < SMALL_CARD_GIB, *flags
        if alike not in known:
            try:
                known[alike] = counted(main, parse, [*arguments, "--plan", card, *flags], GPUS[card])
            except ValueError as error:  # as of every refusal
                if not flags:
                    raise
                known[alike] = None  # such as four bits where the whole model trains
                refused[card][" ".join(flags)] = " ".join(str(error).split())
        return known[alike]

    for card in cards:
        gpu = GPUS[card]
        asked, step = count(card, [])
        fits = step.needed <= gpu.gib
        flags, fitting = ([], step) if fits else climb(partial(count, card), asked, step, gpu, smaller)
        yield Plan(card, asked, step, flags, fitting, refused[card])


def counted(
    main: Callable[..., None], parse: Callable[[list[str]], Asked], arguments: Sequence[str], gpu: Gpu
) -> tuple[Asked, Step]:
    """The settings that `parse` makes of the arguments on this card, and the step that `main` would take with them."""
    # A CPU's autocast has no float16: it is counted in bfloat16, which is as large.
    launched = {MIXED_PRECISION: "bf16" if gpu.precision == "fp16" else gpu.precision}
    token = planned_gib.set(gpu.gib)
    try:
        with tempfile.TemporaryDirectory() as folder, patch_environment(**launched), quietly():
            data, training, model = asked = parse([*arguments, *QUIET, "--output_dir", folder])
            if not training.do_train:
                raise PlanError("--plan is of a training: leave --do_train false out")
            training.resume_from_checkpoint = None
            if gpu.precision == "fp16" and model.dtype == DTYPES["bf16"]:
                model.dtype = DTYPES["fp16"]
            with without_weights(as_trained=True):
                main(*asked)
    except Planned as planned:
        return asked, planned.step
    finally:
        planned_gib.reset(token)
    raise PlanError("nothing was trained")


@contextmanager
def quietly() -> Iterator[None]:
    """What is said of rows and weights is said in the run itself."""
    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "transformers", "accelerate")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    try:
        datasets.disable_progress_bars()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def say(main: Callable[..., None], parse: Callable[[list[str]], Asked], arguments: Sequence[str], cards: str) -> None:
    """Print the plan of each card. Raises `PlanError` under a launch of several processes, which share a batch out."""
    if PartialState().num_processes > 1 or any(map(parse_flag_from_env, SHARDED)):
        raise PlanError(
            "--plan is of one card: start it without accelerate launch, or with accelerate_configs/cpu.yaml"
        )
    for made in plans(main, parse, arguments, list(GPUS) if cards == "all" else [cards]):
        print(described(made), flush=True)


def described(made: Plan) -> str:
    step, gpu = made.step, made.gpu
    parts = step.counted
    states = f"{size(step.states / GIB)}, {step.optimizer}" + (", in the main memory" if step.paged else "")
    at_once = f"{step.evaluated} row{'s' * (step.evaluated != 1)} at once"
    evaluated = f"{size(step.evaluation / GIB)} beside the weights, {at_once}, answers' caches left out"
    verdict = f"{step.needed:.1f} of {gpu.gib:.1f} GiB with {ALLOWANCE} for CUDA"
    bits = f", {step.bits} bits" if step.bits else ""
    lines = [
        f"{gpu.name} (accelerate_configs/{made.card}.yaml, {made.precision}{bits}): {step.what}",
        f"  weights      {size(parts.weights / GIB)}",
        f"  gradients    {size(parts.gradients / GIB)}",
        f"  optimizer    {states}",
        f"  activations  {size(parts.activations / GIB)}, when there are most",
        f"  evaluation   {evaluated}",
        f"  peak         {verdict}: {'fits' if made.fits else 'does not fit'}",
    ]
    if not made.fits and made.fitting is None:
        lines += ["  fits with    none of the changes that a recipe has flags for"]
    elif not made.fits:
        lines += [f"  fits with    {' '.join(made.flags)}: {made.fitting.needed:.1f} GiB"]
    lines += [f"  not tried    {flags}: {why}" for flags, why in made.refused.items()]
    if (fitting := made.fitting) is not None:
        hours = duration(3600 * fitting.hours(gpu, made.precision != DTYPES["no"]))
        teraflops = fitting.operations / 1e12
        step = f"{teraflops:{',.0f' if teraflops >= 10 else '.2g'}} TFLOP; {fitting.steps:,} steps take about {hours}"
        lines += [f"  a step       {step} at {SHARE:.0%} of the card's peak (assumed); evaluation comes on top"]
    return "\n".join(lines)
