"""README.md of a run's folder: what it holds, of what that is made, how good it is and how to ask it.

It takes the place of what TRL, the Trainer and PEFT write there while the run trains, has the metadata that the Hub
reads, and goes there with the report where the model does.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.repocard import RepoCard
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from peft import PeftModel
from transformers import PreTrainedModel, TrainingArguments

from ..callbacks.grad_norm import kinds_of
from ..eval.metrics.number import Scores
from ..eval.report.page import replace_file, visible
from ..eval.report.tables import Table, cells, metric_table
from ..rows.conventions import Row
from .description import kept_in_words
from .record import RunRecord
from .runs import first_base
from .snippet import asked

CARD = "README.md"
UPLOADED = (CARD, "report.html", "data.html", "figures/*", "results.json", "predictions.jsonl", "run.json")
UPLOADED += ("preflight.json", "baseline.json")  # what the conclusion of a run has written anew
TAG = "vlm-recipes"
TASKS = {"lisa": "image-segmentation", "surgvivqa": "visual-question-answering"}  # of models; else the next one
TASK = "image-text-to-text"
WHOLE = "This folder holds the whole model."
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_model_card(
    record: RunRecord, network: PreTrainedModel | PeftModel, example: Row, steps: int, repository: str | None = None
) -> None:
    """Write README.md into the folder of a run that has concluded, whatever stands there.

    Args:
        network: what the run trained.
        example: the columns that a prompt is made of, see `vlm_recipes.training.snippet`.
        steps: how many were trained.
        repository: on the Hub, where the folder goes.
    """
    run, evaluation, arguments = record.run, record.evaluation, record.run["arguments"]
    base, data = first_base(arguments["model"]["model_name_or_path"]), arguments["data"]["dataset_name"]
    of_base, of_data = licence_of(base, "model"), licence_of(data, "dataset")
    name = (repository or Path(record.output_dir).resolve().name).split("/")[-1]
    is_adapter, task = isinstance(network, PeftModel), TASKS.get(network.config.model_type, TASK)
    shown = (evaluation.headline, *evaluation.also)
    parts = {
        split: Scores(scores.n, {metric: scores[metric] for metric in shown if metric in scores})
        for split, scores in record.results.items()
    }
    metadata = ModelCardData(
        model_name=name,
        base_model=None if Path(base).exists() else base,
        base_model_relation="adapter" if is_adapter else "finetune",
        datasets=None if Path(data).exists() else [data],
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=task,
        tags=[TAG, run["recipe"]],
        eval_results=list(_indexed(parts, evaluation.groups, _named(data), task)) or None,
        **of_base,
    )
    check = next((check.found for check in record.checks if check.name == "what trains"), "not recorded")
    training = {**arguments["training"], **run.get("trained_with", {})}
    versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
    kept = f"; {said}" if (said := kept_in_words(run)) else ""
    facts = {
        "base model": f"{_named(base)}, licence: {_in_words(of_base)}",
        "data": f"{_named(data)}, licence: {_in_words(of_data)}",
        "trained": check + _adapter_in_words(network),
        "base model's format": f"{bits} bits" if (bits := run.get("quantised_bits")) else arguments["model"]["dtype"],
        "training": f"{steps:,} steps, learning rate {training['learning_rate']:g}, seed {training['seed']}{kept}",
        "made on": f"{run['processes']} × {run['device']}; {versions}",
    }
    body = TEMPLATES.get_template("model_card.md.jinja").render(
        name=plain(name),
        title=plain(record.title),
        recipe=plain(run["recipe"]),
        commit=run["git_commit"],
        holds=_holds(network) if is_adapter else WHOLE,
        facts=[(what, plain(said).replace("|", r"\|")) for what, said in facts.items()],
        tables=[_table(split, scores, evaluation.headline) for split, scores in parts.items() if scores],
        baseline=evaluation.baseline,
        warnings=[plain(f"{check.name}: {check.found}") for check in record.checks if check.status == "warn"],
        folder=repr(repository or record.output_dir),
        **asked(network, evaluation, example),
    )
    card = ModelCard.from_template(metadata, template_str="---\n{{ card_data }}\n---\n\n{{ body }}\n", body=body)
    replace_file(Path(record.output_dir, CARD), str(card).encode(errors="backslashreplace"))


def card_of_export(folder: Path, into: Path, to: Path) -> None:
    """Write the card of a run's `folder`, if it has one of ours, `into` the whole model's, to be called `to`."""
    file = folder / CARD
    card = ModelCard.load(file) if file.is_file() else None
    if card is not None and TAG in (card.data.tags or ()):
        card.data.library_name, card.data.base_model_relation = "transformers", "finetune"
        text = re.sub("^This folder holds .*$", WHOLE, str(card), count=1, flags=re.MULTILINE)
        text = re.sub("^folder = .*$", lambda _: f"folder = {str(to)!r}", text, count=1, flags=re.MULTILINE)
        replace_file(into / CARD, text.encode())


def upload_report(training: TrainingArguments, repository: str) -> None:
    """Send the card, and the report with what it is made of, to where the Trainer has sent the model."""
    HfApi().upload_folder(
        repo_id=repository,
        folder_path=training.output_dir,
        allow_patterns=list(UPLOADED),
        commit_message="Model card and report",
        revision=training.hub_revision,
    )


def licence_of(name: str, kind: str) -> dict[str, str]:
    """What the card of a model or a dataset, on the Hub or in a folder, says of its licence, as cards name it."""
    try:
        card = RepoCard.load(Path(name, CARD) if Path(name).exists() else name, repo_type=kind)
    except (OSError, ValueError, yaml.YAMLError):  # there is none, it cannot be reached or be read
        return {}
    known = {key: card.data.get(key) for key in ("license", "license_name", "license_link")}
    return {key: value for key, value in known.items() if value}


def plain(text: str) -> str:
    """A text from anywhere in one line of markdown that means nothing more."""
    return html.escape(" ".join(visible(text).split()), quote=False).replace("[", r"\[")


def _in_words(licence: Mapping[str, Any]) -> str:
    found = licence.get("license_name") or licence.get("license") or "not stated"
    return ", ".join(map(str, found if isinstance(found, list) else [found]))


def _named(name: str) -> str:
    """A folder of this machine by its last name, where that is one."""
    if not Path(name).exists():
        return name
    last = Path(name).resolve().name
    return last if re.fullmatch(r"[\w .-]+", last) else "a local folder"


def _adapter_in_words(network: PreTrainedModel | PeftModel) -> str:
    if not isinstance(network, PeftModel):
        return ""
    config = network.active_peft_config
    is_lora = any("lora_" in name for name, _ in network.named_parameters())
    lora = f"; LoRA, r = {config.r}, alpha = {config.lora_alpha}, dropout = {config.lora_dropout:g}" if is_lora else ""
    return lora + (f"; whole: {', '.join(sorted(config.modules_to_save))}" if config.modules_to_save else "")


def _holds(network: PeftModel) -> str:
    kind = kinds_of(network)
    vision = any("lora_" in name and kind(name) == "vision" for name, _ in network.named_parameters())
    dropped = ", where some servers drop the vision tower's part without a word (vLLM issue 32541)" if vision else ""
    return f"This folder holds an adapter{dropped}: `vlm-export` makes a whole model of it and its base."


def _table(split: str, scores: Scores, headline: str) -> Table:
    rows = [cells(row) for row in metric_table(scores, headline)]
    return Table(f"{split} (n = {scores.n:,})", [{**row, "metric": plain(row["metric"])} for row in rows])


def _indexed(parts: Mapping[str, Scores], groups: Sequence[str], data: str, task: str) -> Iterator[EvalResult]:
    """Each number, and those of its groups, as the Hub's model-index has it."""
    for split, scores in parts.items():
        for metric, number in scores.items():
            own = {group: number.groups[group] for group in groups if group in number.groups}
            for group, one in {"": number, **own}.items():
                if one.value is not None:
                    known = {key: getattr(one, key) for key in ("n", "low", "high", "baseline")}
                    yield EvalResult(
                        task_type=task,
                        dataset_type=data,
                        dataset_name=data,
                        dataset_split=split,
                        metric_type=metric,
                        metric_name=f"{metric}, {plain(group)}" if group else metric,
                        metric_value=float(one.value),
                        metric_args={
                            key: value if key == "n" else float(value)
                            for key, value in known.items()
                            if value is not None
                        },
                    )
