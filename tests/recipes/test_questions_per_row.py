"""Kvasir-VQA with an image's questions in one row and each by itself: the same loss, gradient and answers."""

import json
from pathlib import Path

import pytest
import torch

from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.worlds.endoscopy.dataset import draw_endoscopy
from recipes import kvasir_vqa
from tests.support.running import QUIET
from vlm_recipes.eval.metrics.question_types import QuestionTypes

pytestmark = pytest.mark.usefixtures("figures_are_blank", "preflight_is_left_out")
PIXELS = {"min_pixels": 16 * 28 * 28, "max_pixels": 24 * 28 * 28}


@pytest.fixture(scope="module")
def endoscopy(tmp_path_factory) -> Path:
    """Ten frames with about 14 questions each, and a random model of each family."""
    folder = tmp_path_factory.mktemp("endoscopy") / "frames"
    draw_endoscopy(folder, images=10, broken=0)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    types = QuestionTypes.infer([row["question"] for row in rows], [row["answer"] for row in rows])
    turns = [turn for row in rows for turn in kvasir_vqa.prompt(row["question"], types[row["question"]])]
    texts = [part["text"] for turn in turns for part in turn["content"] if "text" in part]
    texts += [row["answer"] for row in rows] + ["system", "user", "assistant"] * 20
    for family in ("qwen2_vl", "qwen2_5_vl"):
        write_qwen2_vl(folder.parent / family, texts, family=family, hidden_size=64, layers=2)
    return folder


def run(endoscopy: Path, output: Path, questions_per_row: int, family: str = "qwen2_vl", **training) -> Path:
    kvasir_vqa.main(
        kvasir_vqa.Data(dataset_name=str(endoscopy), questions_per_row=questions_per_row, max_new_tokens=6, **PIXELS),
        kvasir_vqa.Training(**{**QUIET, "output_dir": str(output), "gradient_checkpointing": False, **training}),
        kvasir_vqa.Model(model_name_or_path=str(endoscopy.parent / family), dtype="float32", use_peft=False),
    )
    return output


# Both families' loss and gradient are in tests/callbacks/test_shared_image.py, too.
@pytest.mark.parametrize("family", ["qwen2_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def test_loss_and_gradient_do_not_depend_on_the_questions_of_a_row_or_the_accumulation(family, endoscopy, tmp_path):
    """Each run's one step sees all questions; rows of unlike many questions weigh as their tokens do."""
    steps = []
    for questions_per_row, size, accumulation in [(1, 32, 10), (20, 320, 1), (20, 32, 10), (5, 10, 32)]:
        output = tmp_path / f"{questions_per_row} {size}"
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run(endoscopy, output, questions_per_row, family, do_predict=False, **settings)
        history = json.loads((output / "trainer_state.json").read_text())["log_history"]
        assert history[0]["epoch"] == 1  # all of them
        steps.append([history[0]["loss"], history[0]["grad_norm"]])
    torch.testing.assert_close(torch.tensor(steps), torch.tensor(steps[:1] * 4), rtol=1e-4, atol=0)


def test_answers_free_and_constrained_are_those_of_each_question_by_itself(endoscopy, tmp_path):
    predictions = []
    for questions_per_row in (1, 20):
        more = {"do_train": False, "predict_validation": True}
        output = run(endoscopy, tmp_path / str(questions_per_row), questions_per_row, **more)
        predictions.append((output / "predictions.jsonl").read_text())
    assert predictions[0] == predictions[1]
    said = [json.loads(line) for line in predictions[0].splitlines()]
    assert len({row["prediction"] for row in said}) > 5 and len({row["free_prediction"] for row in said}) > 2
