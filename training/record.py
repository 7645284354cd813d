"""What a run leaves in its output folder: run.json, results.json, predictions.jsonl, baseline.json and the report."""

import json
import platform
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, TrainerCallback

from ..callbacks.generation_eval import GenerationEvalCallback
from ..callbacks.preflight.blank_images import check_blank_images
from ..eval.evaluation import Evaluation
from ..eval.generation.generate import without_images
from ..eval.generation.kept import KeptAnswers
from ..eval.metrics.baselines import as_json
from ..eval.metrics.confusion import Confusion, confusion
from ..eval.metrics.number import UNKNOWN, Scores, flat
from ..eval.report.check import Check, check_learnt, save_checks
from ..eval.report.gallery import GalleryItem, shelves
from ..eval.report.page import replace_file
from ..eval.report.report import write_report
from ..eval.report.tables import Published, headline_table
from ..rows.conventions import Row
from ..rows.images import images_of
from ..rows.opened import open_image

LEFT = ("results.json", "predictions.jsonl", "run.json", "preflight.json", "data.html", "rejected.jsonl")


@dataclass
class RunRecord:
    """Keeps a run's output folder up to date; only the main process writes.

    Args:
        run: from `vlm_recipes.training.description.describe_run`.
        evaluation: what the run is evaluated by.
        rejected: the rows refused at load, `{split, id, reason}`.
        checks: what was checked before training, and after it.
        asked_again: rows of a split that are answered freely, too, and with blank images, evenly spread.
    """

    output_dir: str
    title: str
    evaluation: Evaluation
    run: dict[str, Any]
    published: Published | None = None
    rejected: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    asked_again: int = 500
    watched: Scores = field(default_factory=Scores, init=False)  # the last of the validation rows
    results: dict[str, Scores] = field(default_factory=dict, init=False)  # by split, of a run that has concluded

    def write(
        self,
        log_history: list[dict[str, float]],
        results: dict[str, Scores],
        predictions: dict[str, list[Row]],
        rows: dict[str, Any],
        finished: bool = False,
    ) -> Path | None:
        """Write everything; `results`, `predictions` and `rows` are by split. Returns the report's path."""
        self.watched = results.get("validation", self.watched)
        if not PartialState().is_main_process:
            return None
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        speed = [log["train_samples_per_second"] for log in log_history if "train_samples_per_second" in log]
        run = {**self.run, "peak_memory_gib": round(peak_memory(), 2), "finished": finished}
        run |= {"samples_per_second": speed[-1]} if speed else {}
        run["groups"] = self.evaluation.groups
        _write(folder / "run.json", json.dumps(run, indent=2, ensure_ascii=False, default=str))
        as_flat = {split: flat(scores) if scores else {} for split, scores in results.items()}
        _write(folder / "results.json", json.dumps(as_flat, indent=2))
        _write(folder / "baseline.json", as_json(self.evaluation.blind))
        save_checks(folder, self.checks)
        lines = [{"split": split, **row} for split, answered in predictions.items() for row in answered]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        _write(folder / "predictions.jsonl", text)
        split = next(reversed(predictions), "")  # whose answers the report shows
        answered, of_split = predictions.get(split, []), rows.get(split, [])
        looked_at = self.evaluation.group or self.evaluation.class_pairs
        plain = without_images(of_split) if answered and looked_at else []
        return write_report(
            folder,
            title=self.title,
            headline=self.evaluation.headline,
            log_history=log_history,
            results=results,
            watched=self.watched,
            gallery=self._gallery(answered, of_split, plain),
            published=self.published,
            run=run,
            rejected=self.rejected,
            also=self.evaluation.also,
            groups=self.evaluation.groups,
            confusions=self._confusions(answered, plain),
            answered_split=split,
            checks=self.checks,
        )

    def conclude(
        self,
        model: PreTrainedModel,
        rows: dict[str, Any],
        log_history: list[dict[str, float]],
        kept: KeptAnswers | None = None,
    ) -> None:
        """Evaluate `rows` (split -> rows) on every process, write everything for good and say where it is.

        Of the last split some are asked again with blank images, and a line says of each of its groups that is not
        clear of its baseline. Answers are `kept` as they come, if it is said where.
        """
        answered = {
            split: self.evaluation(model, part, self.asked_again, kept and kept.of(split))
            for split, part in rows.items()
        }
        self.results = results = {split: metrics for split, (metrics, _) in answered.items()}
        predictions = {split: predicted for split, (_, predicted) in answered.items()}
        evaluation, checks = self.evaluation, []
        if rows:
            split = next(reversed(rows))
            last = rows[split], predictions[split], self.asked_again, kept and kept.of(split)
            checks = [check_blank_images(evaluation, model, *last)]
            number = results[split].get(evaluation.headline, UNKNOWN)
            checks += check_learnt(evaluation.headline, number, evaluation.groups, evaluation.baseline)
            self.checks += checks
        report = self.write(log_history, results, predictions, rows, finished=True)
        if report is not None:
            shown = evaluation.headline, evaluation.groups, evaluation.baseline
            beside = ", ".join(name for name in LEFT if report.with_name(name).is_file())
            print(headline_table(self.title, results, *shown) if results else self.title, *checks, sep="\n")
            print(f"report: {report}\nbeside it: {beside}", flush=True)

    def _gallery(self, predictions: list[Row], rows: Any, plain: list[Row]) -> list[GalleryItem]:
        """One item per answered row; only those that the report shows get their image decoded and drawn on."""
        items = [GalleryItem(row["id"], [], "", "", "", row["score"]) for row in predictions]
        for item, row in zip(items, plain if self.evaluation.group else (), strict=False):
            image_id = row.get("image_id")
            item.group, item.image_id = self.evaluation.group(row), "" if image_id is None else str(image_id)
        shown = {id(item) for shelf in shelves(items) for item in shelf.items}
        background = getattr(self.evaluation.collator, "background", "white")
        for i, (item, predicted) in enumerate(zip(items, predictions, strict=True)):
            if id(item) in shown:
                row, answer, evaluation = rows[i], predicted["prediction"], self.evaluation
                item.question, item.prediction = evaluation.question(row), evaluation.shown(row, answer)
                item.reference = evaluation.shown(row, predicted["reference"])
                upright = [open_image(image, background) for image in images_of(row)]
                item.images = [evaluation.draw(image, row, answer) if evaluation.draw else image for image in upright]
        return items

    def _confusions(self, predictions: list[Row], plain: list[Row]) -> dict[str, Confusion]:
        """One table per group whose answers have classes; where rows have no groups, as those of boxes, one in all."""
        evaluation = self.evaluation
        pairs = {name: [] for name in evaluation.groups}
        for row, predicted in zip(plain, predictions, strict=True) if plain and evaluation.class_pairs else ():
            group = evaluation.group(row) if evaluation.group else "boxes"
            pairs.setdefault(group, []).extend(evaluation.class_pairs(row, predicted["prediction"]))
        return {name: confusion(*zip(*found, strict=True)) for name, found in pairs.items() if found}


class ReportCallback(TrainerCallback):
    """Write the report after each evaluation and when training ends. Add it after the callback that it watches."""

    def __init__(self, record: RunRecord, watched: GenerationEvalCallback):
        self.record, self.watched = record, watched

    def on_evaluate(self, args, state, control, **kwargs):
        latest = (self.watched.metrics, self.watched.predictions, self.watched.rows)
        self.record.write(state.log_history, *({"validation": part} for part in latest))

    on_train_end = on_evaluate

    def on_train_begin(self, args, state, control, **kwargs):
        report = Path(self.record.output_dir, "report.html")
        PartialState().print(f"while it trains: {report}, from the first evaluation on", flush=True)


def _write(path: Path, text: str) -> None:
    replace_file(path, text.encode(errors="backslashreplace"))  # a lone surrogate becomes JSON's own escape


def peak_memory() -> float:
    """The peak in GiB of what PyTorch allocated on this process's GPU; without one, of the whole process."""
    if PartialState().device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Darwin" else 1)
    return kilobytes / 2**20
