import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import ModelConfig, SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from tests.support import tiny
from vlm_recipes.callbacks import GenerationEvalCallback, IoUCallback, ResumeCallback, TypeAccuracyCallback
from vlm_recipes.collators import ChatCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.metrics.baselines import typed_majority
from vlm_recipes.eval.metrics.box_codecs import Qwen2VLBoxes
from vlm_recipes.eval.metrics.boxes import box_metrics
from vlm_recipes.eval.metrics.number import Number, Scores, flat
from vlm_recipes.eval.metrics.question_types import OPEN, QuestionType
from vlm_recipes.eval.metrics.typed_answers import TYPES
from vlm_recipes.eval.sampling import evenly_spread
from vlm_recipes.models.checkpoints import load_checkpoint

BOX_ANSWER = tiny.ANSWERS["yellow"]


def checkpoint(folder=None):
    return load_checkpoint(ModelConfig(str(folder or tiny.trained_qwen2_vl()), dtype="float32"))


def settings(tmp_path, kind=TrainingArguments, **changes):
    """One optimizer step per evaluation; the first leaves the weights as they are, the next ones ruin them."""
    base = {"max_steps": 4, "per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1}
    base |= {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "learning_rate": 0.5}
    base |= {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2, "remove_unused_columns": False}
    base |= {"report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True}
    return kind(tmp_path, **(base | changes))


def evaluation(processor, metric=tiny.exact_match, headline="exact"):
    return Evaluation(
        collator=ChatCollator(processor, prompt_only=True),
        metric=metric,
        score=tiny.exact_scores,
        headline=headline,
        max_new_tokens=30,
        reference=lambda row: row["answer"],
    )


def trainer_on(network, processor, args, **more):
    rows = Dataset.from_list(tiny.chat_rows()[4:])
    kind = SFTTrainer if isinstance(args, SFTConfig) else Trainer
    trainer = kind(
        network,
        args,
        data_collator=ChatCollator(processor),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=processor,
        **more,
    )
    watch = GenerationEvalCallback(trainer, tiny.chat_rows(), evaluation(processor))
    trainer.add_callback(watch)
    return trainer, watch


def evaluations(trainer, name="eval_exact"):
    return [log[name] for log in trainer.state.log_history if name in log]


class Listening(TrainerCallback):
    """What a tracker would be told."""

    def __init__(self):
        self.heard = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.heard.append((state.global_step, dict(logs)))


def test_every_evaluation_logs_the_metrics_of_generated_answers(tmp_path):
    network, processor = checkpoint()
    trainer, watch = trainer_on(network, processor, settings(tmp_path, max_steps=2, save_strategy="no"))
    tracker = Listening()
    trainer.add_callback(tracker)
    trainer.train()
    assert evaluations(trainer)[0] == 1.0 and evaluations(trainer)[1] < 0.5
    assert evaluations(trainer, "eval_n") == [8, 8]
    assert [step for step, logs in tracker.heard if "eval_exact" in logs] == [1, 2]
    by_hand, _ = evaluation(processor)(network, tiny.chat_rows())
    assert watch.metrics == by_hand and len(watch.predictions) == 8
    metrics = trainer.evaluate()  # also for who asks, with the Trainer's own eval_loss
    assert metrics["eval_exact"] == by_hand["exact"].value


def test_of_several_datasets_that_the_trainer_evaluates_the_first_has_the_answers(tmp_path):
    """Else each would count as an evaluation of its own, to early stopping, too."""
    network, processor = checkpoint()
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_exact", "greater_is_better": True}
    args = settings(tmp_path, learning_rate=0.0, max_steps=8, save_strategy="steps", save_steps=1, **best)
    trainer, watch = trainer_on(network, processor, args)
    trainer.eval_dataset = {name: trainer.eval_dataset for name in ("a", "a_b", "b")}
    trainer.add_callback(EarlyStoppingCallback(3))
    trainer.train()
    assert trainer.state.global_step == 4 and len(evaluations(trainer)) == 4
    assert {"eval_a_loss", "eval_b_loss", "eval_exact"} <= trainer.evaluate().keys()
    of_test = trainer.evaluate(trainer.eval_dataset["a"], metric_key_prefix="test")
    assert "test_loss" in of_test and "eval_exact" not in of_test, "the watched rows' metric beside the loss of others"


def test_a_collator_that_shows_the_answers_is_refused_before_anything_is_asked(tmp_path):
    network, processor = checkpoint()
    trainer, _ = trainer_on(network, processor, settings(tmp_path))
    shows = "ChatCollator shows the answers: make one to ask with, prompt_only=True$"
    with pytest.raises(ValueError, match=shows):
        IoUCallback(trainer, tiny.chat_rows(), trainer.data_collator, Qwen2VLBoxes())
    with pytest.raises(ValueError, match=shows):
        generate(network, tiny.chat_rows(), trainer.data_collator, max_new_tokens=2)


def test_intervals_and_baselines_are_logged_for_the_headline_alone(tmp_path):
    def metric(answers, rows):
        number = Number(0.5, 8, 0.4, 0.6, baseline=0.1, question_baseline=0.2)
        return Scores(8, {name: replace(number, groups={"a": number}, macro=number) for name in ("iou", "giou")})

    network, processor = checkpoint()
    trainer, watch = trainer_on(network, processor, settings(tmp_path, save_strategy="no"))
    watch.evaluation = evaluation(processor, metric, "iou")
    metrics = trainer.evaluate()
    logged = {key for log in trainer.state.log_history for key in log}
    of_headline = {"", "_low", "_high", "_a", "_a_low", "_a_high", "_a_n", "_macro"}
    others = {"eval_baseline_iou", "eval_baseline_iou_a", "eval_giou", "eval_giou_a", "eval_giou_a_n"}
    expected = {f"eval_iou{end}" for end in of_headline} | others | {"eval_giou_macro"}
    assert {name for name in logged if "iou" in name} == expected
    assert "eval_n" in logged
    # whoever wants to steer by it can
    assert metrics["eval_giou_low"] == 0.4 and metrics["eval_question_baseline_iou_a"] == 0.2


def test_the_best_whole_model_is_loaded_back(tmp_path):
    """transformers issue 43701: under the Hub's weight names nothing would be loaded, with no more than a warning."""
    network, processor = checkpoint()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_exact", "greater_is_better": True}
    trainer, _ = trainer_on(network, processor, settings(tmp_path, **best))
    trainer.train()
    scores = evaluations(trainer)
    assert scores[0] == 1.0 and max(scores[1:]) < 0.5
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1") and trainer.state.best_metric == 1.0
    saved = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert len(saved) > 10
    for name, weight in saved.items():
        assert torch.equal(trainer.model.state_dict()[name], weight), name
        assert torch.equal(before[name], weight), name  # whose learning rate was still zero
    last, _ = checkpoint(tmp_path / "checkpoint-4")
    assert not torch.equal(last.lm_head.weight, trainer.model.lm_head.weight)
    assert evaluation(processor)(trainer.model, tiny.chat_rows())[0]["exact"].value == 1.0


@pytest.mark.parametrize("resumes", [True, False])
def test_a_whole_model_whose_best_checkpoint_would_not_be_loaded_is_told_of(resumes, tmp_path, capsys):
    network, processor = checkpoint()
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_exact", "greater_is_better": True}
    trainer, _ = trainer_on(network, processor, settings(tmp_path, **best | {"max_steps": 1}))
    for callback in [one for one in trainer.callback_handler.callbacks if isinstance(one, ResumeCallback)]:
        trainer.remove_callback(callback)
    if resumes:
        trainer.add_callback(ResumeCallback(trainer))
    network._weight_conversions = [object()]  # as a Qwen2-VL of the Hub has them
    [watch] = [one for one in trainer.callback_handler.callbacks if isinstance(one, GenerationEvalCallback)]
    watch.on_train_begin(trainer.args, trainer.state, trainer.control, model=network)
    assert ("trainer.add_callback(ResumeCallback(trainer))" in capsys.readouterr().out) is not resumes


def test_the_best_adapter_is_loaded_back(tmp_path):
    network, processor = checkpoint()
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_exact", "greater_is_better": True}
    more = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}, "learning_rate": 5.0}
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=r".*language_model.*(q|v|up|down)_proj")
    args = settings(tmp_path, SFTConfig, **best, **more)
    trainer, _ = trainer_on(network, processor, args, peft_config=lora)
    trainer.train()
    scores = evaluations(trainer)
    assert scores[0] == 1.0 and scores[-1] < 0.5 and trainer.state.best_metric == 1.0
    saved = load_file(tmp_path / "checkpoint-1" / "adapter_model.safetensors")
    weights = {name.replace(".default", ""): weight for name, weight in trainer.model.state_dict().items()}
    assert saved and all(torch.equal(weights[name], weight) for name, weight in saved.items())
    assert evaluation(processor)(trainer.model, tiny.chat_rows())[0]["exact"].value == 1.0


def test_early_stopping_stops_by_a_generated_metric(tmp_path):
    network, processor = checkpoint()
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_exact", "greater_is_better": True}
    trainer, _ = trainer_on(network, processor, settings(tmp_path, max_steps=10, save_total_limit=1, **best))
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    assert trainer.state.global_step == 3  # best at 1, then twice worse
    assert evaluation(processor)(trainer.model, tiny.chat_rows())[0]["exact"].value == 1.0


def test_a_resumed_run_goes_on_with_the_saved_weights(tmp_path):
    """The same issue as for the best model: the weights would silently stay those of the base model."""
    gentle = {"learning_rate": 5e-3, "warmup_steps": 0, "eval_strategy": "no", "save_steps": 2}

    def run(folder, **resume):
        network, processor = checkpoint(tiny.qwen2_vl())
        trainer, _ = trainer_on(network, processor, settings(folder, **gentle))
        trainer.train(**resume)
        return trainer

    whole = run(tmp_path)
    resumed = run(tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    losses = [{log["step"]: log["loss"] for log in t.state.log_history if "loss" in log} for t in (whole, resumed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and set(losses[1]) == {1, 2, 3, 4}
    assert losses[0][3] < 0.9 * losses[0][1]
    for name, weight in whole.model.state_dict().items():
        assert torch.allclose(resumed.model.state_dict()[name], weight, atol=1e-6), name


def test_boxes_are_watched_in_somebody_elses_trainer_with_trls_collator(tmp_path):
    network, processor = checkpoint()
    codec = Qwen2VLBoxes()
    size = [1000, 1000]
    true = codec.decode(BOX_ANSWER, size)
    assert len(true) == 1
    rows = [row | {"boxes": true, "image_size": size} for row in tiny.chat_rows() if row["id"] in ("yellow", "white")]
    args = settings(tmp_path, max_steps=1, per_device_train_batch_size=2, save_strategy="no")
    trainer = Trainer(
        network,
        args,
        data_collator=DataCollatorForVisionLanguageModeling(processor),
        train_dataset=rows,
        eval_dataset=rows,
    )
    watch = IoUCallback(trainer, rows, ChatCollator(processor, prompt_only=True), codec, max_new_tokens=30)
    trainer.add_callback(watch)
    trainer.train()
    answers = [row["prediction"] for row in watch.predictions]
    assert answers == [BOX_ANSWER, "white"]
    expected = box_metrics([true, []], [true, true])
    assert evaluations(trainer, "eval_iou_mean") == [0.5] == [pytest.approx(expected["iou_mean"].value)]
    assert evaluations(trainer, "eval_giou_mean") == [pytest.approx(expected["giou_mean"].value)]
    assert evaluations(trainer, "eval_unparseable_rate") == [0.5]
    assert codec.decode(watch.predictions[1]["reference"], size) == true
    assert watch.predictions[0]["score"] == pytest.approx(1.0)


def typed_rows() -> list[dict]:
    """The colours the model knows by heart, as choices of one image each; the answer of "yellow" is free text."""
    kind = QuestionType("mcq", ("red", "white", "it is green", "nothing at all"))
    rows = [row | {"question": tiny.QUESTION, "image_id": row["id"]} for row in tiny.chat_rows()]
    return [row | (kind if row["answer"] in kind.choices else OPEN).columns() for row in rows]


def test_accuracy_by_type_is_logged_with_its_baseline_and_steers_the_best_model(tmp_path):
    network, processor = checkpoint()
    rows = typed_rows()
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_accuracy_mcq", "greater_is_better": True}
    args = settings(tmp_path, max_steps=2, **best)
    trainer = Trainer(network, args, data_collator=ChatCollator(processor), train_dataset=rows, eval_dataset=rows[:2])
    majority = typed_majority(["red", "red", "white"], ["mcq"] * 3, [tiny.QUESTION] * 3)
    watch = TypeAccuracyCallback(trainer, rows, ChatCollator(processor, prompt_only=True), majority)
    trainer.add_callback(watch)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "eval_accuracy_mcq" in log]
    first = logs[0]
    assert first["eval_accuracy"] == first["eval_accuracy_mcq"] == first["eval_accuracy_macro"] == 1.0
    assert first["eval_n"] == 8 and first["eval_accuracy_mcq_n"] == 4 and first["eval_accuracy_open_ended_n"] == 4
    assert first["eval_baseline_accuracy_mcq"] == 0.25 and first["eval_accuracy_mcq_high"] == 1.0
    assert {f"eval_accuracy_{kind}_n" for kind in TYPES} <= set(first)
    assert trainer.state.best_metric == 1.0 and trainer.state.best_global_step == 1
    assert logs[1]["eval_accuracy_open_ended"] < 1  # the second step ruins the model,
    choices = {choice for row in rows for choice in row["choices"]}
    answered = {row["prediction"] for row in watch.predictions if row["question_type"] == "mcq"}
    assert answered <= choices  # but even so it says nothing else


def test_free_answers_stand_beside_constrained_ones_with_their_paired_difference():
    network, processor = checkpoint(tiny.qwen2_vl())  # knows nothing
    rows = typed_rows()
    watched = TypeAccuracyCallback(None, rows, ChatCollator(processor, prompt_only=True)).evaluation
    metrics, predictions = watched(network, rows, compare=8)
    free, _ = TypeAccuracyCallback(None, rows, ChatCollator(processor, prompt_only=True), constrain=False).evaluation(
        network, rows
    )
    metrics, free = flat(metrics), flat(free)
    assert metrics["free_accuracy"] == free["accuracy"] and metrics["free_accuracy_mcq"] == free["accuracy_mcq"]
    assert metrics["free_accuracy_macro"] == free["accuracy_macro"] and metrics["free_jaccard"] == free["jaccard"]
    gains = [row["score"] - row["free_score"] for row in predictions]
    assert metrics["constrained_gain"] == pytest.approx(metrics["accuracy"] - metrics["free_accuracy"])
    assert metrics["constrained_gain"] == pytest.approx(sum(gains) / 8) and metrics["constrained_gain_open_ended"] == 0
    assert metrics["constrained_gain_mcq_n"] == 4 and metrics["n"] == 8
    assert metrics["constrained_gain_low"] <= metrics["constrained_gain"] <= metrics["constrained_gain_high"]
    assert metrics["free_accuracy_n"] == metrics["constrained_gain_n"] == 8
    same, _ = watched(network, rows)
    assert not [key for key in flat(same) if key.startswith(("free_", "constrained_gain"))]


def test_free_answers_to_some_of_the_rows_are_compared_on_those_rows_alone_and_say_how_many_they_are():
    network, processor = checkpoint(tiny.qwen2_vl())
    rows, watched = typed_rows(), TypeAccuracyCallback(None, [], ChatCollator(processor, prompt_only=True)).evaluation
    _, whole = watched(network, rows, compare=8)
    metrics, predictions = watched(network, rows, compare=3)
    again = [i for i, row in enumerate(predictions) if "free_prediction" in row]
    assert (
        again == evenly_spread(8, 3)
        and len(again) == 3
        and all(("free_score" in row) == (i in again) for i, row in enumerate(predictions))
    )
    assert [predictions[i] for i in again] == [whole[i] for i in again]
    free = [predictions[i]["free_score"] for i in again]
    gains = [predictions[i]["score"] - predictions[i]["free_score"] for i in again]
    numbers = metrics["accuracy"]
    assert (numbers.n, numbers.free.n, numbers.gain.n) == (8, 3, 3)
    assert numbers.free.value == pytest.approx(sum(free) / 3) and numbers.gain.value == pytest.approx(sum(gains) / 3)
    assert sum(group.gain.n for group in numbers.groups.values() if group.gain) == 3
    written = flat(metrics)
    assert written["n"] == 8 and written["free_accuracy_n"] == written["constrained_gain_n"] == 3


def test_the_workers_of_one_evaluation_answer_the_next_and_end_with_the_training(tmp_path):
    network, processor = checkpoint()
    trainer, watch = trainer_on(network, processor, settings(tmp_path, max_steps=2, save_strategy="no"))
    seen, collator = [], ChatCollator(processor, prompt_only=True)

    def collate(rows):
        return collator(rows) | {"worker": torch.tensor([os.getpid(), len(rows)])}

    def ask(model, batch, **generation):
        seen.append([trainer.state.global_step, *batch.pop("worker").tolist()])
        return model.generate(**batch, **generation), None

    collate.processor = processor
    watch.evaluation = replace(watch.evaluation, collator=collate, ask=ask, num_workers=2, batch_size=2)
    trainer.train()
    first, second = ({worker for step, worker, _ in seen if step == at} for at in (1, 2))
    assert first == second and len(first) == 2 and os.getpid() not in first
    assert [sum(n for step, _, n in seen if step == at) for at in (1, 2)] == [8, 8]
    assert not any(Path("/proc", str(worker)).exists() for worker in first)
    before = torch.get_rng_state()
    watch.evaluation(network, watch.rows)  # with new workers; a training that goes on would drop other values
    assert torch.equal(before, torch.get_rng_state())
    assert evaluations(trainer)[0] == 1.0


@given(st.integers(0, 300), st.integers(1, 300))
def test_rows_to_ask_again_are_one_of_every_stretch(rows, most):
    chosen = evenly_spread(rows, most)
    assert len(chosen) == min(rows, most) and chosen == sorted(set(chosen)) == evenly_spread(rows, most)
    for place, number in enumerate(chosen):
        assert place * rows // len(chosen) <= number < (place + 1) * rows // len(chosen)


def test_a_column_that_the_metric_reads_is_missed_before_anything_trains(tmp_path):
    network, processor = checkpoint()
    trainer = trainer_on(network, processor, settings(tmp_path))
    rows = Dataset.from_list([{key: row[key] for key in ("messages", "images")} for row in tiny.chat_rows()])
    collator = ChatCollator(processor, prompt_only=True)
    with pytest.raises(ValueError, match="^the rows to answer have no column 'boxes', only 'messages'$"):
        IoUCallback(trainer, rows, collator, Qwen2VLBoxes())
    with pytest.raises(ValueError, match="^the rows to answer have no column '[a-z_]+', only 'messages'$"):
        TypeAccuracyCallback(trainer, rows, collator)


def test_rows_without_an_id_are_called_by_their_place():
    network, processor = checkpoint()
    rows = [{key: row[key] for key in row if key != "id"} for row in tiny.chat_rows()]
    _, named = evaluation(processor)(network, tiny.chat_rows())
    _, predictions = evaluation(processor)(network, rows)
    assert [row["id"] for row in predictions] == list(range(len(rows)))
    assert [row["prediction"] for row in predictions] == [row["prediction"] for row in named]
