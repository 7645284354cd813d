"""TRL's own Trainer on images with all their questions, against the same Trainer on one question after the other."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
import torch
from datasets import Dataset, List
from datasets import Image as DecodedImage
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import ModelConfig

from tests.support.processes import launch
from tests.support.processes.shared_image import new_trainer, picture, rows_about, sharp, talk, twelve_questions
from vlm_recipes.callbacks import SharedImageCallback
from vlm_recipes.callbacks.shared_image import AttentionError
from vlm_recipes.collators import SharedImageCollator
from vlm_recipes.models.checkpoints import load_checkpoint
from vlm_recipes.rows.grouping import group_by_image

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "llava"]
CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request):
    return sharp(request.param)


qwen2_vl = pytest.mark.parametrize("folder", FAMILIES[:1], indirect=True)


def load(folder, four_bits: bool = False):
    """The weights in four bits, if asked for, are what bitsandbytes makes of them."""
    settings = {"load_in_4bit": True} if four_bits else {}
    return load_checkpoint(ModelConfig(str(folder), dtype="float32", **settings), to_train=True)[0]


def lora() -> LoraConfig:
    """Not as new, when one half is zero and the other without a gradient."""
    return LoraConfig(r=8, target_modules=r".*language_model.*(q|k|v|up)_proj", init_lora_weights=False)


def first_step(folder, tmp_path, shared: bool, four_bits: bool = False, adapter: bool = False, **settings) -> dict:
    model = load(folder, four_bits)
    torch.manual_seed(0)  # the adapter's weights
    settings |= {"use_cpu": True} | ({"peft_config": lora()} if adapter else {})
    processor = AutoProcessor.from_pretrained(folder)
    trainer = new_trainer(model, processor, tmp_path, twelve_questions(), shared, **settings)
    trainer.train()
    assert model.is_gradient_checkpointing == ("gradient_checkpointing" in settings)
    return trainer.state.log_history[0]


def assert_same_step(shared: dict, separate: dict, loss: float = 1e-5, gradient: float = 1e-4):
    assert shared["step"] == separate["step"] == 1
    assert shared["loss"] == pytest.approx(separate["loss"], rel=loss)
    assert shared["grad_norm"] == pytest.approx(separate["grad_norm"], rel=gradient) and shared["grad_norm"] > 0.01


SEVERAL = {"gradient_accumulation_steps": 4}
CASES = {family: [{"images": 4}, {"adapter": True, **SEVERAL, **CHECKPOINTING}] for family in FAMILIES}
CASES["qwen2_vl"] += [SEVERAL, {"images": 2, "gradient_accumulation_steps": 2, **CHECKPOINTING}]
CASES["llava"] += [{"adapter": True, "images": 2, "gradient_accumulation_steps": 2}]
# transformers trains Qwen2.5-VL on the mean of its batches, not of their tokens: the same questions in each batch.
IN_ORDER = {"qwen2_5_vl": {"train_sampling_strategy": "sequential"}}


@pytest.mark.parametrize(
    ("folder", "settings"),
    [(family, case | IN_ORDER.get(family, {})) for family, cases in CASES.items() for case in cases],
    indirect=["folder"],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_the_first_step_s_loss_and_gradient_norm_are_those_of_separate_questions(folder, settings, tmp_path):
    assert_same_step(*(first_step(folder, tmp_path, shared, **settings) for shared in (True, False)))


@pytest.mark.parametrize(("folder", "settings"), [("qwen2_vl", {}), ("llava", CHECKPOINTING)], indirect=["folder"])
def test_an_adapter_on_four_bits_has_the_loss_and_gradient_norm_of_separate_questions(folder, settings, tmp_path):
    """TRL trains such an adapter in bfloat16, whose rounding differs between the two."""
    settings = {"four_bits": True, "adapter": True, **SEVERAL, **settings}
    steps = [first_step(folder, tmp_path, shared, **settings) for shared in (True, False)]
    assert_same_step(*steps, loss=1e-4, gradient=1e-2)


@qwen2_vl
def test_attention_called_eager_gives_the_same_step(folder, tmp_path):
    steps = []
    for attention in ("eager", "sdpa"):
        model = load(folder)
        model.set_attn_implementation(attention)
        assert model.config.get_text_config()._attn_implementation == attention
        processor = AutoProcessor.from_pretrained(folder)
        trainer = new_trainer(model, processor, tmp_path, twelve_questions(), True, images=4, use_cpu=True)
        trainer.train()
        steps.append(trainer.state.log_history[0])
    assert_same_step(*steps)


@qwen2_vl
def test_a_model_in_sixteen_bits_is_given_booleans_and_learns_about_the_same(folder, tmp_path):
    processor, losses, given = AutoProcessor.from_pretrained(folder), [], []
    for dtype in (torch.bfloat16, torch.float32):
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
        trainer = new_trainer(model, processor, tmp_path, twelve_questions(), True, images=4, use_cpu=True)
        attention = model.model.language_model.layers[0].self_attn
        attention.register_forward_pre_hook(
            lambda module, args, kwargs: given.append(kwargs["attention_mask"].dtype), with_kwargs=True
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert set(given) == {torch.bool}
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@qwen2_vl
def test_the_mask_that_the_collator_made_is_what_sdpa_reads_and_eager_s_is_the_same_in_numbers(folder, tmp_path):
    processor, seen = AutoProcessor.from_pretrained(folder), []
    for attention in ("sdpa", "eager"):
        model = load(folder)
        model.set_attn_implementation(attention)
        masks = []
        for module in (model, model.model.language_model.layers[0].self_attn):
            module.register_forward_pre_hook(
                lambda module, args, kwargs, masks=masks: masks.append(kwargs["attention_mask"]), with_kwargs=True
            )
        trainer = new_trainer(model, processor, tmp_path, twelve_questions(), True, images=4, use_cpu=True)
        trainer.train()
        came, read = masks[-2:]  # behind those of the proof
        assert came.dtype == torch.bool and came.nbytes == len(came) * came.shape[-1] ** 2
        seen.append((came, read))
    (came, read), (_, added) = seen
    assert read.data_ptr() == came.data_ptr()  # no copy, no other number format
    assert torch.equal(added, torch.zeros(came.shape).masked_fill(~came, torch.finfo(torch.float32).min))


# --- several processes


def assert_same_in_two_processes(results: list[dict], kind: str, folder, tmp_path):
    alone = first_step(folder, tmp_path, True, **SEVERAL)
    for result in results:
        assert result["kind"] == kind
        assert_same_step(result["shared"][0], result["separate"][0])
        assert_same_step(result["shared"][0], alone)
        assert result["shared"][0]["num_tokens"] == alone["num_tokens"]
        end = result["shared"][-1]
        assert end["train_samples_per_second"] * end["train_runtime"] == pytest.approx(12, rel=0.01)


@qwen2_vl
def test_two_processes_have_the_loss_and_gradient_norm_of_separate_questions(folder, tmp_path):
    assert_same_in_two_processes(launch.ddp("shared_images"), "MULTI_CPU", folder, tmp_path)


@qwen2_vl
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_has_the_loss_and_gradient_norm_of_separate_questions(stage, folder, tmp_path):
    pytest.importorskip("deepspeed")
    assert_same_in_two_processes(launch.deepspeed(stage, "shared_images"), "DEEPSPEED", folder, tmp_path)


# --- what is logged


class Tracker(TrainerCallback):
    def __init__(self):
        self.logged = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.logged.append(dict(logs))


@pytest.mark.parametrize("folder", ["qwen2_vl", "llava"], indirect=True)
@pytest.mark.parametrize(
    "settings",
    [{"images": 2}, {"gradient_accumulation_steps": 2}, {"images": 3}, {"images": 2, "label_smoothing_factor": 0.1}],
)
def test_logs_count_tokens_and_questions_for_every_tracker(folder, settings, tmp_path):
    rows = twelve_questions()[:-2]  # images with 3, 3, 3 and 1
    processor, tracker = AutoProcessor.from_pretrained(folder), Tracker()
    pad, collator = processor.tokenizer.pad_token_id, SharedImageCollator(processor)
    counts = []

    def counting(rows):
        batch = collator(rows)
        counts.append(int((batch["input_ids"] != pad).sum()))
        return batch

    more = {"max_steps": -1, "num_train_epochs": 2, "callbacks": [tracker], "data_collator": counting}
    trainer = new_trainer(load(folder), processor, tmp_path, rows, True, use_cpu=True, **more, **settings)
    trainer.train()
    steps, end = trainer.state.log_history[:4], trainer.state.log_history[4]
    batches = settings.get("gradient_accumulation_steps", 1)
    assert [log["num_tokens"] for log in steps] == [sum(counts[: batches * step]) for step in (1, 2, 3, 4)]
    assert [log["num_tokens"] for log in tracker.logged[:4]] == [log["num_tokens"] for log in steps]
    assert end["train_samples_per_second"] * end["train_runtime"] == pytest.approx(2 * len(rows), rel=0.01)
    assert tracker.logged[4]["train_samples_per_second"] == end["train_samples_per_second"]

    trainer.evaluate(trainer.train_dataset)
    assert trainer.state.log_history[-1]["eval_num_tokens"] == steps[-1]["num_tokens"]  # evaluation trains none


@qwen2_vl
def test_rows_of_one_question_are_counted_as_ever(folder, tmp_path):
    logs = []
    for watched in (True, False):
        processor = AutoProcessor.from_pretrained(folder)
        trainer = new_trainer(load(folder), processor, tmp_path, twelve_questions(), False, images=4, use_cpu=True)
        if watched:
            trainer.add_callback(SharedImageCallback(trainer))
        trainer.train()
        logs.append(trainer.state.log_history)
    assert logs[0][0] == logs[1][0]
    assert logs[0][1]["train_samples_per_second"] * logs[0][1]["train_runtime"] == pytest.approx(12, rel=0.01)


@pytest.mark.parametrize("folder", ["qwen2_5_vl", "llava"], indirect=True)
def test_flash_attention_ends_the_run_before_its_first_step(folder, tmp_path):
    model, processor = load(folder), AutoProcessor.from_pretrained(folder)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = {"images": 4, "learning_rate": 1.0, "use_cpu": True}
    trainer = new_trainer(model, processor, tmp_path, twelve_questions(), True, **settings)
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(AttentionError, match="'flash_attention_2' reads no mask of pairs"):
        trainer.train()
    assert trainer.state.global_step == 0 and not trainer.state.log_history
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


# --- what is left behind


class Stops(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


@qwen2_vl
def test_training_leaves_no_hook_and_the_callbacks_in_their_order_and_logs_the_same_again(folder, tmp_path):
    settings = {"images": 2, "learning_rate": 0.0, "use_cpu": True, "callbacks": [Tracker()]}
    trainer = new_trainer(
        load(folder), AutoProcessor.from_pretrained(folder), tmp_path, twelve_questions(), True, **settings
    )
    order, logs = [*trainer.callback_handler.callbacks], []
    for _ in range(2):
        trainer.train()
        assert not trainer.model._forward_pre_hooks and trainer.callback_handler.callbacks == order
        logs.append([(log["loss"], log["num_tokens"]) for log in trainer.state.log_history if "num_tokens" in log])
    assert logs[0] == logs[1] != []
    trainer.add_callback(Stops())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    [ours] = [callback for callback in order if isinstance(callback, SharedImageCallback)]
    assert trainer.model._forward_pre_hooks and trainer.callback_handler.callbacks[0] is ours
    ours.close()
    assert not trainer.model._forward_pre_hooks and trainer.callback_handler.callbacks[:-1] == order


# --- group_by_image


def stored(counts: dict) -> Dataset:
    """Rows whose image files are not there, so that nobody can have opened one."""
    words = ["a", "a bowl", "What is shown in this picture?"]
    rows = [
        {**row, "id": f"row {key} {i}", "images": ["nowhere.png"]}
        for key, n in counts.items()
        for i, row in enumerate(rows_about(key, [], *(talk(words[i % 3] * (i + 1), "yes") for i in range(n))))
    ]
    return Dataset.from_list(rows).cast_column("images", List(DecodedImage()))


def ids(grouped: Dataset) -> list[list[str]]:
    return [[query["id"] for query in row["queries"]] for row in grouped.select_columns("queries")]


@settings(deadline=None, max_examples=25)
@given(
    counts=st.dictionaries(st.none() | st.sampled_from("abcde"), st.integers(1, 9), min_size=1),
    limit=st.none() | st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_groups_hold_every_conversation_once_and_keep_to_their_limits(counts, limit, seed):
    dataset = stored(counts)
    grouped = group_by_image(dataset, max_conversations=limit, seed=seed)
    assert sorted(sum(ids(grouped), [])) == sorted(dataset["id"])
    assert all(len(group) <= (limit or 9) for group in ids(grouped))
    original = {row["id"]: row for row in dataset.remove_columns("images")}
    for row in grouped.remove_columns("images"):
        assert row["image_id"] is not None or len(row["queries"]) == 1
        for query in row["queries"]:
            assert query | {key: row[key] for key in ("image_id", "image_size")} == original[query["id"]]
    if limit is None:
        assert len(grouped) == sum(n if key is None else 1 for key, n in counts.items())


def test_one_conversation_a_row_leaves_the_rows_as_they_are():
    dataset = stored({"a": 3, None: 2})
    assert group_by_image(dataset, max_conversations=1) is dataset


def test_the_seed_draws_the_order():
    dataset = stored({"a": 9, "b": 9, None: 3})
    draw = [ids(group_by_image(dataset, max_conversations=4, seed=seed)) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert {frozenset(group) for group in draw[0]} != {frozenset(group) for group in draw[2]}


def test_each_epoch_draws_groups_and_wordings_anew_and_the_same_for_everybody():
    dataset = stored({"a": 9, "b": 9, None: 3})

    def draw(epoch: int) -> list[list[tuple]]:
        def reworded(query, source):
            return query | {"note": source.randrange(1000)}

        grouped = group_by_image(dataset, max_conversations=4, reworded=reworded).select_columns("queries")
        grouped.shuffle(seed=1).format["format_kwargs"]["transform"].set_epoch(epoch)  # of rows selected from it, too
        return [[(query["id"], query["note"]) for query in row["queries"]] for row in grouped]

    first, again, second = draw(0), draw(0), draw(1)
    assert first == again and [len(group) for group in first] == [len(group) for group in second]
    assert sorted(row_id for group in second for row_id, _ in group) == sorted(dataset["id"])
    together = [{frozenset(row_id for row_id, _ in group) for group in groups} for groups in (first, second)]
    assert len(together[0] & together[1]) < 6  # with the three that nobody is asked about together with others
    notes = [dict(chain.from_iterable(groups)) for groups in (first, second)]
    assert sum(notes[0][row_id] == notes[1][row_id] for row_id in dataset["id"]) < 3  # of 21
    alone = group_by_image(dataset, 1, reworded=lambda query, source: query | {"note": "said otherwise"})
    assert [len(row["queries"]) for row in alone.select_columns("queries")] == [1] * len(dataset)
    assert {query["note"] for row in alone.select_columns("queries") for query in row["queries"]} == {"said otherwise"}


@dataclass
class Seen(SharedImageCollator):
    """Writes down which questions came together, whichever worker reads them."""

    file: Path | None = None

    def __call__(self, rows):
        with self.file.open("a") as file:
            groups = [row["queries"] for row in rows if "queries" in row]  # and not the two that are tried before
            file.writelines(", ".join(sorted(query["id"] for query in group)) + "\n" for group in groups)
        return super().__call__(rows)


@pytest.mark.parametrize("persistent", [False, True])
@qwen2_vl
def test_workers_see_what_each_epoch_draws_and_a_resumed_run_goes_on_with_it(folder, tmp_path, persistent):
    rows = rows_about("one", [picture((56, 56), 0)], *(talk(str(i), "yes") for i in range(8)))
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3, "dataloader_num_workers": 1}
    settings |= {"dataloader_persistent_workers": persistent, "max_steps": -1, "use_cpu": True}
    processor = AutoProcessor.from_pretrained(folder)

    def seen(name: str, **resumed) -> list[str]:
        collator = Seen(processor, file=tmp_path / name)
        trainer = new_trainer(load(folder), processor, tmp_path, rows, True, data_collator=collator, **settings)
        trainer.train_dataset = group_by_image(Dataset.from_list(rows), 4)
        trainer.train(**resumed)
        return (tmp_path / name).read_text().splitlines()

    whole = seen("whole")
    epochs = [frozenset(whole[start : start + 2]) for start in (0, 2, 4)]
    assert len(whole) == 6 and len(set(epochs)) == 3
    for epoch in epochs:
        assert sorted(", ".join(epoch).split(", ")) == [row["id"] for row in rows]
    assert seen("resumed", resume_from_checkpoint=str(tmp_path / "checkpoint-3")) == whole[3:]


def test_the_image_s_own_columns_are_the_row_s_and_only_the_collator_opens_it(qwen2_vl, tmp_path):
    grouped = group_by_image(stored({"a": 3}))
    assert set(grouped.column_names) == {"id", "image_id", "images", "image_size", "queries"}
    assert set(grouped.select_columns("queries")[0]["queries"][0]) == {"id", "messages", "note"}
    with pytest.raises(FileNotFoundError):
        grouped[0]
    (tmp_path / "broken.png").write_text("no picture")
    rows = [row | {"images": [str(tmp_path / "broken.png")]} for row in rows_about("one", [], talk("a", "yes"))]
    with pytest.raises(ValueError, match="row 'one 0'.*broken.png"):
        SharedImageCollator(qwen2_vl.processor)(list(group_by_image(Dataset.from_list(rows))))
