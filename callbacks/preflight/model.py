"""What can be said of a model before it trains: what of it does, its first loss, its memory, time and gradients."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_pt_utils import get_model_param_count

from ...eval.evaluation import Evaluation
from ...eval.generation.generate import without_images
from ...eval.report.check import Check
from ...models.parts import LANGUAGE, parts_of
from ..grad_norm import KINDS, kinds_of, parameters_by_group
from ..log_lines import duration
from .optimizers import optimizer_states
from .probe import Probe, probe

NEAR_FULL = 0.95  # of the GPU's memory
NAMED = 3  # tensors without gradient
# What an evaluation has beside an experiment's own metrics: the Trainers', and what stands before the names of ours.
BESIDE = ("loss", "runtime", "samples_per_second", "steps_per_second", "num_tokens", "mean_token_accuracy", "entropy")
BESIDE += ("baseline_", "question_baseline_", "free_", "constrained_gain")
WORSE = 1.25  # times the loss of a uniform guess: random weights are sure of what they say


@dataclass(frozen=True)
class Expected:
    """What a recipe states about its training, for the preflight to compare.

    Args:
        trains: a regular expression found in the name of each parameter that trains, and in no other's.
        share: of the parameters that train, 0-1; None where nothing is stated, such as for another model.
        first_loss: what an untrained model may lose at most; None: ln(vocabulary), a uniform guess at each token.
        parts: of the model, "language", "vision" or "projector" (see `vlm_recipes.models.parts`), in which everything
            is that trains; where it is LoRA, all their linear layers have it. Empty: nothing is said of them.
        doubt: of how the rows were read, to be said beside what their coordinates are.
    """

    trains: str = ""
    share: float | None = None
    first_loss: float | None = None
    parts: Sequence[str] = ()
    doubt: str = ""


def check_trainable(model: nn.Module, expected: Expected) -> Check:
    """Which parameters train, and how many, against what the recipe states."""
    trains = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    trained, total = count_parameters(model, True), count_parameters(model)
    numbers = {"trainable": trained, "parameters": total, "share": trained / total}
    if not trains:
        return Check("what trains", "stop", f"none of {total:,} parameters would be trained", numbers)
    found = f"{trained:,} of {total:,} parameters ({trained / total:.2%})"
    others, differs = [name for name in trains if not re.search(expected.trains, name)], False
    if expected.parts and (parts := parts_of(model)):
        others += [name for name in trains if name not in others and parts.part_of(name) not in expected.parts]
    if others:
        found += f", among them {len(others):,} tensors that the recipe does not name, such as {others[0]}"
    if expected.share is not None:
        found += f"; the recipe states {expected.share:.2%}"
        differs = not math.isclose(trained / total, expected.share, rel_tol=0.05)
    return Check("what trains", "warn" if others or differs else "pass", found, numbers)


def count_parameters(model: nn.Module, only_trainable: bool = False) -> int:
    """Parameters, also those packed in four bits or sharded."""
    if is_deepspeed_zero3_enabled():
        return get_model_param_count(model, trainable_only=only_trainable)
    return model.num_parameters(only_trainable=only_trainable)


def check_first_loss(loss: float, model: nn.Module, expected: Expected) -> Check:
    """A model that has learnt nothing is as good as a uniform guess; one that is worse reads the wrong thing."""
    head = model.get_output_embeddings().modules()  # PEFT may have wrapped it
    vocabulary = next(module.out_features for module in head if isinstance(module, nn.Linear))
    bound = math.log(vocabulary) if expected.first_loss is None else expected.first_loss
    of = f"a uniform guess among {vocabulary:,} tokens" if expected.first_loss is None else "the recipe's bound"
    found, numbers = f"{loss:.3f}; {of} has {bound:.3f}", {"loss": loss, "bound": bound}
    if not math.isfinite(loss):
        return Check("first loss", "stop", f"{loss}, which is no number", numbers)
    return Check("first loss", "warn" if loss > WORSE * bound or loss < 1e-3 else "pass", found, numbers)


def check_best(args: TrainingArguments, evaluation: Evaluation, rows: Dataset) -> Check | None:
    """A metric for the best model that an evaluation does not give: the first one would end in the Trainer's error."""
    plain = without_images(rows.select(range(1)))
    known = [*evaluation.metric([evaluation.reference(row) for row in plain], plain)]
    asked = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if args.eval_strategy == "no" or asked.startswith((*known, *BESIDE)):
        return None
    names = ", eval_".join((*known, "loss"))
    return Check("best model", "stop", f"--metric_for_best_model {args.metric_for_best_model} is none of eval_{names}")


def check_steps(trainer: Trainer, batch: Mapping[str, Any], steps: int, what: str, expected: Expected) -> list[Check]:
    """First loss, time and memory, graphs of frozen parts and gradients, of `trainer`'s own step on a long batch.

    `what` names the batch for people; `steps` are those of the whole training.
    """
    model, sharded = trainer.model, trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    try:
        seen = probe(trainer, batch, backward=not sharded)
    except torch.OutOfMemoryError:
        advice = "lower --per_device_train_batch_size or the pixels of an image, or checkpoint activations"
        return [Check("longest batch", "stop", f"the memory does not hold {what}: {advice}")]
    first = check_first_loss(seen.loss, model, expected)
    if sharded:
        reason = "not measured where the model is sharded; the first steps show it"
        return [first, *(Check(name, "skip", reason) for name in ("longest batch", "frozen parts", "gradients"))]
    graphs = Check("frozen parts", "pass", "no graph is kept of what does not train")
    if seen.holding_graph:
        named = ", ".join(seen.holding_graph[:3])
        found = f"a graph is kept of {named}, which do not train and have nothing before them that does"
        graphs = Check("frozen parts", "warn", found, {"holding_graph": len(seen.holding_graph)})
    return [first, _fits(trainer, model, seen, what, steps), graphs, check_gradients(model, seen.gradients)]


def _fits(trainer: Trainer, model: nn.Module, seen: Probe, what: str, steps: int) -> Check:
    optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    known = optimizer_states(optimizer, model)
    states = (known or 0) / 2**30
    step = seen.seconds * trainer.args.gradient_accumulation_steps
    numbers = {"seconds": seen.seconds, "gib": seen.memory, "optimizer_gib": states, "eta_hours": step * steps / 3600}
    found = f"{what}: {seen.seconds:.2f} s, {size(seen.memory)} and "
    found += f"{size(states)} for {optimizer}" if known else f"what {optimizer} holds"
    found += f"; {steps:,} steps take at most {duration(step * steps)}, evaluation not counted"
    if trainer.args.device.type == "cuda":
        whole = torch.cuda.get_device_properties(trainer.args.device).total_memory / 2**30
        if seen.memory + states > NEAR_FULL * whole:
            return Check("longest batch", "warn", f"{found}; the GPU has {size(whole)}", numbers)
    return Check("longest batch", "pass", found, numbers)


def check_gradients(model: nn.Module, gradients: Mapping[str, float | None]) -> Check:
    """Every tower that trains gets a gradient, each by itself; LoRA's A may wait for its tower's B to leave zero."""
    towers = parameters_by_tower(model)
    norms = {key: math.sqrt(sum((gradients[name] or 0) ** 2 for name in names)) for key, names in towers.items()}
    silent = [name for names in towers.values() for name in names if gradients[name] is None]
    several = Counter((group, kind) for group, kind, _ in towers)
    titles = {}
    for group, kind, path in towers:
        tower = path if several[group, kind] > 1 else kind
        titles[group, kind, path] = tower if group == kind else f"{group} of {tower}"
    numbers: dict[str, float] = {"tensors_without_gradient": len(silent)}
    for key, norm in norms.items():
        numbers |= {key[0]: math.hypot(numbers.get(key[0], 0.0), norm)}  # of a group with all its towers
    numbers |= {titles[key]: norm for key, norm in norms.items()}
    wrong = next((key for key, norm in norms.items() if not math.isfinite(norm)), None)
    if wrong or not any(norms.values()):
        whose = titles[wrong] if wrong else "every tower"
        return Check("gradients", "stop", f"that of {whose} is {norms.get(wrong, 0.0)}", numbers)
    quiet = [
        titles[(group, *tower)]
        for (group, *tower), norm in norms.items()
        if norm == 0 and not (group == "lora_a" and norms.get(("lora_b", *tower)))
    ]
    found = ", ".join(f"{titles[key]} {norm:.3g}" for key, norm in norms.items())
    if silent:
        more = f" and {len(silent) - NAMED:,} more" if len(silent) > NAMED else ""
        found += f"; without gradient in this batch: {', '.join(silent[:NAMED])}{more}"
    if quiet:
        return Check("gradients", "warn", f"{' and '.join(quiet)} would not learn: {found}", numbers)
    return Check("gradients", "pass", found, numbers)


def parameters_by_tower(model: nn.Module) -> dict[tuple[str, str, str], list[str]]:
    """`(group, kind, path)` -> the names of a tower's parameters that train.

    The group is that of `GradNormCallback`; the kind the one that it would be without LoRA; the path says which tower
    of that kind: the name as far as the kind shows in it, "" for a language model.
    """
    towers: dict[tuple[str, str, str], list[str]] = {}
    parts, kind_of = parts_of(model), kinds_of(model)
    for group, parameters in parameters_by_group(model).items():
        for name in parameters:
            kind, path = kind_of(name), ""
            if kind != LANGUAGE and parts:
                path = parts.tower_of(name).removeprefix("base_model.model.")
            elif kind != LANGUAGE:
                heads = accumulate(name.removeprefix("base_model.model.").split("."), "{}.{}".format)
                path = next(head for head in heads if re.search(KINDS[kind], f"{head}."))
            towers.setdefault((group, kind, path), []).append(name)
    return towers


def size(gib: float) -> str:
    """GiB for people: "17.3 GiB" or "43.2 MiB"."""
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.1f} MiB"
