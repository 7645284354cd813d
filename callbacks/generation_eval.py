"""Answer a fixed set of rows at every evaluation and log the metric, so that training can be steered by it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformers import Trainer, TrainerCallback

from ..eval.boxes import box_evaluation
from ..eval.evaluation import Evaluation
from ..eval.generation.workers import SameWorkers
from ..eval.masks import mask_evaluation
from ..eval.metrics.baselines import ConstantMask, Majority
from ..eval.metrics.number import Scores, flat
from ..eval.typed import typed_evaluation
from ..models.upstream import has_other_names_on_the_hub
from .resume import ResumeCallback


class GenerationEvalCallback(TrainerCallback):
    """Log `eval_<metric>` from generated answers whenever the Trainer evaluates.

    All numbers enter the Trainer's `metrics`, so `metric_for_best_model="eval_<metric>"` and `EarlyStoppingCallback`
    (add it after this one) work with them. Every tracker sees them, too, intervals and baselines for the headline
    and its groups alone. Where the Trainer has several `eval_dataset`s, rows are answered once, with the first; with
    none where `trainer.evaluate` is given a prefix other than "eval". `metrics` and `predictions` hold the latest
    evaluation. The data loader's workers live from the first evaluation to the training's end.

    Args:
        trainer: the Trainer this is added to; its `log` reaches the trackers.
        rows: the rows to answer each time (chat rows, or whatever `evaluation`'s collator takes).

    Raises `ValueError` where the rows lack a column that the metric reads.
    """

    def __init__(self, trainer: Trainer, rows: Any, evaluation: Evaluation):
        evaluation.require_columns(rows)  # before anything trains
        self.trainer, self.rows, self.evaluation = trainer, rows, evaluation
        self.workers = SameWorkers()
        self.metrics = Scores()
        self.predictions: list[dict[str, Any]] = []

    def on_train_begin(self, args, state, control, model, **kwargs):
        resumes = any(isinstance(other, ResumeCallback) for other in self.trainer.callback_handler.callbacks)
        lost = args.load_best_model_at_end and has_other_names_on_the_hub(model) and not resumes
        if lost and state.is_world_process_zero:
            print(
                f"! of this {model.config.model_type} the best checkpoint would be loaded without its weights "
                "(transformers issue 43701): trainer.add_callback(ResumeCallback(trainer))",
                flush=True,
            )

    def on_evaluate(self, args, state, control, metrics, model, **kwargs):
        named = isinstance(self.trainer.eval_dataset, dict)
        own = f"eval_{next(iter(self.trainer.eval_dataset))}_runtime" if named else "eval_runtime"
        if own not in metrics and any(name.endswith("_runtime") for name in metrics):  # of another dataset, or prefix
            return
        evaluation = replace(self.evaluation, workers=self.workers)
        self.metrics, self.predictions = evaluation(model, self.rows)
        metrics.update({f"eval_{name}": value for name, value in flat(self.metrics).items()})
        shown = flat(self.metrics, brief_but_for=self.evaluation.headline)
        self.trainer.log({f"eval_{name}": value for name, value in shown.items()})

    def close(self, *event, **kwargs) -> None:
        """Let the workers end."""
        self.workers.close()

    on_train_end = close


class IoUCallback(GenerationEvalCallback):
    """`GenerationEvalCallback` for boxes: logs `eval_iou_mean`, `eval_giou_mean`, `eval_accuracy_50`, … .

    `rows` are chat rows as `vlm_recipes.eval.boxes.box_evaluation` says, whose arguments the others are.
    """

    def __init__(
        self, trainer: Trainer, rows: Any, collator: Callable, codec: Any, max_new_tokens: int = 128, **settings
    ):
        super().__init__(trainer, rows, box_evaluation(collator, codec, max_new_tokens, **settings))


class TypeAccuracyCallback(GenerationEvalCallback):
    """`GenerationEvalCallback` for typed short answers: logs `eval_accuracy`, `eval_accuracy_<type>` and alike.

    `rows` are chat rows as `vlm_recipes.eval.typed.typed_evaluation` says, whose arguments the others are; what is
    logged is described in `vlm_recipes.eval.metrics.type_accuracy.type_accuracy`.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Any,
        collator: Callable,
        majority: Majority | None = None,
        max_new_tokens: int = 48,
        **settings,
    ):
        super().__init__(trainer, rows, typed_evaluation(collator, max_new_tokens, majority, **settings))


class MaskIoUCallback(GenerationEvalCallback):
    """`GenerationEvalCallback` for masks: logs `eval_giou`, `eval_ciou`, `eval_dice`, … .

    `rows` and what is logged are described in `vlm_recipes.eval.masks.mask_evaluation`, whose arguments the others
    are. The Trainer's model has `generate_masks`, such as `vlm_recipes.models.lisa.model`.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Any,
        collator: Callable,
        constant: ConstantMask | None = None,
        max_new_tokens: int = 32,
        **settings,
    ):
        super().__init__(trainer, rows, mask_evaluation(collator, max_new_tokens, constant, **settings))
