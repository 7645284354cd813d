"""The LISA recipe as a whole, on small checkpoints: it learns, adds up, agrees across processes, fails in one line."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from PIL import ImageDraw
from pycocotools import mask as coco
from safetensors.torch import load_file
from transformers import AutoConfig

from demo.checkpoints.llava import write_llava
from demo.checkpoints.sam import write_sam
from recipes import reasonseg
from tests.support.processes.launch import in_two_processes
from tests.support.running import QUIET, fails, read
from tests.support.session import once
from vlm_recipes.callbacks.preflight.callback import PreflightDone
from vlm_recipes.models.checkpoints import CheckpointError
from vlm_recipes.rows.formats.reasonseg import polygon_mask
from vlm_recipes.rows.grouping import group_by_image

ATTENTION = ("q_proj", "v_proj")
DEFAULT_SAM = reasonseg.Model.sam_name_or_path  # of a run's model it is not read
COLOURS = ["red", "lime", "blue", "yellow", "cyan", "magenta", "white", "orange"]


pytestmark = pytest.mark.usefixtures("figures_are_blank")


def write_scenes(folder: Path) -> None:
    """Eight pictures with two rectangles, one asked for by its colour, as every split; some asked twice."""
    for split in ("train", "val", "test"):
        (folder / split).mkdir()
        for i, colour in enumerate(COLOURS):
            box = [4 + 3 * i, 6 + 2 * i, 28 + 4 * i, 30 + 4 * i]
            image = PILImage.new("RGB", (64, 64), "black")
            ImageDraw.Draw(image).rectangle(box, fill=colour)
            image.save(folder / split / f"{i}.png")
            x1, y1, x2, y2 = box
            shapes = [{"label": "target", "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]}]
            shapes += [{"label": "ignore", "points": [[0, 60], [9, 60], [9, 63], [0, 63]]}] if i == 3 else []
            text = [f"the {colour} thing", "the only thing"][: 1 + (i == 5)]
            annotation = {"text": text, "is_sentence": False, "shapes": shapes}
            (folder / split / f"{i}.json").write_text(json.dumps(annotation))
    wordings = [template.format(colour) for template in reasonseg.PHRASES for colour in [*COLOURS, "only thing"]]
    answers = [answer.replace("[SEG]", "") for answer in reasonseg.ANSWERS]
    write_llava(
        folder / "model",
        [*wordings, *answers * 9, *["USER: ASSISTANT:"] * 9],
        hidden_size=64,
        layers=1,
        image_size=32,
        patch_size=16,
        initializer_range=0.1,
    )
    write_sam(folder / "model" / "sam", image_size=64)


@pytest.fixture(scope="session")
def scenes() -> Path:
    return once("scenes", write_scenes)


def start(dataset: Path, output: Path, data: dict | None = None, model: dict | None = None, **training) -> None:
    """Run the recipe in this process."""
    paths = {"model_name_or_path": str(dataset / "model"), "sam_name_or_path": str(dataset / "model" / "sam")}
    reasonseg.main(
        reasonseg.Data(dataset_name=str(dataset), **(data or {})),
        reasonseg.Training(**{**QUIET, "output_dir": str(output), **training}),
        reasonseg.Model(**{**paths, "tune": "all", "dtype": "float32", **(model or {})}),
    )


def run(dataset: Path, output: Path, *parts: dict, **settings) -> dict:
    start(dataset, output, *parts, **settings)
    return read(output)


LEARNING = dict(per_device_train_batch_size=8, gradient_accumulation_steps=1, learning_rate=2e-3, warmup_steps=10)


@pytest.fixture
def learnt(scenes) -> dict:
    """The recipe after it has learnt its eight pictures by heart, each with all its queries at once."""
    settings = {"max_steps": 60, "learning_rate": 3e-3, "eval_strategy": "steps", "eval_steps": 60}
    settings |= {"per_device_eval_batch_size": 9}
    parts = {"data": {"questions_per_row": 8}, "model": {"ce_weight": 0.05}}
    return read(once("scenes_learnt", lambda output: start(scenes, output, **parts, **(LEARNING | settings))))


def test_eight_masks_are_learnt_by_heart_and_drawn_after_the_model_s_own_seg(learnt):
    test = learnt["results"]["test"]
    assert test["n"] == 9 and test["giou"] > 0.9 and test["giou_low"] <= test["giou"] <= test["giou_high"]
    assert test["seg_rate"] == 1 and test["empty_rate"] == 0
    assert test["baseline_giou"] < 0.6 < test["ciou"]
    for row in learnt["predictions"]:
        if row["split"] == "test":
            text = row["prediction"]["text"].replace(" ", "")
            assert text in [answer.replace(" ", "") for answer in reasonseg.ANSWERS]
            [predicted], [true] = row["prediction"]["masks"], row["reference"]["masks"]
            ignored = row["id"].startswith("3")
            iou = coco.iou([predicted], [true], [0])[0][0]
            assert ignored or row["score"] == pytest.approx(iou)


def test_only_training_draws_its_wordings_and_each_epoch_others():
    query = {"question": "The red one?", "is_sentence": True, "masks": ["kept"]}
    rows = Dataset.from_list([{"id": str(i), "image_id": str(i), **reasonseg.asked(query)} for i in range(8)])

    def said(queries) -> list[list[str]]:
        assert all(
            query["masks"] == ["kept"] and query["answer"] == query["messages"][1]["content"] for query in queries
        )
        return [[message["content"] for message in query["messages"]] for query in queries]

    assert said(rows) == [["The red one? Please output segmentation mask.", "It is [SEG]."]] * 8
    drawn = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        grouped = group_by_image(rows, 1, seed, reworded=reasonseg.asked)
        grouped.format["format_kwargs"]["transform"].set_epoch(epoch)
        by_id = {row["queries"][0]["id"]: said(row["queries"])[0] for row in grouped}
        drawn[seed, epoch] = [by_id[str(i)] for i in range(8)]
    assert len({str(drawn[key]) for key in drawn}) == 3 and len({tuple(one) for one in drawn[0, 0]}) > 3
    assert reasonseg.prompt("the red one", False)[0]["content"].startswith("What is the red one in this image?")


def test_questions_shuffled_and_the_first_queries_have_lines_of_their_own(learnt):
    results = learnt["results"]
    assert list(results) == ["test, questions shuffled", "test"]
    assert results["test, questions shuffled"]["n"] == 9
    assert results["test"]["giou_first_query_n"] == 8 and results["test"]["giou_short query_n"] == 9
    report = (learnt["output"] / "report.html").read_text()
    assert "By group" in report and "short query" in report and "LISA 7B" in report and "[SEG]" in report
    assert "giou, ciou and loss on the validation split" in report
    gallery = report[report.index('class="card headline"') :]
    assert gallery.index(" thing<") < gallery.index("[SEG]")  # the question stands above the answer


def test_the_parts_of_the_loss_and_both_metrics_are_logged(learnt):
    log = learnt["log"]
    assert [log_ for log_ in log if {"loss", "loss_ce", "loss_bce", "loss_dice"} <= set(log_)]
    assert [entry["eval_giou"] for entry in log if "eval_giou" in entry and "eval_ciou" in entry]
    norms = {key for entry in log for key in entry if key.startswith("grad_norm/")}
    assert {"grad_norm/mask_decoder", "grad_norm/vision", "grad_norm/language", "grad_norm/projector"} <= norms
    assert {entry["tensors_without_gradient"] for entry in log if "tensors_without_gradient" in entry} == {0}


@pytest.mark.usefixtures("preflight_is_left_out")
@pytest.mark.parametrize("questions_per_row", [1, 8])
def test_loss_and_gradient_do_not_depend_on_how_a_batch_is_split(questions_per_row, scenes, tmp_path):
    seen = []
    for size, accumulation in [(4, 1), (2, 2), (1, 4)]:
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        output = tmp_path / f"{size}x{accumulation}"
        data = {"questions_per_row": questions_per_row}
        log = run(scenes, output, data, do_predict=False, max_steps=1, **settings)["log"]
        seen.append([log[0][name] for name in ("loss", "loss_ce", "loss_bce", "loss_dice", "grad_norm")])
    torch.testing.assert_close(torch.tensor(seen), torch.tensor(seen[:1] * 3), rtol=1e-4, atol=0)


def test_two_processes_evaluate_to_the_same_numbers_as_one(scenes, learnt, tmp_path):
    model, settings = {"model_name_or_path": str(learnt["output"])}, {"do_train": False}
    in_two_processes(partial(start, scenes, tmp_path, model=model, per_device_eval_batch_size=2, **settings))
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2
    ended = read(tmp_path)
    assert ended["results"]["test"] == pytest.approx(learnt["results"]["test"], abs=2e-3)
    texts = [[row["prediction"]["text"] for row in one["predictions"]][-9:] for one in (ended, learnt)]
    assert texts[0] == texts[1]


@pytest.mark.usefixtures("preflight_is_left_out")
def test_an_adapter_is_evaluated_again_to_the_same_masks_on_a_folder_with_a_test_split_alone(scenes, tmp_path):
    model = {"tune": "lisa", "ce_weight": 0.05}
    first = run(scenes, tmp_path / "a", model=model, **{**LEARNING, "max_steps": 40, "learning_rate": 5e-3})
    shutil.copytree(scenes / "test", tmp_path / "only" / "test")
    again = run(
        tmp_path / "only",
        tmp_path / "b",
        model={**model, "model_name_or_path": str(tmp_path / "a"), "sam_name_or_path": DEFAULT_SAM},
        do_train=False,
    )
    assert list(again["results"]) == ["test, questions shuffled", "test"]
    answered = [[row["prediction"] for row in one["predictions"] if row["split"] == "test"] for one in (first, again)]
    assert answered[0] == answered[1] and len(answered[0]) == 9
    assert again["results"]["test"]["baseline_giou"] > 0


def test_preflight_knows_the_recipe_s_own_loss_and_parts(scenes, tmp_path):
    with pytest.raises(PreflightDone):
        run(scenes, tmp_path, model={"tune": "lisa"}, max_steps=0)
    lines = {line["name"]: line for line in json.loads((tmp_path / "preflight.json").read_text())}
    assert {line["status"] for name, line in lines.items() if name != "images kept apart"} == {"pass"}
    vocabulary = AutoConfig.from_pretrained(scenes / "model").text_config.vocab_size
    assert lines["first loss"]["numbers"]["bound"] >= math.log(vocabulary) + 2 * math.log(2) + 0.5
    assert lines["coordinates"]["found"].startswith("all ") and "5,000 steps" in lines["longest batch"]["found"]
    assert {"lora_b", "mask_decoder"} <= set(lines["gradients"]["numbers"])
    assert not (tmp_path / "results.json").exists()


@pytest.mark.usefixtures("preflight_is_left_out")
def test_training_stops_when_the_score_no_longer_rises(scenes, tmp_path):
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "do_predict": False}
    still = {"max_steps": 9, "patience": 2, "learning_rate": 0.0, "load_best_model_at_end": True}
    done = run(scenes, tmp_path, {"eval_rows": 2, "max_new_tokens": 4}, **still, **every)
    assert max(entry["step"] for entry in done["log"] if "loss" in entry) == 3


def test_ask_draws_the_mask(scenes, learnt, capsys, tmp_path):
    from vlm_recipes.training.ask import main as ask

    output = tmp_path / "run"
    shutil.copytree(learnt["output"], output)
    ask([str(output), str(scenes / "test" / "0.png"), "the red thing"])
    assert "SEG" in capsys.readouterr().out
    assert max(PILImage.open(output / "answers" / "0.png").size) >= 256


def test_a_dataset_with_image_text_and_mask_is_read_as_its_folder_is(scenes, learnt, tmp_path):
    rows = {"image": [], "text": [], "mask": []}
    for i in range(8):
        path = scenes / "test" / f"{i}.png"
        annotation = json.loads(path.with_suffix(".json").read_text())
        target = polygon_mask(annotation["shapes"], [64, 64]) == 1
        rows["image"].append({"bytes": path.read_bytes(), "path": None})
        rows["text"].append(annotation["text"][0])
        rows["mask"].append(target.tolist())
    features = Features({"image": Image(), "text": Value("string"), "mask": List(List(Value("bool")))})
    dataset = Dataset.from_dict(rows).cast(features)
    (tmp_path / "hub").mkdir()
    dataset.to_parquet(tmp_path / "hub" / "test.parquet")
    model = {"model_name_or_path": str(learnt["output"]), "sam_name_or_path": DEFAULT_SAM}
    again = run(tmp_path / "hub", tmp_path / "out", model=model, do_train=False)
    references = [row["reference"]["masks"] for row in again["predictions"] if row["split"] == "test"]
    assert [np.array(coco.decode(mask[0]), dtype=bool).tolist() for mask in references] == rows["mask"]
    assert again["results"]["test"]["n"] == 8 and "giou_first_query" not in again["results"]["test"]


def test_what_cannot_work_ends_in_one_clear_line(scenes, tmp_path, monkeypatch):
    common = ["--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    data, model = ["--dataset_name", str(scenes)], ["--model_name_or_path", str(scenes / "model")]
    sam = ["--sam_name_or_path", str(scenes / "model" / "sam")]
    line = fails("reasonseg", *common, *data, "--model_name_or_path", "no/such/model", monkeypatch=monkeypatch)
    assert "no/such/model" in line
    line = fails("reasonseg", *common, *data, *model, "--sam_name_or_path", "no/such/sam", monkeypatch=monkeypatch)
    assert "no/such/sam" in line
    line = fails("reasonseg", *common, *model, *sam, "--dataset_name", "no/such/dataset", monkeypatch=monkeypatch)
    assert "no/such/dataset" in line
    shutil.copytree(scenes / "test", tmp_path / "only" / "test")
    line = fails("reasonseg", *common, *model, *sam, "--dataset_name", str(tmp_path / "only"), monkeypatch=monkeypatch)
    assert "train" in line


def test_broken_annotations_are_counted_and_too_many_stop_the_run(scenes, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    shutil.copytree(scenes, broken, ignore=shutil.ignore_patterns("model"))
    (broken / "train" / "0.json").write_text("{")
    (broken / "train" / "1.json").rename(broken / "train" / "other.json")
    arguments = ["--dataset_name", str(broken), "--model_name_or_path", str(scenes / "model"), "--use_cpu", "true"]
    arguments += ["--sam_name_or_path", str(scenes / "model" / "sam"), "--output_dir", str(tmp_path / "out")]
    line = fails("reasonseg", *arguments, monkeypatch=monkeypatch)
    assert line.startswith("error: 3 of 25 rows were refused")
    refused = [json.loads(row) for row in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in refused] == ["0", "1", "other"]


@pytest.mark.usefixtures("preflight_is_left_out")
@pytest.mark.parametrize("tune", ["seg", "decoder"])
def test_the_mask_decoder_learns_and_of_the_vocabulary_only_what_seg_is(scenes, tmp_path, tune):
    model = {"tune": tune, "ce_weight": 0.5}
    first = run(scenes, tmp_path / "a", model=model, **{**LEARNING, "max_steps": 80, "learning_rate": 1e-2})
    test, [row, *_] = first["results"]["test"], first["predictions"]
    assert test["giou"] > 0.9 and "[SEG]" in row["prediction"]["text"]
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    of_language = {name: weight.shape[0] for name, weight in weights.items() if "llava" in name}
    of_lora = {name for name in of_language if "lora_" in name}
    rows = {name: of_language[name] for name in of_language.keys() - of_lora}
    assert sorted(rows.values()) == [1, 1] and all("trainable_tokens_delta" in name for name in rows)
    assert bool(of_lora) == (tune == "seg") and all(name.split(".lora_")[0][-6:] in ATTENTION for name in of_lora)
    assert any("mask_decoder" in name for name in weights) and any("mask_projection" in name for name in weights)
    again = run(scenes, tmp_path / "b", model={"model_name_or_path": str(tmp_path / "a")}, do_train=False)
    assert [row["prediction"] for row in again["predictions"]] == [row["prediction"] for row in first["predictions"]]


def test_an_adapter_of_one_kind_is_not_trained_on_as_another(scenes, tmp_path):
    llava, sam = str(scenes / "model"), str(scenes / "model" / "sam")

    def load(tune: str, name: str = llava):
        model = reasonseg.Model(tune=tune, model_name_or_path=name, sam_name_or_path=sam, dtype="float32")
        return reasonseg.load(reasonseg.Data(), model, "out")[0]

    for tune in ("lisa", "seg", "decoder"):
        made = load(tune)
        made.save_pretrained(tmp_path / tune)
        made.config.save_pretrained(tmp_path / tune)
        load(tune, str(tmp_path / tune))
    for made, tune, message in (
        ("decoder", "lisa", "this adapter was made without LoRA"),
        ("decoder", "seg", "this adapter was made without LoRA"),
        ("lisa", "decoder", "this adapter was made with LoRA"),
        ("lisa", "seg", "modules_to_save"),
        ("seg", "lisa", "modules_to_save"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load(tune, str(tmp_path / made))


@pytest.mark.usefixtures("preflight_is_left_out")
def test_the_mask_decoder_trains_without_lora_in_four_bits(scenes, tmp_path):
    one_step = {**LEARNING, "max_steps": 1, "do_predict": False}
    run(scenes, tmp_path, model={"tune": "decoder", "ce_weight": 0.5, "load_in_4bit": True}, **one_step)
