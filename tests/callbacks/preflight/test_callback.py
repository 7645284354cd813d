"""Each line of the preflight, provoked: what passes, what warns and what stops; and that looking changes nothing."""

import base64
import io
import json
import math
import random
import re

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments, set_seed
from trl import SFTConfig, SFTTrainer

from tests.support import tiny
from tests.support.processes.shared_image import twelve_questions
from vlm_recipes.callbacks import FrozenPartsCallback, PreflightCallback, SharedImageCallback
from vlm_recipes.callbacks.preflight.blank_images import check_blank_images, with_blank_images
from vlm_recipes.callbacks.preflight.callback import PreflightDone, PreflightError
from vlm_recipes.callbacks.preflight.model import Expected, check_first_loss, check_gradients, duration
from vlm_recipes.callbacks.preflight.probe import frozen_parts
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.models.lora import layers_of
from vlm_recipes.rows.grouping import group_by_image
from vlm_recipes.rows.images import images_of

SETTINGS = {"report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, "max_steps": 3}
SETTINGS |= {"remove_unused_columns": False, "logging_steps": 1, "learning_rate": 1e-3}
LANGUAGE = r".*language_model.*(q|v)_proj"


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(tiny.qwen2_vl())


def started(tmp_path, processor, change=None, collator=None, rows=None, expected=None, **settings) -> dict:
    """Train three steps under a preflight, the model changed before; the preflight's lines by name."""
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    model = (change and change(model)) or model
    args = TrainingArguments(tmp_path, **(SETTINGS | settings))
    trainer = Trainer(
        model, args, data_collator=collator or ChatCollator(processor), train_dataset=rows or tiny.chat_rows()
    )
    callback = PreflightCallback(trainer, expected=expected)
    trainer.add_callback(callback)
    try:
        trainer.train()
        assert trainer.state.global_step == 3
    except PreflightError:
        assert trainer.state.global_step == 0
    saved = json.loads((tmp_path / "preflight.json").read_text())
    assert [(line["name"], line["status"]) for line in saved] == [(line.name, line.status) for line in callback.checks]
    return {check.name: check for check in callback.checks}


def with_lora(model, hooks: bool = False, **settings):
    if hooks:
        model.enable_input_require_grads()
    return get_peft_model(model, LoraConfig(r=4, target_modules=LANGUAGE, **settings))


def test_a_sound_run_passes_every_line(tmp_path, processor, capsys):
    lines = started(tmp_path, processor)
    assert {name: line.status for name, line in lines.items()} == dict.fromkeys(
        ["labels", "token lengths", "what trains", "first loss", "longest batch", "frozen parts", "gradients"], "pass"
    )
    out = capsys.readouterr().out
    assert all(f"✓ {name}: {line.found}\n" in out for name, line in lines.items())
    lengths = [len(ChatCollator(processor)([row])["input_ids"][0]) for row in tiny.chat_rows()]
    assert lines["token lengths"].numbers["longest"] == max(lengths)
    assert lines["token lengths"].numbers["mean"] == pytest.approx(np.mean(lengths))
    parameters = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()).num_parameters()
    assert lines["what trains"].numbers == {"trainable": parameters, "parameters": parameters, "share": 1.0}
    assert lines["longest batch"].numbers["seconds"] > 0


def test_looking_changes_no_number_of_the_training(tmp_path, processor):
    """With dropout, workers' order and shared images, to the last bit."""
    histories = []
    for looks in (False, True):
        set_seed(3)
        model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
        args = SFTConfig(
            tmp_path / str(looks), **SETTINGS, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None
        )
        trainer = SFTTrainer(
            model,
            args,
            data_collator=SharedImageCollator(processor),
            train_dataset=group_by_image(Dataset.from_list(twelve_questions()), 4),
            processing_class=processor,
            peft_config=LoraConfig(r=4, target_modules=LANGUAGE, lora_dropout=0.3),
        )
        trainer.add_callback(SharedImageCallback(trainer))
        if looks:
            trainer.add_callback(PreflightCallback(trainer))
        trainer.train()
        kept = ("loss", "grad_norm", "num_tokens")
        histories.append([{key: log[key] for key in kept} for log in trainer.state.log_history if "loss" in log])
        drawn = [random.random(), np.random.random(), torch.rand(1).item()]
        histories[-1].append(drawn)
    assert histories[0] == histories[1] and len(histories[0]) == 4


def test_only_looking_takes_no_step(tmp_path, processor):
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    rows = IterableDataset.from_generator(lambda: iter(tiny.chat_rows()))
    trainer = Trainer(
        model, TrainingArguments(tmp_path, **SETTINGS), data_collator=ChatCollator(processor), train_dataset=rows
    )
    trainer.add_callback(PreflightCallback(trainer, only=True))
    with pytest.raises(PreflightDone):
        trainer.train()
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


@pytest.mark.parametrize("what", ["boxes", "masks"])
def test_the_data_page_draws_what_rows_with_boxes_or_masks_hold(tmp_path, processor, what):
    """By columns of their own; a box `[20, 8, 50, 24]` of a dark picture, and never where it would be transposed."""
    mask = np.zeros((40, 60), dtype=bool)
    mask[8:24, 20:50] = True
    true = {"boxes": [[20, 8, 50, 24]], "categories": [""]} if what == "boxes" else {"masks": [encode(mask)]}
    same = {"image": Image.new("RGB", (60, 40)), "image_size": [60, 40], "ignore": None, **true}
    rows = [
        {"id": row["id"], "image_id": row["id"], "messages": row["messages"], "answer": row["answer"], **same}
        for row in tiny.chat_rows()
        if row["images"]
    ]
    rows = Dataset.from_list(rows)
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    args = TrainingArguments(tmp_path, **SETTINGS)
    trainer = Trainer(model, args, data_collator=ChatCollator(processor), train_dataset=rows)
    trainer.add_callback(PreflightCallback(trainer, {"train": rows}, only=True))
    with pytest.raises(PreflightDone):
        trainer.train()
    addresses = re.findall('class="own" src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "data.html").read_text())
    assert len(addresses) == len(rows)
    for address in addresses:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(address)))).astype(int)
        assert pixels.shape == (200, 300, 3)  # five times as large
        green = pixels[..., 1] - pixels[..., 0] > 80
        found = [*np.argwhere(green).min(axis=0), *np.argwhere(green).max(axis=0)]
        assert np.abs(np.subtract(found, [40, 100, 120, 250])).max() <= 5


# --- what trains


def test_nothing_that_trains_stops(tmp_path, processor):
    def frozen(model):
        model.requires_grad_(False)

    lines = started(tmp_path, processor, frozen)
    assert lines["what trains"].status == "stop" and "first loss" not in lines


def test_what_the_recipe_does_not_name_is_a_warning(tmp_path, processor):
    line = started(tmp_path, processor, expected=Expected(trains="visual"))["what trains"]
    assert (
        line.status == "warn" and "tensors that the recipe does not name, such as model.language_model" in line.found
    )
    line = started(tmp_path, processor, with_lora, expected=Expected(trains="lora_"))["what trains"]
    attention = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()).model.language_model.layers[0].self_attn
    sides = [sum(part.weight.shape) for part in (attention.q_proj, attention.v_proj)]
    assert line.status == "pass" and line.numbers["trainable"] == 4 * sum(sides)  # rank 4


def test_what_trains_outside_of_the_parts_that_the_recipe_names_is_a_warning(tmp_path, processor):
    line = started(tmp_path, processor, with_lora, expected=Expected("lora_", parts=["vision"]))["what trains"]
    assert line.status == "warn" and "tensors that the recipe does not name, such as base_model.model" in line.found
    line = started(tmp_path, processor, with_lora, expected=Expected("lora_", parts=["language"]))["what trains"]
    assert line.status == "pass"


def test_layers_that_a_pattern_for_lora_misses_are_named(tmp_path, processor):
    of_language, of_both = Expected(parts=["language"]), Expected(parts=["language", "vision"])
    lines = started(tmp_path, processor, with_lora, expected=of_language)
    layers = lines["LoRA's layers"].numbers["language_layers"]
    assert lines["LoRA's layers"].status == "warn" and layers % 7 == 0
    assert lines["LoRA's layers"].found == (
        f"on {layers // 7 * 2} of {layers} linear layers of model.language_model; not on "
        "model.language_model.layers.*.self_attn.k_proj, model.language_model.layers.*.self_attn.o_proj, "
        "model.language_model.layers.*.mlp.gate_proj and 2 more kinds"
    )

    def on_all(model):
        return get_peft_model(model, LoraConfig(r=4, target_modules=layers_of(model, ["language", "vision"])))

    line = started(tmp_path, processor, on_all, expected=of_both)["LoRA's layers"]
    found = f"on {layers} of {layers} linear layers of model.language_model and "
    assert line.status == "pass" and line.found.startswith(found) and "not on" not in line.found
    # Nothing is said where no part is claimed, or where it is trained without LoRA.
    assert "LoRA's layers" not in started(tmp_path, processor, with_lora)
    assert "LoRA's layers" not in started(tmp_path, processor, expected=of_both)


@pytest.mark.parametrize(("stated", "status"), [(1.0, "pass"), (0.97, "pass"), (0.5, "warn")])
def test_the_share_is_held_against_what_is_stated(stated, status, tmp_path, processor):
    line = started(tmp_path, processor, expected=Expected(share=stated))["what trains"]
    assert line.status == status and f"the recipe states {stated:.2%}" in line.found


# --- loss, memory and graphs


@pytest.mark.parametrize(
    ("loss", "bound", "status"),
    [
        (6.2, None, "pass"),
        (0.4, None, "pass"),
        (9.0, None, "warn"),
        (0.0, None, "warn"),
        (9.0, 8.0, "pass"),
        (math.nan, None, "stop"),
        (math.inf, 8.0, "stop"),
    ],
)
def test_the_first_loss_is_held_against_a_uniform_guess_or_the_recipe_s_bound(loss, bound, status, processor):
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    line = check_first_loss(loss, model, Expected(first_loss=bound))
    assert line.status == status
    if bound is None and status != "stop":
        assert line.numbers["bound"] == pytest.approx(math.log(model.lm_head.weight.shape[0]))


def test_the_first_loss_is_the_model_s(tmp_path, processor):
    line = started(tmp_path, processor)["first loss"]
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()).train()
    assert line.numbers["loss"] == pytest.approx(model(**ChatCollator(processor)(tiny.chat_rows())).loss.item())


def test_weights_that_are_no_number_stop(tmp_path, processor):
    def spoilt(model):
        model.lm_head.weight.data[0, 0] = math.nan

    lines = started(tmp_path, processor, spoilt)
    assert lines["first loss"].status == lines["gradients"].status == "stop"


def test_too_little_memory_stops_with_advice(tmp_path, processor):
    def hungry(model):
        def forward(module, arguments):
            raise torch.OutOfMemoryError

        model.lm_head.register_forward_pre_hook(forward)

    line = started(tmp_path, processor, hungry)["longest batch"]
    assert line.status == "stop" and "--per_device_train_batch_size" in line.found and "rows of up to" in line.found


def test_a_graph_through_a_frozen_tower_is_a_warning(tmp_path, processor):
    lines = started(tmp_path / "plain", processor, with_lora)
    assert lines["frozen parts"].status == lines["gradients"].status == "pass"
    line = started(tmp_path / "hooked", processor, lambda model: with_lora(model, hooks=True))["frozen parts"]
    assert line.status == "warn" and "visual" in line.found


@pytest.mark.parametrize("spared", [False, True])
def test_checkpointing_with_lora_keeps_a_graph_of_the_frozen_tower_unless_it_is_spared(spared, tmp_path, processor):
    set_seed(0)
    model = with_lora(AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()), init_lora_weights=False)
    args = TrainingArguments(tmp_path, **(SETTINGS | {"activation_checkpointing": True}))
    trainer = Trainer(model, args, data_collator=ChatCollator(processor), train_dataset=tiny.chat_rows())
    callback = PreflightCallback(trainer)
    for one in (*[FrozenPartsCallback(trainer)] * spared, callback):
        trainer.add_callback(one)
    trainer.train()
    lines = {check.name: check for check in callback.checks}
    assert lines["frozen parts"].status == ("pass" if spared else "warn")
    # The same gradients, and so the same losses, as without checkpointing.
    set_seed(0)
    model = with_lora(AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()), init_lora_weights=False)
    args = TrainingArguments(tmp_path, **SETTINGS)
    plain = Trainer(model, args, data_collator=ChatCollator(processor), train_dataset=tiny.chat_rows())
    plain.train()
    kept = [
        [log[key] for log in one.state.log_history if "loss" in log for key in ("loss", "grad_norm")]
        for one in (trainer, plain)
    ]
    assert kept[0] == pytest.approx(kept[1], rel=1e-5)


def test_frozen_parts_are_the_largest_ones():
    model = torch.nn.ModuleDict(
        {
            "a": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
            "b": torch.nn.Linear(2, 2),
            "c": torch.nn.Embedding(2, 2),
            "d": torch.nn.ReLU(),
        }
    )
    model.requires_grad_(False)
    model["a"][0].requires_grad_(True)
    assert [name for name, _ in frozen_parts(model)] == ["a.1", "b"]


# --- gradients


def test_a_group_without_gradient_is_a_warning(tmp_path, processor):
    def detached(model):
        model.model.visual.register_forward_hook(
            lambda module, arguments, output: type(output)(
                **{key: value.detach() for key, value in output.items() if isinstance(value, torch.Tensor)}
            )
        )

    line = started(tmp_path, processor, detached)["gradients"]
    assert line.status == "warn" and "vision" in line.found.split(" would not learn")[0]
    assert line.numbers["vision"] == 0 and line.numbers["language"] > 0


def test_lora_s_first_half_may_wait_for_the_second():
    model = with_lora(AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    fresh = {name: 0.0 if "lora_A" in name else 1.0 for name in names}
    assert check_gradients(model, fresh).status == "pass"
    assert check_gradients(model, {name: 1.0 - norm for name, norm in fresh.items()}).status == "warn"
    assert check_gradients(model, dict.fromkeys(names)).status == "stop"
    assert check_gradients(model, fresh | {names[0]: math.inf}).status == "stop"


def test_a_dead_tower_is_a_warning_though_lora_learns_in_the_other(tmp_path, processor):
    def joint(model):
        def cut(module, arguments, output):
            parts = {key: value.detach() for key, value in output.items() if isinstance(value, torch.Tensor)}
            return type(output)(**parts)

        model = get_peft_model(model, LoraConfig(r=4, target_modules=rf"{LANGUAGE}|.*visual\.blocks.*\.qkv"))
        model.model.model.visual.register_forward_hook(cut)
        return model

    line = started(tmp_path, processor, joint)["gradients"]
    assert line.status == "warn"
    assert line.found.startswith("lora_a of vision and lora_b of vision would not learn: ")
    assert line.numbers["lora_b of vision"] == 0 < line.numbers["lora_b of language"]
    silent = line.found.split("; without gradient in this batch: ")[1].split(", ")
    assert [name.split("qkv.")[1] for name in silent] == ["lora_A.default.weight", "lora_B.default.weight"]


def test_two_towers_of_one_kind_are_told_apart_by_their_place_and_tensors_without_gradient_are_named():
    linear, parts = torch.nn.Linear, torch.nn.ModuleDict
    llava = parts({"vision_tower": linear(2, 2), "lm": linear(2, 2)})
    model = parts({"llava": llava, "sam": parts({"vision_encoder": torch.nn.Sequential(linear(2, 2))})})
    norms = {name: 0.0 if name.startswith("sam") else 1.0 for name, _ in model.named_parameters()}
    line = check_gradients(model, norms)
    assert line.status == "warn" and line.found.startswith("sam.vision_encoder would not learn: ")
    assert line.numbers["llava.vision_tower"] == line.numbers["language"] == pytest.approx(2**0.5)
    line = check_gradients(model, dict.fromkeys(norms, 1.0) | {"llava.lm.bias": None})
    assert line.status == "pass" and line.found.endswith("; without gradient in this batch: llava.lm.bias")
    line = check_gradients(model, dict.fromkeys(norms) | {"llava.lm.bias": 1.0})
    named = "llava.vision_tower.weight, llava.vision_tower.bias, sam.vision_encoder.0.weight and 2 more"
    assert line.status == "warn" and line.found.endswith(f"; without gradient in this batch: {named}")
    assert line.numbers["tensors_without_gradient"] == 5


# --- labels and lengths


def test_wrong_labels_stop_and_name_the_row(tmp_path, processor):
    class Everything(ChatCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            return type(batch)(batch | {"labels": batch["input_ids"].clone()})

    lines = started(tmp_path, processor, collator=Everything(processor))
    assert lines["labels"].status == "stop" and "row 'red': image tokens are among the labels" in lines["labels"].found
    rows = [*tiny.chat_rows(), {"id": "mute", "images": [], "messages": [{"role": "user", "content": "?"}]}]
    line = started(tmp_path, processor, rows=rows)["labels"]
    assert line.status == "stop" and "'mute'" in line.found


def test_a_row_longer_than_the_model_reads_is_a_warning(tmp_path, processor):
    def short(model):
        model.config.text_config.max_position_embeddings = 20

    line = started(tmp_path, processor, short)["token lengths"]
    assert line.status == "warn" and "the budget is 20, and " in line.found and line.numbers["budget"] == 20


def test_durations_are_for_people():
    assert [duration(s) for s in (3, 80, 600, 7 * 3600, 5000)] == ["3 s", "80 s", "10 min", "7 h 0 min", "83 min"]


# --- blank images


def coloured(n: int) -> Dataset:
    colours = ["red", "lime", "blue"]
    rows = {
        "id": [str(i) for i in range(n)],
        "image_id": [str(i) for i in range(n)],
        "image_size": [[40, 20]] * n,
        "image": [Image.new("RGB", (40, 20), colours[i % 3]) for i in range(n)],
        "answer": [colours[i % 3] for i in range(n)],
    }
    return Dataset.from_dict(rows).cast_column("image", datasets.Image())


class Answering:
    """Answers and scores rows as an `Evaluation` does: by looking, or always the same."""

    headline = "exact"

    def __init__(self, looks: bool):
        self.looks = looks

    def answer(self, model, rows, kept=None):
        said = ["red", "lime", "blue"]
        return [said[int(np.asarray(row["image"]).mean((0, 1)).argmax())] if self.looks else "red" for row in rows]

    def score(self, answers, rows):
        return tiny.exact_scores(answers, rows)

    def __call__(self, model, rows):
        return {}, [{"score": score} for score in self.score(self.answer(model, rows), rows)]


@pytest.mark.parametrize(("looks", "status", "gain"), [(True, "pass", 2 / 3), (False, "warn", 0.0)])
def test_a_model_that_does_not_fall_on_blank_images_is_not_looking(looks, status, gain):
    rows, evaluation = coloured(30), Answering(looks)
    line = check_blank_images(evaluation, None, rows, evaluation(None, rows)[1])
    assert line.status == status and line.numbers["gain"] == pytest.approx(gain) and line.numbers["n"] == 30


def test_rows_in_a_list_are_asked_again_as_those_of_a_dataset(tmp_path):
    rows, evaluation = coloured(30), Answering(looks=True)
    listed = list(rows)
    line = check_blank_images(evaluation, None, listed, evaluation(None, listed)[1])
    assert line == check_blank_images(evaluation, None, rows, evaluation(None, rows)[1])
    some = [*range(0, 30, 3), 1, 2]  # blocks of a table that begin and end anywhere
    assert len(with_blank_images(rows.select(some).select(range(5, 12)))) == 7


def test_rows_whose_image_has_no_name_are_images_of_their_own():
    rows, evaluation = coloured(30), Answering(looks=True)
    unnamed = [row | {"image_id": None} for row in rows]
    line = check_blank_images(evaluation, None, unnamed, evaluation(None, unnamed)[1])
    assert line.status == "pass" and line.numbers["gain"] == pytest.approx(2 / 3)


def test_the_rows_are_counted_that_have_a_score():
    rows, evaluation = coloured(30), Answering(looks=True)
    answered = evaluation(None, rows)[1]
    some = [row | ({} if i < 9 else {"score": None}) for i, row in enumerate(answered)]
    assert ", n = 9)" in check_blank_images(evaluation, None, rows, some).found


def test_one_row_is_too_few_and_many_are_sampled_evenly():
    rows, evaluation = coloured(1), Answering(True)
    assert check_blank_images(evaluation, None, rows, evaluation(None, rows)[1]).status == "skip"
    rows = coloured(1200)
    assert check_blank_images(evaluation, None, rows, evaluation(None, rows)[1]).numbers["n"] == 500
    line = check_blank_images(evaluation, None, rows, evaluation(None, rows)[1], 7)
    assert line.numbers["n"] == 7 and "n = 7" in line.found


def test_blank_images_are_grey_and_of_the_image_s_size():
    blank = with_blank_images(coloured(2))
    assert blank[1]["image"].size == (40, 20) and blank[1]["image"].getcolors() == [(800, (128, 128, 128))]
    assert blank["answer"][:] == ["red", "lime"]


def test_each_of_a_row_s_pictures_is_blank_in_its_own_size():
    sizes = [[[40, 20], [8, 9]], [], [[5, 5]]]
    drawn = [[Image.new("RGB", tuple(size), "red") for size in own] for own in sizes]
    features = {"images": datasets.List(datasets.Image())}
    features |= {"image_sizes": datasets.List(datasets.List(datasets.Value("int64")))}
    rows = Dataset.from_dict({"images": drawn, "image_sizes": sizes}, datasets.Features(features))
    for given in (rows, list(rows)):
        blank = with_blank_images(given)
        assert [[list(image.size) for image in row["images"]] for row in blank] == sizes
        assert {image.getpixel((0, 0)) for row in blank for image in row["images"]} == {(128, 128, 128)}


def test_blank_images_of_a_mixed_file_stand_under_one_key():
    """Those under the other are gone: left there, they would be seen, or refused as different ones."""
    picture = Image.new("RGB", (4, 3), "red")
    columns = {"image": [picture, None], "images": [None, [picture] * 2], "image_sizes": [[[4, 3]], [[4, 3]] * 2]}
    features = {"image": datasets.Image(), "images": datasets.List(datasets.Image())}
    features |= {"image_sizes": datasets.List(datasets.List(datasets.Value("int64")))}
    rows = Dataset.from_dict(columns, datasets.Features(features))
    for given in (rows, list(rows)):
        blank = [images_of(row) for row in with_blank_images(given)]
        assert [len(images) for images in blank] == [1, 2]
        assert {image.getpixel((0, 0)) for images in blank for image in images} == {(128, 128, 128)}


def test_a_row_without_a_picture_is_not_asked_again():
    rows = [{"id": str(i), "image_sizes": [[4, 4]] * (i % 3), "images": [], "answer": "red"} for i in range(9)]
    rows = [row | {"images": [Image.new("RGB", (4, 4), "red")] * (i % 3)} for i, row in enumerate(rows)]
    asked = []

    class Asked(Answering):
        def answer(self, model, rows, kept=None):
            asked.extend(row["id"] for row in rows)
            return ["red"] * len(rows)

    check_blank_images(Asked(False), None, rows, [{"score": 1.0}] * 9)
    assert asked == ["1", "2", "4", "5", "7", "8"]
