"""A line a log and a line an evaluation, for people, where the Trainer prints dictionaries."""

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import transformers
from tqdm.auto import tqdm
from transformers.trainer_callback import PrinterCallback

if TYPE_CHECKING:
    from .generation_eval import GenerationEvalCallback

SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
NORM, LOSS, EVAL = "grad_norm/", "loss_", "eval_"


class LogLinesCallback(transformers.TrainerCallback):
    """Print what is logged as people read it; trackers and the log history get every number, as ever.

        step 120/2,000: loss 1.234, rate 9.8e-4, gradient norm 3.1 (vision .43, language 3), 3 min left
        step 500: iou_mean .782 (.739 to .822), constant box .475, loss .767

    Takes the place of the Trainer's own printing as it is made; a bar is drawn in a terminal alone. The norms by group
    are those of a `GradNormCallback`, parts of the loss what is logged as `loss_<part>`. The time left counts what
    steps, evaluations and checkpoints have taken so far; before the first evaluation it says so. Add it last.

    Args:
        trainer: the Trainer this is added to.
        watch: whose headline, with its interval and baseline, is an evaluation's line; without it what the Trainer has
            measured is.
    """

    def __init__(self, trainer: "transformers.Trainer", watch: "GenerationEvalCallback | None" = None):
        from transformers.trainer import DEFAULT_PROGRESS_CALLBACK  # brings much, which a Trainer has anyway

        for printing in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):
            trainer.remove_callback(printing)
        self.watch = watch
        self.bar: tqdm | None = None
        self.norms: tuple[int, dict[str, float]] = 0, {}  # the step that they are of
        self.first, self.evaluations, self.evaluated_at = 0, 0, -1
        self.begun = self.mark = time.monotonic()
        self.beside = 0.0  # seconds since then that no step took

    def on_train_begin(self, args, state, control, **kwargs):
        self.first, self.evaluations, self.evaluated_at, self.beside = state.global_step, 0, -1, 0.0
        self.begun = self.mark = time.monotonic()
        off = None if state.is_world_process_zero and not args.disable_tqdm else True  # None: but for a terminal
        self.bar = tqdm(total=state.max_steps, initial=self.first, dynamic_ncols=True, leave=False, disable=off)

    def on_step_end(self, args, state, control, **kwargs):
        self.mark = time.monotonic()
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, args, state, control, logs, **kwargs):
        if own := {key.removeprefix(NORM): value for key, value in logs.items() if key.startswith(NORM)}:
            own.pop("clipped_share", None)
            self.norms = state.global_step, own
        steps = f"step {state.global_step:,}/{state.max_steps:,}"
        if "loss" in logs:
            self._say(state, f"{steps}: {self._trained(logs, state)}, {self._left(args, state)}")
        elif "train_runtime" in logs:
            speed = f"{logs['train_samples_per_second']:,.3g} rows a second, evaluations included"
            self._say(state, f"{steps}: trained in {duration(logs['train_runtime'])}, {speed}")

    def on_evaluate(self, args, state, control, metrics: Mapping[str, Any], **kwargs):
        self.evaluations += self.evaluated_at != state.global_step  # of several datasets: one
        self.evaluated_at = state.global_step
        self._count_beside()
        if said := self._measured(metrics):
            self._say(state, f"step {state.global_step:,}: {', '.join(said)}")

    def on_save(self, args, state, control, **kwargs):
        self._count_beside()

    def close(self, *event, **kwargs) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    on_train_end = close

    def _count_beside(self) -> None:
        """What has passed since the last step, or since this was called, is none of the steps' time."""
        now = time.monotonic()
        self.beside, self.mark = self.beside + now - self.mark, now

    def _say(self, state, line: str) -> None:
        if state.is_world_process_zero:
            with tqdm.external_write_mode():
                print(line, flush=True)

    def _trained(self, logs: Mapping[str, Any], state) -> str:
        own = {key.removeprefix(LOSS): value for key, value in numbers(logs).items() if key.startswith(LOSS)}
        parts = _in_brackets(own, decimals)
        said = [f"loss {decimals(logs['loss'])}{parts}"]
        if "learning_rate" in logs:
            said.append(f"rate {rate(logs['learning_rate'])}")
        if "grad_norm" in logs:
            step, norms = self.norms
            groups = norms if step == state.global_step and len(norms) > 1 else {}
            said.append(f"gradient norm {digits(logs['grad_norm'])}{_in_brackets(groups, digits)}")
        return ", ".join(said)

    def _left(self, args, state) -> str:
        each = (self.mark - self.begun - self.beside) / max(state.global_step - self.first, 1)
        seconds, more = each * (state.max_steps - state.global_step), self._evaluations_left(args, state)
        if more and not self.evaluations:
            return f"{duration(seconds)} left and {more:,} evaluation{'s' * (more > 1)}"
        return f"{duration(seconds + more * self.beside / max(self.evaluations, 1))} left"

    def _evaluations_left(self, args, state) -> int:
        """How many are still to come, one at this step among them where it has not been."""
        strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
        if strategy == "steps":
            every, now, last = state.eval_steps, state.global_step, state.max_steps
        elif strategy == "epoch":
            every, now, last = 1, state.epoch or 0, state.num_train_epochs
        else:
            return 0
        if args.eval_delay > last:
            return 0
        been = math.ceil(now / every) - (self.evaluated_at != state.global_step)
        left_out = math.ceil(args.eval_delay / every) - 1
        return max(math.ceil(last / every) - max(been, left_out, 0), 0)

    def _measured(self, metrics: Mapping[str, Any]) -> list[str]:
        """An evaluation's numbers, the loss last."""
        if self.watch is None:
            ours = {key.removeprefix(EVAL): value for key, value in numbers(metrics).items() if key.startswith(EVAL)}
            said = [
                f"{name} {decimals(value)}"
                for name, value in ours.items()
                if name != "loss" and not name.endswith(SPEED)
            ]
        else:
            evaluation, said = self.watch.evaluation, []
            answered = f"{EVAL}{evaluation.headline}" in metrics  # and not with another of several datasets
            for name in (evaluation.headline, *evaluation.also) if answered else ():
                number = self.watch.metrics.get(name)
                if number is None or number.value is None:
                    continue
                said.append(f"{name} {decimals(number.value)}")
                if name == evaluation.headline and number.low is not None:
                    said[-1] += f" ({decimals(number.low)} to {decimals(number.high)})"
                if name == evaluation.headline and number.baseline is not None:
                    whose = evaluation.baseline.removeprefix("the ").removesuffix("'s")
                    said.append(f"{whose} {decimals(number.baseline)}")
        for key, value in numbers(metrics).items():
            name = key.removeprefix(EVAL)
            if name == "loss" or (self.watch and name.endswith("_loss")):  # without a watch all numbers are there
                said.append(f"{name.replace('_', ' ')} {decimals(value)}")
        return said


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers: somebody's metrics may have lists and texts among them."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _in_brackets(values: Mapping[str, float], written) -> str:
    return f" ({', '.join(f'{name} {written(value)}' for name, value in values.items())})" if values else ""


def decimals(value: float) -> str:
    """Three decimals, without a leading zero: ".782", "-.250" or "12.340"."""
    return _without_zero(f"{round(value, 3) + 0.0:.3f}")


def digits(value: float) -> str:
    """Two digits: "3.1", ".48", "1,200" or "2.2e-5"."""
    return _without_zero(f"{float(f'{value:.2g}'):,g}".replace("e-0", "e-"))


def rate(value: float) -> str:
    """A learning rate: "9.8e-4" or "0"."""
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


def _without_zero(text: str) -> str:
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def duration(seconds: float) -> str:
    """Seconds for people: "40 s", "12 min" or "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
