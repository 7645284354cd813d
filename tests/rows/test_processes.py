"""Several processes have the same rows, and each reads its own share of them."""

from pathlib import Path

import datasets
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from torch import nn
from transformers import Trainer, TrainingArguments

from tests.support.processes.launch import in_processes
from vlm_recipes.models.upstream import fingerprint
from vlm_recipes.rows.grouping import group_by_image
from vlm_recipes.rows.usable import usable_rows

IMAGES, QUESTIONS = 24, 3


def adapt(row: dict) -> dict:
    with open(Path(row["image"]["path"]).with_name("adapted"), "a") as file:
        file.write(f"{row['id']}\n")
    return {"id": row["id"], "image_id": row["image"]["path"], "question": f"{row['id']}?"}


def read_an_epoch(folder: Path) -> tuple[str, list[str], list[str]]:
    """What names this process's rows, those of the epoch, and those that it reads of them."""
    images = [str(folder / f"{i % IMAGES}.png") for i in range(IMAGES * QUESTIONS)]
    raw = datasets.Dataset.from_dict({"id": [str(i) for i in range(len(images))], "image": images})
    raw = raw.cast_column("image", datasets.Image(decode=False))
    output = folder / str(PartialState().process_index)
    (rows,), _ = usable_rows({"train": raw}, adapt, str(output), 0.0)
    grouped, read = group_by_image(rows, QUESTIONS), []

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        read.extend(row["image_id"] for row in batch)
        return {"rows": torch.zeros(len(batch))}

    settings = {"use_cpu": True, "ddp_backend": "gloo", "report_to": "none", "per_device_train_batch_size": 2}
    arguments = TrainingArguments(str(output), remove_unused_columns=False, **settings)
    trainer = Trainer(nn.Linear(1, 1), arguments, data_collator=collate, train_dataset=grouped)
    for _ in trainer.get_train_dataloader():
        pass
    return fingerprint(rows), grouped["image_id"][:], read


@pytest.mark.parametrize("number", [1, 2, 4])
def test_processes_prepare_rows_once_have_the_same_and_read_each_its_share(number, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for i in range(IMAGES):
        Image.new("RGB", (8, 6), (i, i, i)).save(tmp_path / f"{i}.png")
    found = in_processes(number, read_an_epoch, tmp_path)
    assert len((tmp_path / "adapted").read_text().split()) == IMAGES * QUESTIONS
    assert len({(name, *epoch) for name, epoch, _ in found}) == 1
    shares = [read for _, _, read in found]
    assert [len(share) for share in shares] == [IMAGES // number] * number
    assert sorted(sum(shares, [])) == sorted(found[0][1]) and len(set(found[0][1])) == IMAGES
