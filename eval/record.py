"""What a run leaves in its output folder: run.json, results.json, predictions.jsonl and the report."""

import json
import platform
import resource
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image
from transformers import PreTrainedModel, TrainingArguments
from transformers.image_utils import load_image

from eval.evaluation import Evaluation
from eval.page import replace_file
from eval.report import GalleryItem, Published, best_and_worst, write_report

Row = dict[str, Any]
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets")


def describe_run(recipe: str, data: Any, training: TrainingArguments, model: Any, fingerprints: dict) -> dict:
    """Return what one needs to know to repeat a run: recipe, arguments, versions, git commit, dataset, device.

    Args:
        recipe: the recipe's `__file__`.
        fingerprints: split -> the fingerprint of its rows.
    """
    device = PartialState().device
    return {
        "recipe": Path(recipe).stem,
        "arguments": {"data": asdict(data), "training": training.to_dict(), "model": asdict(model)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": git_commit(Path(recipe).parent),
        "dataset_fingerprint": fingerprints,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {platform.machine()}",
        "processes": PartialState().num_processes,
    }


def git_commit(folder: Path) -> str | None:
    """The commit checked out at `folder`, with `-dirty` when files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory() -> float:
    """This process's peak memory in GiB: the GPU's where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Darwin" else 1)
    return kilobytes / 2**20


@dataclass
class RunRecord:
    """Keeps a run's output folder up to date; only the main process writes.

    Args:
        run: from `describe_run`.
        evaluation: what the run is evaluated by.
        rejected: the rows refused at load, `{split, id, reason}`.
    """

    output_dir: str
    title: str
    evaluation: Evaluation
    run: dict[str, Any]
    published: Published | None = None
    rejected: list[Row] = field(default_factory=list)

    def write(
        self,
        log_history: list[dict[str, float]],
        results: dict[str, dict[str, float]],
        predictions: dict[str, list[Row]],
        rows: dict[str, Any],
        finished: bool = False,
    ) -> Path | None:
        """Write everything; `results`, `predictions` and `rows` are by split. Returns the report's path."""
        if not PartialState().is_main_process:
            return None
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        speed = [log["train_samples_per_second"] for log in log_history if "train_samples_per_second" in log]
        run = {**self.run, "peak_memory_gib": round(peak_memory(), 2), "finished": finished}
        run |= {"samples_per_second": speed[-1]} if speed else {}
        _write(folder / "run.json", json.dumps(run, indent=2, ensure_ascii=False, default=str))
        _write(folder / "results.json", json.dumps(results, indent=2))
        lines = [{"split": split, **row} for split, answered in predictions.items() for row in answered]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        _write(folder / "predictions.jsonl", text)
        return write_report(
            folder,
            title=self.title,
            headline=self.evaluation.headline,
            log_history=log_history,
            results=results,
            gallery=self._gallery(predictions, rows),
            published=self.published,
            run=run,
            rejected=self.rejected,
        )

    def conclude(self, model: PreTrainedModel, rows: dict[str, Any], log_history: list[dict[str, float]]) -> None:
        """Evaluate `rows` (split -> rows) on every process, write everything for good and say where it is."""
        answered = {split: self.evaluation(model, part) for split, part in rows.items()}
        results = {split: metrics for split, (metrics, _) in answered.items()}
        predictions = {split: predicted for split, (_, predicted) in answered.items()}
        report = self.write(log_history, results, predictions, rows, finished=True)
        if report is not None:
            for split, metrics in results.items():
                print(f"{split}: {self._headline(metrics)}")
            print(f"report: {report}")

    def _headline(self, metrics: dict[str, float]) -> str:
        name = self.evaluation.headline
        parts = [f"n = {metrics['n']:.0f}"]
        if name in metrics:
            parts.insert(0, f"{name} {metrics[name]:.3f}")
        if f"{name}_low" in metrics:
            parts.append(f"95% interval {metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f}")
        if f"baseline_{name}" in metrics:
            parts.append(f"baseline {metrics[f'baseline_{name}']:.3f}")
        return ", ".join(parts)

    def _gallery(self, predictions: dict[str, list[Row]], rows: dict[str, Any]) -> list[GalleryItem]:
        """The last split's rows; only those that the report shows get their image decoded and drawn on."""
        if not predictions:
            return []
        split = list(predictions)[-1]
        items = [GalleryItem(row["id"], None, "", row["reference"], "", row["score"]) for row in predictions[split]]
        shown = {id(item) for part in best_and_worst(items) for item in part}
        for i, (item, predicted) in enumerate(zip(items, predictions[split], strict=True)):
            if id(item) in shown:
                row = rows[split][i]
                item.question, item.prediction = self.evaluation.question(row), predicted["prediction"]
                item.image, draw = _picture(row), self.evaluation.draw
                if draw and item.image is not None:
                    item.image = draw(item.image, row, item.prediction)
        return items


def _picture(row: Row) -> Image.Image | None:
    """A row's first image, from `image` or `images`, upright; None for a row without."""
    images = [row["image"]] if row.get("image") is not None else row.get("images") or []
    return load_image(images[0]) if images else None


def _write(path: Path, text: str) -> None:
    replace_file(path, text.encode(errors="backslashreplace"))  # a lone surrogate becomes JSON's own escape
