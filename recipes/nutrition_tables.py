"""Qwen2-VL, or another chat model, finds the nutrition tables on photographs of food packages (SFTTrainer, LoRA).

The reference reports a mean IoU of .098 untrained, .835 to .864 trained (`published.yaml`). Meant for one 40 GB card
(not measured), LoRA on the language model at the reference's rate:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/nutrition_tables.py \
        --learning_rate 1e-4 --output_dir outputs/nutrition_language
Both parts, four bits on an 8 GB card (on by itself below 24 GiB):
    accelerate launch --config_file accelerate_configs/rtx_8gb.yaml recipes/nutrition_tables.py \
        --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --tune joint --max_pixels 401408 --output_dir outputs/joint_2b
The vision tower on top of the first; only evaluate what a run left:
    accelerate launch … --model_name_or_path outputs/nutrition_language --tune vision --learning_rate 5e-5 …
    accelerate launch … recipes/nutrition_tables.py --do_train false --model_name_or_path outputs/… --output_dir …
Your own objects, in COCO, YOLO, Pascal VOC, labelme or Hugging Face's `objects` (docs/data.md):
    accelerate launch … --dataset_name FOLDER --system "You find objects." --prompt "Detect all of: {categories}." …
"""

from vlm_recipes.training.launch import launch  # isort: skip  (before the libraries that it keeps quiet)
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trl import SFTConfig, SFTTrainer

from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators import ChatCollator
from vlm_recipes.collators.length import within_length
from vlm_recipes.eval.boxes import box_evaluation, codec_of
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.metrics.baselines import ConstantBox, constant_box
from vlm_recipes.eval.metrics.box_codecs import BoxCodec
from vlm_recipes.models.chat import ChatModel, PixelBudget, load_chat_model, lora_on
from vlm_recipes.rows import content_id, read_boxes, usable_rows, with_validation
from vlm_recipes.rows.boxes import PUBLISHED, BoxFormat, doubt_of, named_boxes
from vlm_recipes.rows.formats.chat import text_of
from vlm_recipes.rows.formats.open_food_facts import product_of
from vlm_recipes.training.detection import DetectionSettings, asked_before, kept
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import ChatSettings, RowSettings, setting

SYSTEM = """You are a Vision Language Model specialized in interpreting visual data from product images.
Your task is to analyze the provided product images and detect the nutrition tables in a certain format.
Focus on delivering accurate, succinct answers based on the visual information. \
Avoid additional explanation unless absolutely necessary."""
QUESTION = "Detect the bounding box of the nutrition table."
LORA = {"language": ("language",), "joint": ("language", "vision")}  # the parts of the model that it goes to
WHOLE = {"vision": ("vision", "projector"), "all": ()}  # the parts that train themselves; (): every one
TRAINABLE_SHARE = {"language": 0.0191, "vision": 0.0815, "joint": 0.0241, "all": 1}  # of the 7B model


@dataclass
class Data(RowSettings, DetectionSettings, PixelBudget):
    dataset_name: str = "openfoodfacts/nutrition-table-detection"
    system: str = SYSTEM
    prompt: str = QUESTION
    validation_fraction: float = setting(0.05, "share of training products to validate on, 0-1")
    eval_rows: int = 64
    max_new_tokens: int = 256  # a box takes about 30


@dataclass
class Training(ChatSettings, SFTConfig):
    output_dir: str = "outputs/nutrition_tables"
    num_train_epochs: float = 3
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 8
    learning_rate: float = 2e-5
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 100
    eval_strategy: str = "epoch"
    metric_for_best_model: str = "eval_iou_mean"


@dataclass
class Model(ChatModel):
    tune: str = setting("language", "LoRA on the language model, the tower, LoRA on both, all", *TRAINABLE_SHARE)
    lora_r: int = 64
    lora_alpha: int = 128
    lora_dropout: float = 0.1


def prompt(system: str = SYSTEM, question: str = QUESTION) -> list[dict]:
    """What the model is asked: the same in training, evaluation and `vlm-ask`."""
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, *asked] if system else asked


def to_chat(row: dict, codec: BoxCodec, given: BoxFormat = PUBLISHED, asked: tuple = (SYSTEM, QUESTION)) -> dict:
    """One row of the dataset as a chat row, with its boxes in pixels, in reading order."""
    row = row | {"image_id": row.get("image_id") or content_id(row["image"])}
    boxes, categories = named_boxes(row["objects"], row["image_size"], given)
    answer = codec.encode(boxes, row["image_size"], categories) or "none"  # Qwen2-VL writes nothing for no box
    return {
        **dict.fromkeys(("id", "image_id"), row["image_id"]),
        "product": product_of(row),
        "boxes": boxes,
        "categories": categories,
        "answer": answer,
        "messages": [*prompt(*asked), {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
    }


def to_question(data: Data, folder: Path, question: str) -> dict:
    """What `vlm-ask` asks about a picture that nobody has annotated."""
    system, kept = asked_before(folder, data)
    return {"messages": prompt(system, kept if question == QUESTION else question)}


def load(data: Data, model: Model, output_dir: str | None = None):
    """Model and processor, with the parts of the model that `--tune` names set to train."""
    return load_chat_model(model, data, output_dir, LORA.get(model.tune, ()), WHOLE.get(model.tune))


def evaluation(data: Data, network, processor, baseline: ConstantBox | None = None) -> Evaluation:
    collator = processor and ChatCollator(processor, prompt_only=True, **data.shown)  # no processor: to score alone
    texts = {"reference": lambda row: row["answer"], "question": lambda row: text_of(row["messages"][-2])}
    return box_evaluation(collator, codec_of(network, processor), data.max_new_tokens, baseline, **texts)


def main(data: Data, training: Training, model: Model) -> None:
    raw, given, categories = read_boxes(data, ("image", "objects"), training.seed, Data.dataset_name)
    network, processor = load(data, model, training.trained_into)
    collator = ChatCollator(processor, max_length=training.max_length, **data.shown)
    asked = data.asked(categories)
    adapt = within_length(partial(to_chat, codec=codec_of(network, processor), given=given, asked=asked), collator)
    parts, refused = usable_rows(raw, adapt, training.output_dir, data.max_rejected, training.dataset_num_proc)
    parts = with_validation(parts, data.validation_fraction, by="product", seed=training.seed)
    parts = train, validation, test = data.limited(*parts, training)
    baseline = constant_box(train["boxes"], train["image_size"], train["categories"])
    evaluated = evaluation(data, network, processor, baseline)
    run = Run(__file__, data, training, model, parts, evaluated, refused, data.experiment)
    if training.do_train:
        trainer = SFTTrainer(
            network,
            training,
            data_collator=collator,
            train_dataset=train,
            eval_dataset=data.watched(validation, training.seed),
            processing_class=processor,
            peft_config=lora_on(model, LORA.get(model.tune, ()), network),
        )
        iou = GenerationEvalCallback(trainer, trainer.eval_dataset, run.evaluation)
        trains = {"parts": (LORA | WHOLE)[model.tune], "share": TRAINABLE_SHARE[model.tune]}
        trains |= {"trains": "lora_" if model.tune in LORA else "", "doubt": doubt_of(train, given)}
        network = run.train(trainer, iou, GradNormCallback(trainer), leaves=kept(asked), **trains)
    run.conclude(network)


if __name__ == "__main__":
    launch(main, Data, Training, Model)
