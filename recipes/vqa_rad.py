"""BLIP-2 Flan-T5 answers questions about radiology images: VQA-RAD (Seq2SeqTrainer, 8-bit, LoRA).

A reproduction of Med-PaLM M (arXiv 2307.14334) reports BLEU-1 and F1 of .262 on the 451 official test questions, which
is what the constant answer "yes" gets (118 of 451): the majority baseline stands beside every number here. The
official split also shares 202 of its 203 test images with training: --image_disjoint asks about images never seen.

Meant for one 16 GB card, or 8 GB with --gradient_checkpointing true (docs/cards.md); four settings, and evaluate one:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/vqa_rad.py --output_dir outputs/vqa_rad
    accelerate launch … recipes/vqa_rad.py --exemplar true --output_dir outputs/vqa_rad_exemplar
    accelerate launch … recipes/vqa_rad.py --image_disjoint true --output_dir outputs/vqa_rad_disjoint
    accelerate launch … recipes/vqa_rad.py --do_train false --output_dir outputs/vqa_rad_zero_shot
    accelerate launch … recipes/vqa_rad.py --do_train false --model_name_or_path outputs/vqa_rad --output_dir …
Your own questions: --dataset_name FOLDER or FILE, a CSV, TSV, JSON, JSONL, Parquet or imagefolder with `image`,
`question` and `answer` (docs/data.md), or VQA-RAD's original JSON beside its `images/`.
"""

from vlm_recipes.training.launch import launch  # isort: skip  (before the libraries that it keeps quiet)
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from PIL import Image, ImageOps
from transformers import Seq2SeqTrainingArguments, set_seed
from trl import get_peft_config

from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators import Seq2SeqCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.metrics.baselines import Majority
from vlm_recipes.eval.text import text_evaluation, text_majority
from vlm_recipes.models.blip2 import load_blip2
from vlm_recipes.models.lora import LoraModel, with_lora
from vlm_recipes.rows import BadRow, content_id, group_by_image, hold_out, parts_of, read_rows, usable_rows
from vlm_recipes.rows.formats.vqa_rad import domain_of, is_closed
from vlm_recipes.rows.splits import with_validation
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import RowSettings, RunSettings, setting
from vlm_recipes.training.trainers import TokenMeanTrainer

INSTRUCTIONS = (
    "Instructions: You are a helpful medical assistant. The following are questions about medical knowledge. "
    "Solve them in a step-by-step fashion, referring to authoritative sources as needed.\n"
)
EXEMPLAR = "Given <img>. Q: Can you diagnose a pericardial effusion from this image? (closed domain)\nA: No.\n"
COLUMNS = ("image", "question", "answer")
FIT = partial(ImageOps.pad, size=(224, 224), method=Image.Resampling.LANCZOS, color="black")  # the ratio kept
TRAINABLE_SHARE = 0.0012  # 4,718,592 of 3.88 billion parameters, with LoRA


@dataclass
class Data(RowSettings):
    dataset_name: str = "flaviagiammarino/vqa-rad"
    image_disjoint: bool = setting(False, "split by image instead of the official split")
    validation_fraction: float = setting(0.05, "share of training images to validate on, 0-1")
    exemplar: bool = setting(False, "show the paper's worked example before each question")
    questions_per_row: int = setting(4, "train on so many of an image's questions at once; 1: on each by itself")


@dataclass
class Training(RunSettings, Seq2SeqTrainingArguments):
    output_dir: str = "outputs/vqa_rad"
    num_train_epochs: float = 5
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 8
    learning_rate: float = 5e-5
    logging_steps: float = 10
    eval_strategy: str = "epoch"
    metric_for_best_model: str = "eval_token_f1"


@dataclass
class Model(LoraModel):
    model_name_or_path: str = "Salesforce/blip2-flan-t5-xl"
    load_in_8bit: bool = True
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.1
    lora_target_modules: list[str] = field(default_factory=lambda: ["q", "v"])  # T5's; the towers use other names
    lora_task_type: str = "SEQ_2_SEQ_LM"


def prompt(question: str, exemplar: bool = False, domain: str = "open") -> str:
    """What the encoder reads, in training, evaluation and `vlm-ask`; beside the paper's example also its "domain"."""
    asked = f"{EXEMPLAR}Given <img>. Q: {question} ({domain} domain)" if exemplar else f"Given <img>. Q: {question}"
    return f"{INSTRUCTIONS}{asked}\nA:"


def read(data: Data, seed: int = 42) -> dict[str, Dataset]:
    """The dataset's own parts; all there is, where it is to be split by image."""
    if data.image_disjoint:
        data.refuse_without_effect("dataset_.*_split", "--image_disjoint true divides all images anew")
    splits = read_rows("questions", data, COLUMNS).splits
    return splits if data.image_disjoint else parts_of(splits, data, seed)


def to_question(data: Data, folder: Path, question: str) -> dict:
    """What `vlm-ask` asks about a picture that nobody has asked about."""
    return {"prompt": prompt(question, data.exemplar, domain_of(question))}


def to_row(row: dict, exemplar: bool) -> dict:
    """One row of either format; yes and no make a question closed where the dataset does not say."""
    question, answer = ("" if row[key] is None else str(row[key]).strip() for key in ("question", "answer"))
    if not question or not answer:
        raise BadRow(f"empty {'question' if not question else 'answer'}")
    image_id = row.get("image_name") or row.get("image_id") or content_id(row["image"])
    known = row.get("answer_type")
    closed = is_closed(known, answer)
    domain = ("closed" if closed else "open") if known else domain_of(question)
    return {
        "id": str(row.get("qid") or row["id"]),
        "image_id": image_id,
        "question": question,
        "answer": answer,
        "closed": closed,
        "question_type": row.get("question_type") or ("closed" if closed else "open"),
        "prompt": prompt(question, exemplar, domain),
    }


def load(data: Data, model: Model, output_dir: str | None = None):
    """Model and processor; without LoRA every part of the model trains."""
    lora, training = get_peft_config(model), output_dir is not None
    network, processor = load_blip2(model, lora, output_dir)
    if training and lora:
        network = with_lora(network, model, lora)
    return network, processor


def evaluation(data: Data, network, processor, majority: Majority | None = None) -> Evaluation:
    sharing = data.questions_per_row > 1
    collator = processor and Seq2SeqCollator(processor, FIT, share_images=sharing, prompt_only=True, **data.shown)
    return text_evaluation(collator, data.max_new_tokens, majority)


def main(data: Data, training: Training, model: Model) -> None:
    set_seed(training.seed)  # what load makes anew is random
    raw = read(data, training.seed)
    network, processor = load(data, model, training.trained_into)
    adapt = partial(to_row, exemplar=data.exemplar)
    parts, refused = usable_rows(raw, adapt, training.output_dir, data.max_rejected, training.dataset_num_proc)
    if data.image_disjoint:
        parts = hold_out(concatenate_datasets(parts), data.test_fraction, "image_id", training.seed)
    parts = with_validation(parts, data.validation_fraction, by="image_id", seed=training.seed)
    parts = train, validation, test = data.limited(*parts, training)
    majority = text_majority(train["answer"][:], train["question_type"][:])
    run = Run(__file__, data, training, model, parts, evaluation(data, network, processor, majority), refused)
    if training.do_train:
        grouped = group_by_image(train, data.questions_per_row, seed=training.seed)
        trainer = TokenMeanTrainer(
            network,
            training.in_rows(len(train), len(grouped)),
            data_collator=Seq2SeqCollator(processor, FIT, share_images=data.questions_per_row > 1, **data.shown),
            train_dataset=grouped,
            eval_dataset=data.watched(validation, training.seed),
            processing_class=processor,
        )
        f1 = GenerationEvalCallback(trainer, trainer.eval_dataset, run.evaluation)
        lora = {"trains": "lora_", "share": TRAINABLE_SHARE} if model.use_peft else {}
        network = run.train(trainer, f1, GradNormCallback(trainer), **lora)
    run.conclude(network)


if __name__ == "__main__":
    launch(main, Data, Training, Model)
