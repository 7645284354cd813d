"""A training goes on as it was begun: each checkpoint keeps what decided its rows, steps and rates.

That is the recipe; the rows to train and to validate on, as the data has them; the settings of `Data` and `Model`, but
for those that say where the same rows lie, how answers are asked for, or in which format is computed; the seed, the
rates and their schedule; and how many rows a step takes. More steps, the same batch split otherwise over processes and
accumulation, and other versions of this project and its prompts are no reason to stop.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from .checkpoints import ResumeError
from .folder import differences, run_of
from .runs import kept_in

# Of `TrainingArguments`: where rows begin and in which order they come; what an optimizer that is read again keeps.
TRAINING = ("seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last", "learning_rate")
TRAINING += ("vision_learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args")
TRAINING += ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
TRAINING += ("metric_for_best_model", "greater_is_better")  # the best so far has its number in the checkpoint
# Of `Data` and `Model`: where the rows lie and how many there are, which the rows themselves say; answering; formats.
FREE = re.compile(
    r"dataset_(name|config|\w+_split)|\w+_folder|videos|max_(train|validation|test)_rows|max_rejected"
    r"|eval_rows|max_new_tokens|constrain|score|dtype|attn_implementation"
)
# What rows have from the data, and not from a recipe's prompt; of the answers the first that is there, as what a codec
# wrote of boxes is the model's way to say them.
COLUMNS = ("id", "image_id", "image_ids", "image_hash", "image_hashes", "question")
ANSWERS = ("masks", "boxes", "answer")
BESIDE = {"masks": "ignore", "boxes": "categories"}  # trained, too, where there are any


class TrainedAs(TrainerCallback, ExportableState):
    """Keeps in each checkpoint's `trainer_state.json` what the training was begun with, see `what_decides`."""

    def __init__(self, **decides: Any):
        self.decides = decides

    def state(self) -> dict[str, Any]:
        return {"args": self.decides, "attributes": {}}

    def on_train_begin(self, args, state, control, **kwargs):
        state.stateful_callbacks[type(self).__name__] = self.state()  # or that of a checkpoint would stay

    def refuse_another(self, checkpoint: str) -> None:
        """Raise `ResumeError`, on all processes, where the checkpoint was trained with something else, with both.

        One that does not say, for it is older than this, is named in a line.
        """
        changed = [""]
        if PartialState().is_main_process:
            before = kept_in(Path(checkpoint, TRAINER_STATE_NAME))
            if before is None:
                print(f"{checkpoint} does not say what it was trained with: nothing was compared with this launch")
            else:
                changed = [_changed(before, self.decides)]
                if not changed[0] and (uneven := differences(before, {"rows a step": self.decides["rows a step"]})):
                    print(f"{checkpoint} was trained with {uneven}: as many questions a step do not come out as even")
        broadcast_object_list(changed)
        if changed[0]:
            raise ResumeError(
                f"cannot go on from {checkpoint}, which was trained with {changed[0]}: launch it as before, or begin "
                "anew in another --output_dir"
            )


def what_decides(run: dict[str, Any], parts: dict[str, Dataset], args: TrainingArguments) -> dict[str, Any]:
    """What decides a training's rows, steps and rates, as JSON has it.

    Args:
        run: what `run.json` gets, from `describe_run`.
        parts: split -> rows.
        args: what the Trainer was given: where rows share an image, its batches count other rows than were asked.
    """
    arguments, used = run["arguments"], args.to_dict()
    settings = {key: used[key] for key in TRAINING if key in used}
    asked = arguments["data"] | arguments["model"]
    settings |= {key: value for key, value in asked.items() if not FREE.fullmatch(key)}
    settings["questions a step"], in_rows = (
        batch["per_device_train_batch_size"] * batch["gradient_accumulation_steps"] * PartialState().num_processes
        for batch in (arguments["training"], used)
    )
    known = {split: parts[split] for split in ("train", "validation") if split in parts}
    name = arguments["data"].get("dataset_name")
    rows = {split: {"n": len(part), "contents": contents(part), "of": name} for split, part in known.items()}
    decides = {"run": run_of(run["recipe"], arguments), "settings": settings, "rows": rows, "rows a step": in_rows}
    decides |= {"tested": contents(parts["test"])} if "test" in parts else {}  # for `trained_on`
    return json.loads(json.dumps(decides, default=str))


def contents(rows: Dataset) -> str:
    """A name for what the data says of these rows, in their order: the same wherever it lies."""
    answer = [name for name in ANSWERS if name in rows.column_names][:1]
    columns = [name for name in (*COLUMNS, *answer) if name in rows.column_names]
    more = [name for name in (*map(BESIDE.get, answer), "messages") if name in rows.column_names]
    found = hashlib.sha256()
    for batch in rows.select_columns([*columns, *more]).with_format("arrow").iter(10_000):
        found.update(json.dumps(batch.select(columns).to_pydict(), default=str).encode())
        for name in more:
            column = batch[name].combine_chunks()
            said = earlier_answers(column) if name == "messages" else column.to_pylist()
            if any(said):  # else the name stays what it was before these were looked at
                found.update(json.dumps([name, said], default=str).encode())
    return found.hexdigest()[:12]


def earlier_answers(messages: pa.ListArray) -> list[Any]:
    """What the assistant says before its last turn, each with its row's number; `messages` is a batch's column.

    Only these turns leave Arrow: most data has a turn a row, which the answer says, or a codec wrote of boxes.
    """
    if not (pa.types.is_list(messages.type) and pa.types.is_struct(messages.type.value_type)):
        return []  # of another shape, as a recipe of somebody's own may have them
    spoken, row = messages.flatten(), pc.list_parent_indices(messages).to_numpy()
    places = np.flatnonzero(pc.equal(spoken.field("role"), "assistant").to_numpy(zero_copy_only=False))
    places = places[:-1][row[places[:-1]] == row[places[1:]]]
    said = spoken.field("content").take(pa.array(places)).to_pylist() if len(places) else []
    return [[int(row[place]), _texts(content)] for place, content in zip(places, said, strict=True)]


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part.get("text")]


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs, with both values; "" for nothing."""
    if before["run"]["recipe"] != now["run"]["recipe"]:
        return differences({"recipe": before["run"]["recipe"]}, now["run"])
    changed = [differences(before["settings"], now["settings"])]
    for split, rows in before["rows"].items():
        both = rows, now["rows"].get(split, rows)
        if both[0]["contents"] != both[1]["contents"]:
            told = [f"{part['n']} rows of {part['of']} ({part['contents']})" for part in both]
            changed.append(f"{split} {told[0]} and not {told[1]}")
    return ", ".join(filter(None, changed))
