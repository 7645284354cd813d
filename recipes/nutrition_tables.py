"""Qwen2-VL finds the nutrition tables on photographs of food packages (SFTTrainer, LoRA).

Mean IoU the reference reports on 50 validation images, greedy, first box against first box (not peer-reviewed):
untrained .098 (a box in 18% of answers), --tune language .835, --tune vision .833, language then vision .837,
--tune joint .864.

Meant for one 40 GB card (not measured), LoRA on the language model at the reference's rate:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/nutrition_tables.py \
        --learning_rate 1e-4 --output_dir outputs/nutrition_language
Both parts, four bits on an 8 GB card (on by itself below 24 GiB):
    accelerate launch --config_file accelerate_configs/rtx_8gb.yaml recipes/nutrition_tables.py \
        --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --tune joint --max_pixels 401408 --output_dir outputs/two_b
Language first, then the vision tower on top of it:
    accelerate launch … recipes/nutrition_tables.py --learning_rate 1e-4 --output_dir outputs/stage1
    accelerate launch … recipes/nutrition_tables.py --model_name_or_path outputs/stage1 --tune vision \
        --learning_rate 5e-5 --output_dir outputs/stage2
Only evaluate what a run left:
    accelerate launch … recipes/nutrition_tables.py --do_train false --model_name_or_path outputs/stage1 \
        --output_dir outputs/stage1_again
Your own photographs: --dataset_name FOLDER, an imagefolder whose metadata.jsonl has `image_id` and
`objects: {bbox: [[y_min, x_min, y_max, x_max]] in 0-1, category_name}` (--dataset_test_split names the test part).
"""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, get_peft_config

from vlm_recipes.callbacks.preflight.model import Expected
from vlm_recipes.collators import ChatCollator
from vlm_recipes.collators.length import within_length
from vlm_recipes.eval.boxes import box_evaluation
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.metrics.baselines import constant_box
from vlm_recipes.eval.metrics.box_codecs import BoxCodec, box_codec
from vlm_recipes.eval.metrics.boxes import Box
from vlm_recipes.eval.report.tables import Published
from vlm_recipes.models.checkpoints import CheckpointError, left_by_a_run, load_checkpoint
from vlm_recipes.models.precision import launched_dtype, small_card, trainable_in_float32
from vlm_recipes.models.qwen_vl import LANGUAGE, set_pixel_budget
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.loading import load_split
from vlm_recipes.rows.splits import hold_out
from vlm_recipes.rows.usable import usable_rows
from vlm_recipes.training.launch import launch
from vlm_recipes.training.record import RunRecord, describe_run
from vlm_recipes.training.run import train_watched
from vlm_recipes.training.settings import RunSettings

SYSTEM = """You are a Vision Language Model specialized in interpreting visual data from product images.
Your task is to analyze the provided product images and detect the nutrition tables in a certain format.
Focus on delivering accurate, succinct answers based on the visual information. \
Avoid additional explanation unless absolutely necessary."""
QUESTION = "Detect the bounding box of the nutrition table."
COLUMNS = ("image_id", "image", "objects")
TRAINABLE_SHARE = {"language": 0.0191, "vision": 0.0815, "joint": 0.0239, "all": 1}  # of the 7B model
VISION = r".*visual\.blocks.*\.(qkv|attn\.proj|fc1|fc2)"
PUBLISHED = Published(
    metric_names=["iou_first", "accuracy_50", "accuracy_70"],
    rows=[
        ("Qwen2-VL-7B untrained", {"iou_first": 0.098}, "a box in 18% of answers"),
        ("language model", {"iou_first": 0.835}, "--tune language"),
        ("vision tower", {"iou_first": 0.833}, "--tune vision"),
        ("language, then vision", {"iou_first": 0.837}, "two launches"),
        ("language and vision", {"iou_first": 0.864, "accuracy_50": 0.92, "accuracy_70": 0.88}, "--tune joint"),
    ],
    source="the reference implementation's own report, n = 50 validation images, not peer-reviewed",
)


@dataclass
class Data(ScriptArguments):
    dataset_name: str = "openfoodfacts/nutrition-table-detection"
    dataset_test_split: str = "val"
    validation_fraction: float = field(default=0.05, metadata={"help": "share of training images to validate on, 0-1"})
    min_pixels: int = field(default=256 * 28 * 28, metadata={"help": "smaller images are enlarged to this area"})
    max_pixels: int = field(default=1280 * 28 * 28, metadata={"help": "larger images are reduced to this area"})
    max_rejected: float = field(default=0.01, metadata={"help": "stop if more rows than this share are unusable, 0-1"})
    eval_rows: int = field(default=64, metadata={"help": "validation images to answer at each evaluation"})
    max_new_tokens: int = field(default=256, metadata={"help": "longest answer in tokens; a box takes about 30"})


@dataclass
class Training(RunSettings, SFTConfig):
    output_dir: str = "outputs/nutrition_tables"
    num_train_epochs: float = 3
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 8
    learning_rate: float = 2e-5
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 100
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    metric_for_best_model: str = "eval_iou_mean"
    max_length: int | None = None  # the pixel budget bounds a row; a longer one is refused, never cut
    dataset_kwargs: dict = field(default_factory=lambda: {"skip_prepare_dataset": True})


@dataclass
class Model(ModelConfig):
    model_name_or_path: str = "Qwen/Qwen2-VL-7B-Instruct"
    tune: str = field(
        default="language",
        metadata={
            "help": "what trains: LoRA on the language model, the whole vision tower, LoRA on both, or everything",
            "choices": ["language", "vision", "joint", "all"],
        },
    )
    dtype: str = field(default_factory=launched_dtype)
    load_in_4bit: bool | None = field(default=None, metadata={"help": "QLoRA; by default on cards below 24 GB"})
    use_bnb_nested_quant: bool = True
    lora_r: int = 64
    lora_alpha: int = 128
    lora_dropout: float = 0.1


def prompt(question: str = QUESTION) -> list[dict]:
    """What the model is asked: the same in training, evaluation and `vlm-ask`."""
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
    ]


def to_chat(row: dict, codec: BoxCodec) -> dict:
    """One row of the dataset as a chat row, with its boxes in pixels, in reading order."""
    width, height = row["image_size"]
    boxes = []
    found = row["objects"] or {"category_name": [], "bbox": []}
    if row["image_id"] is None or not found["bbox"]:
        raise BadRow("no box" if row["image_id"] is not None else "no image_id")
    if len(found["bbox"]) != len(found["category_name"] or ()):
        raise BadRow(f"{len(found['bbox'])} boxes and {len(found['category_name'] or ())} names of categories")
    for category, box in zip(found["category_name"], found["bbox"], strict=True):
        if len(box or ()) != 4 or not all(side is not None and math.isfinite(side) for side in box):
            raise BadRow(f"box {box} is not four numbers")
        if not category or "<|" in category:
            raise BadRow(f"category {category!r} is empty or spells a control token")
        y_min, x_min, y_max, x_max = box
        if not (-0.01 <= x_min < x_max <= 1.01 and -0.01 <= y_min < y_max <= 1.01):
            raise BadRow(f"box {box} is inverted or outside the image: [y_min, x_min, y_max, x_max] are due in 0-1")
        boxes.append(([x_min * width, y_min * height, x_max * width, y_max * height], category))
    boxes, categories = zip(*sorted(boxes, key=lambda item: (item[0][1], item[0][0])), strict=True)
    answer = codec.encode(boxes, row["image_size"], categories)
    return {
        "id": row["image_id"],
        "image_id": row["image_id"],
        "image_size": row["image_size"],
        "boxes": boxes,
        "answer": answer,
        "messages": [*prompt(), {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
    }


def to_question(data: Data, folder: Path, image: Image.Image, question: str) -> dict:
    """A picture that nobody has annotated, as a row to answer."""
    return {"id": "", "image": image, "image_size": list(image.size), "boxes": [], "messages": prompt(question)}


def load(data: Data, model: Model, training: bool = False):
    """Model and processor, with the parts of the model that `--tune` names set to train."""
    if model.load_in_4bit is None:
        model.load_in_4bit = model.tune in ("language", "joint") and small_card()
    network, processor = load_checkpoint(model, to_train=training, skip_quantising=("model.visual",))
    if training or not left_by_a_run(model.model_name_or_path):
        set_pixel_budget(processor, data.min_pixels, data.max_pixels)
    model.use_peft = model.tune in ("language", "joint")
    model.lora_target_modules = LANGUAGE if model.tune == "language" else f"{LANGUAGE}|{VISION}"
    if training:
        network.requires_grad_(model.tune == "all")
        network.model.visual.requires_grad_(model.tune in ("vision", "all"))
    return network, processor


def codec_of(network, processor) -> BoxCodec:
    size = processor.image_processor.size
    return box_codec(network.config.model_type, size["shortest_edge"], size["longest_edge"])


def evaluation(data: Data, network, processor, baseline: Box | None = None) -> Evaluation:
    collator, codec = ChatCollator(processor, prompt_only=True), codec_of(network, processor)
    texts = {"reference": lambda row: row["answer"], "question": lambda row: QUESTION}
    return box_evaluation(collator, codec, data.max_new_tokens, baseline, **texts)


def expected(model: Model) -> Expected:
    """What `--tune` names, and how much that is of the recipe's own model."""
    own = model.model_name_or_path == Model.model_name_or_path
    trains = {"vision": "visual", "all": ""}.get(model.tune, "lora_")
    return Expected(trains, TRAINABLE_SHARE[model.tune] if own else None)


def main(data: Data, training: Training, model: Model) -> None:
    raw = {
        split: load_split(data.dataset_name, data.dataset_config, split, COLUMNS)
        for split in (data.dataset_train_split, data.dataset_test_split)
    }
    network, processor = load(data, model, training.do_train)
    chat_collator = ChatCollator(processor, max_length=training.max_length)
    with training.main_process_first(desc="checking rows"):
        (train, test), refused = usable_rows(
            raw,
            within_length(partial(to_chat, codec=codec_of(network, processor)), chat_collator),
            training.output_dir,
            data.max_rejected,
            training.dataset_num_proc,
        )
    baseline = constant_box(train["boxes"], train["image_size"])
    train, validation = hold_out(train, data.validation_fraction, by="image_id", seed=training.seed)

    record = RunRecord(
        training.output_dir,
        title="Nutrition tables",
        evaluation=evaluation(data, network, processor, baseline).as_trained(training),
        run=describe_run(__file__, data, training, model, {"train": train, "test": test}),
        published=PUBLISHED,
        rejected=refused,
    )
    log_history = []
    if training.do_train:
        trainer = SFTTrainer(
            network,
            training,
            data_collator=chat_collator,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=processor,
            peft_config=get_peft_config(model),
        )
        trainable_in_float32(trainer.model)
        trainer.model_accepts_loss_kwargs = True  # TRL divides by the step's tokens; Qwen2.5-VL says it cannot
        network, log_history = train_watched(
            trainer, record, {"train": train, "validation": validation, "test": test}, expected(model), data.eval_rows
        )

    record.conclude(network, {"validation": validation, "test": test} if training.do_predict else {}, log_history)


if __name__ == "__main__":
    launch(main, (Data, Training, Model), refusals=(DataError, CheckpointError))
