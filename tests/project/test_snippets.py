"""Each Python example of README and docs, run as it stands on small checkpoints, and what comes of it."""

from functools import cache, partial
from itertools import product

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from PIL import Image, ImageOps
from torchvision.ops import box_iou
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, ModelConfig, SFTConfig, SFTTrainer

from tests.support import tiny
from tests.support.pages import PAGES, code
from tests.support.running import QUIET
from vlm_recipes.collators import ChatCollator, SegmentationCollator
from vlm_recipes.models.lisa.loading import load_lisa
from vlm_recipes.models.surgvivqa.loading import load_surgvivqa

# What is said of LLaVA's template, once a session.
pytestmark = pytest.mark.filterwarnings("ignore:the chat template writes nothing behind an answer")
EXAMPLES = {(page.name, title): blocks for page in PAGES for title, blocks in code(page, "python").items()}
SMALL = {**QUIET, "gradient_checkpointing": False, "learning_rate": 1e-3, "num_train_epochs": 1}
COLUMNS = ("messages", "images", "image_id", "boxes", "image_size")  # those that docs/in_your_trainer.md names
WIDTH, HEIGHT = 84, 84  # of the picture with a box, which the trained model has learnt


@cache
def rows() -> list[dict]:
    """Two questions about each of three pictures; on the yellow one is the box that the small model answers."""
    by_colour = {row["id"]: row for row in tiny.chat_rows()}
    made = []
    for colour, _ in product(("yellow", "red", "blue"), range(2)):
        row = by_colour[colour]
        box = [0.001 * WIDTH, 0.002 * HEIGHT, 0.003 * WIDTH, 0.004 * HEIGHT]
        boxes = [box] if colour == "yellow" else []
        made.append({key: row[key] for key in row if key in COLUMNS} | {"image_id": colour, "boxes": boxes})
    return made


@pytest.fixture
def given(tmp_path, monkeypatch) -> dict:
    """What the pages say that an example has, in a folder of its own; trainings are short and on this CPU."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    monkeypatch.setattr(trl, "SFTConfig", partial(SFTConfig, **SMALL, per_device_train_batch_size=3))
    small = {"per_device_train_batch_size": 48, "num_generations": 8, "temperature": 1.7, "max_steps": 1}
    monkeypatch.setattr(trl, "GRPOConfig", partial(GRPOConfig, **SMALL | small))  # it has to err to learn from it
    rotated = Image.new("RGBA", (30, 20), (200, 0, 0, 255))
    rotated.paste((0, 0, 0, 0), (0, 0, 10, 20))
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save("photograph.jpg", "png", exif=exif)
    dataset = Dataset.from_list(rows())
    return {
        "model": AutoModelForImageTextToText.from_pretrained(tiny.trained_qwen2_vl()),
        "processor": AutoProcessor.from_pretrained(tiny.trained_qwen2_vl()),
        "rows": dataset,
        "held_out": dataset.select([0, 2, 4]),
        "image": Image.new("RGB", (48, 64), "blue"),
    }


def logged(trainer, key: str) -> list[float]:
    return [line[key] for line in trainer.state.log_history if key in line]


def a_trainer_of_ones_own(given: dict, folder) -> dict:
    settings = {"remove_unused_columns": False, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    trainer = SFTTrainer(
        given["model"],
        SFTConfig("outputs/theirs", **SMALL | {"eval_strategy": "epoch"}, **settings),
        train_dataset=given["rows"],
        eval_dataset=given["held_out"],
        data_collator=ChatCollator(given["processor"]),
        processing_class=given["processor"],
    )
    return {"trainer": trainer}


def what_the_lisa_recipe_left(given: dict, folder) -> None:
    llava, sam = tiny.lisa()
    network, processor = load_lisa(ModelConfig(str(llava), dtype="float32"), str(sam))
    seen, head = [], network.get_output_embeddings()
    head.register_forward_pre_hook(lambda module, hidden: seen.append(hidden[0][0, -1].detach()))
    network.generate_masks(**SegmentationCollator(processor, prompt_only=True)(tiny.mask_rows()[:1]), max_new_tokens=1)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[processor.tokenizer.convert_tokens_to_ids("[SEG]")] = seen[0]  # untrained: so it is what it says
    for part in (network, processor):
        part.save_pretrained(folder / "outputs/reasonseg")


def what_the_surgvivqa_recipe_left(given: dict, folder) -> None:
    network, processor = load_surgvivqa(ModelConfig(str(tiny.surgvivqa()), dtype="float32"))
    for part in (network, processor):
        part.save_pretrained(folder / "outputs/ssg_vqa")


BEFORE = {
    ("README.md", "In your own Trainer"): a_trainer_of_ones_own,
    ("in_your_trainer.md", "A mask for a question"): what_the_lisa_recipe_left,
    ("in_your_trainer.md", "A label of a closed set, in one forward"): what_the_surgvivqa_recipe_left,
}


def callbacks_logged_and_kept(after: dict, folder) -> None:
    trainer = after["trainer"]
    assert len(logged(trainer, "grad_norm/language")) == 2 and len(logged(trainer, "eval_iou_mean")) == 1
    assert trainer.state.best_metric == logged(trainer, "eval_iou_mean")[0]
    assert (folder / "outputs/mine/checkpoint-2/trainer_state.json").is_file()


def iou_is_what_is_learnt_from(after: dict, folder) -> None:
    """The reward by torchvision; and that a step of GRPO moved the weights, as answers had different ones."""
    trainer, processor = after["trainer"], after["processor"]
    true, size = [20.0, 10.0, 60.0, 50.0], [100, 80]
    written = [[true], [[30.0, 10.0, 70.0, 50.0]], [true, [0.0, 60.0, 20.0, 80.0]], []]
    texts = [after["codec"].encode(boxes, size, ["box"] * len(boxes)) for boxes in written]
    ids = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    shifted = box_iou(torch.tensor([true]), torch.tensor(written[1])).item()
    rewards = after["iou"](completion_ids=ids, boxes=[[true]] * 4, image_size=[size] * 4, prompts=[], trainer_state=0)
    assert rewards == pytest.approx([1, shifted, 0.5, 0], abs=1e-6)

    assert max(logged(trainer, "rewards/iou/std")) > 0 and max(logged(trainer, "grad_norm")) > 0
    before = AutoModelForImageTextToText.from_pretrained(tiny.trained_qwen2_vl()).state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in after["model"].state_dict().items())


def answers_are_of_the_set(after: dict, folder) -> None:
    answers = after["answers"]
    assert len(answers) == 3 and all(answers)
    assert {piece for answer in answers for piece in answer.split("; ")} <= {"pink", "red", "white"}


def questions_came_together(after: dict, folder) -> None:
    assert len(after["trainer"].train_dataset) == 3 and len(logged(after["trainer"], "loss")) == 1
    assert len(after["answers"]) == 3 and all(isinstance(answer, str) for answer in after["answers"])
    assert [len(scores) for scores in after["scores"]] == [2, 2, 2] and torch.stack([*after["scores"]]).max() < 0


def masks_are_of_the_image_s_size(after: dict, folder) -> None:
    [own], [text] = after["masks"], after["texts"]
    assert len(own) == text.count("[SEG]") > 0
    assert all(np.shape(mask) == (64, 48) and mask.dtype in (bool, torch.bool) for mask in own)


def labels_have_a_probability(after: dict, folder) -> None:
    assert after["scores"].shape == (1, 3) and (after["scores"] < 0).all()


def an_iou_has_an_interval(after: dict, folder) -> None:
    assert after["iou"].value == pytest.approx((38 * 30 / (40 * 30 + 38 * 34 - 38 * 30) + 0) / 2)
    assert after["iou"].n == 2 and after["iou"].low <= after["iou"].value <= after["iou"].high


def readme_s_callbacks_logged(after: dict, folder) -> None:
    assert logged(after["trainer"], "eval_iou_mean") and logged(after["trainer"], "grad_norm/language")


def the_picture_stands_upright_on_white(after: dict, folder) -> None:
    turned = Image.open(folder / "turned.png")
    assert turned.size == ImageOps.exif_transpose(Image.open(folder / "photograph.jpg")).size == (20, 30)
    assert turned.mode == "RGB" and {color for _, color in turned.getcolors()} == {(255, 255, 255), (200, 0, 0)}


AFTER = {
    ("README.md", "In your own Trainer"): readme_s_callbacks_logged,
    ("in_your_trainer.md", "Callbacks"): callbacks_logged_and_kept,
    ("in_your_trainer.md", "Boxes as a reward in GRPO"): iou_is_what_is_learnt_from,
    ("in_your_trainer.md", "Answers from a closed set"): answers_are_of_the_set,
    ("in_your_trainer.md", "An image with all its questions"): questions_came_together,
    ("in_your_trainer.md", "A mask for a question"): masks_are_of_the_image_s_size,
    ("in_your_trainer.md", "A label of a closed set, in one forward"): labels_have_a_probability,
    ("in_your_trainer.md", "A metric by itself"): an_iou_has_an_interval,
    ("troubleshooting.md", "Pictures on a server"): the_picture_stands_upright_on_white,
}


def test_every_example_is_run():
    assert EXAMPLES.keys() == AFTER.keys() and BEFORE.keys() <= AFTER.keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=": ".join)
def test_an_example_does_what_the_page_says(example, given, tmp_path):
    if example in BEFORE:
        given |= BEFORE[example](given, tmp_path) or {}
    for block in EXAMPLES[example]:
        exec(compile(block, example[0], "exec"), given)
    AFTER[example](given, tmp_path)
