"""Answer a fixed set of rows at every evaluation and log the metric, so that training can be steered by it."""

import random
from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback

from ..eval.boxes import box_evaluation
from ..eval.evaluation import Evaluation
from ..eval.masks import mask_evaluation
from ..eval.metrics.baselines import ConstantMask, TypedMajority
from ..eval.metrics.number import Scores, flat
from ..eval.typed import typed_evaluation


class GenerationEvalCallback(TrainerCallback):
    """Log `eval_<metric>` from generated answers whenever the Trainer evaluates.

    All numbers enter the Trainer's `metrics`, so `metric_for_best_model="eval_<metric>"` and `EarlyStoppingCallback`
    (add it after this one) work with them. Every tracker sees them, too, intervals and baselines for the headline
    and its groups alone. `metrics` and `predictions` hold the latest evaluation.

    Args:
        trainer: the Trainer this is added to; its `log` reaches the trackers.
        rows: the rows to answer (chat rows, or whatever `evaluation`'s collator takes).
        limit: answer only this many, the same ones at every evaluation (drawn with `seed`). None: all.
    """

    def __init__(self, trainer: Trainer, rows: Any, evaluation: Evaluation, limit: int | None = None, seed: int = 0):
        self.trainer = trainer
        self.evaluation = evaluation
        if limit is not None and limit < len(rows):
            chosen = sorted(random.Random(seed).sample(range(len(rows)), limit))
            rows = rows.select(chosen) if hasattr(rows, "select") else [rows[i] for i in chosen]
        self.rows = rows
        self.metrics = Scores()
        self.predictions: list[dict[str, Any]] = []

    def on_evaluate(self, args, state, control, metrics, model, **kwargs):
        self.metrics, self.predictions = self.evaluation(model, self.rows)
        metrics.update({f"eval_{name}": value for name, value in flat(self.metrics).items()})
        shown = flat(self.metrics, brief_but_for=self.evaluation.headline)
        self.trainer.log({f"eval_{name}": value for name, value in shown.items()})


class IoUCallback(GenerationEvalCallback):
    """`GenerationEvalCallback` for boxes: logs `eval_iou_mean`, `eval_giou_mean`, `eval_accuracy_50`, … .

    Args:
        rows: chat rows with `boxes` (`[x1, y1, x2, y2]` in pixels as displayed) and `image_size` (`[width, height]`).
        collator: a `ChatCollator` with `prompt_only=True`.
        codec: reads boxes out of the model's text, see `vlm_recipes.eval.metrics.box_codecs.box_codec`.
        settings: further arguments of `vlm_recipes.eval.boxes.box_evaluation`, such as `baseline`.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Any,
        collator: Callable,
        codec: Any,
        limit: int | None = None,
        max_new_tokens: int = 128,
        **settings,
    ):
        super().__init__(trainer, rows, box_evaluation(collator, codec, max_new_tokens, **settings), limit)


class TypeAccuracyCallback(GenerationEvalCallback):
    """`GenerationEvalCallback` for typed short answers: logs `eval_accuracy`, `eval_accuracy_<type>` and alike.

    What is logged is described in `vlm_recipes.eval.metrics.type_accuracy.type_accuracy`.

    Args:
        rows: chat rows with `question`, `answer`, `image_id` and the columns of an
            `vlm_recipes.eval.metrics.question_types.QuestionType`.
        collator: a `ChatCollator` with `prompt_only=True`.
        majority: for the baselines, `vlm_recipes.eval.metrics.baselines.typed_majority` of the training rows.
        settings: further arguments of `vlm_recipes.eval.typed.typed_evaluation`, such as `constrain=False`.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Any,
        collator: Callable,
        majority: TypedMajority | None = None,
        limit: int | None = None,
        max_new_tokens: int = 48,
        **settings,
    ):
        super().__init__(trainer, rows, typed_evaluation(collator, max_new_tokens, majority, **settings), limit)


class MaskIoUCallback(GenerationEvalCallback):
    """`GenerationEvalCallback` for masks: logs `eval_giou`, `eval_ciou`, `eval_dice`, … .

    What is logged is described in `vlm_recipes.eval.masks.mask_evaluation`.

    Args:
        trainer: of a model with `generate_masks`, such as `vlm_recipes.models.lisa.model`.
        rows: rows of a `SegmentationCollator` with `question`, `answer`, `image_id`, `kind` and `first`.
        collator: a `SegmentationCollator` with `prompt_only=True`.
        constant: for the baselines, `vlm_recipes.eval.metrics.baselines.best_constant_mask` of the training rows.
        settings: further arguments of `vlm_recipes.eval.masks.mask_evaluation`, such as `kinds`.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Any,
        collator: Callable,
        constant: ConstantMask | None = None,
        limit: int | None = None,
        max_new_tokens: int = 32,
        **settings,
    ):
        super().__init__(trainer, rows, mask_evaluation(collator, max_new_tokens, constant, **settings), limit)
