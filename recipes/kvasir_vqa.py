"""Qwen2-VL, or another chat model, answers typed questions about endoscopy images: Kvasir-VQA (SFTTrainer, LoRA).

The reference reports an accuracy of .196 on its test part, split 70/15/15 by image (`published.yaml`), and hoped for
.28 to .30. Its types come from keywords: "Are there any abnormalities …" counts as yes_no, though answered by lists.
Here a question's type and its valid answers come from the training answers to it.

Meant for one 40 GB card (not measured); no hints in the prompt; four bits on 8 GB; evaluate (untrained: no name):
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/kvasir_vqa.py --output_dir outputs/kvasir
    accelerate launch … recipes/kvasir_vqa.py --typed_prompt false --output_dir outputs/kvasir_untyped
    accelerate launch --config_file accelerate_configs/rtx_8gb.yaml recipes/kvasir_vqa.py --questions_per_row 4 \
        --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --output_dir outputs/kvasir_2b
    accelerate launch … recipes/kvasir_vqa.py --do_train false --model_name_or_path outputs/kvasir --output_dir …
Your own questions: --dataset_name FOLDER or FILE, a CSV, TSV, JSON, JSONL, Parquet or imagefolder with `image` (or
`file_name`), `question`, `answer` and, perhaps, `img_id`, one line per question (docs/data.md).
"""

from vlm_recipes.training.launch import launch  # isort: skip  (before the libraries that it keeps quiet)
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators.length import within_length
from vlm_recipes.collators.sharing import chat_collator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.metrics.baselines import Majority, typed_majority
from vlm_recipes.eval.metrics.question_types import QuestionType, QuestionTypes
from vlm_recipes.eval.typed import typed_evaluation
from vlm_recipes.models.chat import ChatModel, PixelBudget, load_chat_model, lora_on
from vlm_recipes.rows import BadRow, content_id, group_by_image, read_rows, start_of, three_parts, usable_rows
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import ChatSettings, RowSettings, setting

SYSTEM = "You are a surgical VQA assistant. Answer with a single word/number when possible."
LORA, TRAINABLE_SHARE = ("language",), 0.0048  # on this part: 40,370,176 of the 7B model's 8.33 billion parameters
TYPES_FILE = "question_types.json"
CONTROL = "<|"  # how Qwen's control tokens begin


@dataclass
class Data(RowSettings, PixelBudget):
    dataset_name: str = "SimulaMet-HOST/Kvasir-VQA"
    dataset_train_split: str = "raw"
    validation_fraction: float = setting(0.15, "share of images to validate on, 0-1")
    test_fraction: float = setting(0.15, "share of images to test on, 0-1")
    split_seed: int = setting(42, "which images are held out; apart from --seed")
    typed_prompt: bool = setting(True, "tell the model the type and the valid answers")
    constrain: bool = setting(True, "keep answers to what the question's type allows")
    max_pixels: int = 768 * 28 * 28
    questions_per_row: int = setting(20, "train on so many of an image's questions at once; 1: on each by itself")
    eval_rows: int = 500
    max_new_tokens: int = 48


@dataclass
class Training(ChatSettings, SFTConfig):
    output_dir: str = "outputs/kvasir_vqa"
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 16
    learning_rate: float = 1e-4
    warmup_steps: float = 0.05  # below 1: a share of all steps
    eval_steps: float = 0.2
    metric_for_best_model: str = "eval_accuracy"


@dataclass
class Model(ChatModel):
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05


def prompt(question: str, kind: QuestionType | None) -> list[dict]:
    """What the model is asked: the same in training, evaluation and `vlm-ask`; no `kind`, no hints."""
    lines = [f"Question type: {kind.name}"] if kind else []
    lines += [f"Question: {question}"]
    if kind and kind.choices and not kind.units:
        lines += [f"Valid answers: {', '.join(kind.choices)}"]
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\n".join(lines)}]},
    ]


def read(data: Data) -> dict[str, Dataset]:
    """Training, validation and test part; no image is in two of them, and no part depends on what is refused."""
    splits = read_rows("questions", data, ("image", "question", "answer")).splits
    return three_parts(splits, data, data.split_seed)


def types_of(rows: Dataset) -> QuestionTypes:
    """What each question wants, from those answers to it that `to_chat` does not refuse."""
    return QuestionTypes.infer(rows["question"][:], [None if CONTROL in (a or "") else a for a in rows["answer"][:]])


def to_chat(row: dict, types: QuestionTypes, typed_prompt: bool) -> dict:
    """One row of the dataset as a chat row with its question's type; spelling stays upstream's."""
    question, answer = ("" if row[key] is None else str(row[key]).strip() for key in ("question", "answer"))
    if not question or not answer:
        raise BadRow(f"empty {'question' if not question else 'answer'}")
    if (question, answer) == ("none", "nan"):
        raise BadRow("a placeholder where upstream has no question")
    if CONTROL in answer:
        raise BadRow(f"the answer {start_of(answer)} spells a control token")
    kind = types[question]
    messages = prompt(question, kind if typed_prompt else None)
    return {
        "id": row["id"],
        "image_id": row.get("img_id") or row.get("image_id") or content_id(row["image"]),
        "question": question,
        "answer": answer,
        **kind.columns(),
        "messages": [*messages, {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
    }


def to_question(data: Data, folder: Path, question: str) -> dict:
    """What `vlm-ask` asks, typed as in the run that left `folder`."""
    kind = QuestionTypes.load(folder / TYPES_FILE)[question]
    return {**kind.columns(), "messages": prompt(question, kind if data.typed_prompt else None)}


def load(data: Data, model: Model, output_dir: str | None = None):
    """Model and processor; without LoRA every part of the model trains."""
    return load_chat_model(model, data, output_dir, LORA if model.use_peft else ())


def evaluation(data: Data, network, processor, majority: Majority | None = None) -> Evaluation:
    collator = processor and chat_collator(network, processor, data.questions_per_row, prompt_only=True, **data.shown)
    return typed_evaluation(collator, data.max_new_tokens, majority, data.constrain)


def main(data: Data, training: Training, model: Model) -> None:
    raw = read(data)
    types = types_of(raw["train"])
    network, processor = load(data, model, training.trained_into)
    collator = chat_collator(network, processor, data.questions_per_row, max_length=training.max_length, **data.shown)
    adapt = within_length(partial(to_chat, types=types, typed_prompt=data.typed_prompt), collator)
    parts, refused = usable_rows(raw, adapt, training.output_dir, data.max_rejected, training.dataset_num_proc)
    parts = train, validation, test = data.limited(*parts, training)
    majority = typed_majority(train["answer"][:], train["question_type"][:], train["question"][:])
    run = Run(__file__, data, training, model, parts, evaluation(data, network, processor, majority), refused)
    if training.do_train:
        grouped = group_by_image(train, data.questions_per_row if collator.share_images else 1, seed=training.seed)
        trainer = SFTTrainer(
            network,
            training.in_rows(len(train), len(grouped)),
            data_collator=collator,
            train_dataset=grouped,
            eval_dataset=data.watched(validation, training.seed),
            processing_class=processor,
            peft_config=lora_on(model, LORA if model.use_peft else (), network),
        )
        accuracy = GenerationEvalCallback(trainer, trainer.eval_dataset, run.evaluation)
        lora = {"trains": "lora_", "parts": LORA, "share": TRAINABLE_SHARE} if model.use_peft else {}
        network = run.train(trainer, accuracy, GradNormCallback(trainer), leaves={TYPES_FILE: types.as_json()}, **lora)
    run.conclude(network)


if __name__ == "__main__":
    launch(main, Data, Training, Model)
