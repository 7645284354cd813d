"""Qwen2-VL, or another chat model, goes on with conversations about your own pictures (SFTTrainer, LoRA).

A row is what TRL trains on: `messages`, each a text or a list of parts, and `images`, one for each part of the type
"image". All answers of a conversation are trained; its last one is asked for and scored.

Meant for one 40 GB card (not measured), with --max_test_rows 1000; four bits on 8 GB; another model; evaluate one:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/visual_chat.py --output_dir outputs/chat
    accelerate launch --config_file accelerate_configs/rtx_8gb.yaml recipes/visual_chat.py --max_pixels 401408 \
        --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --max_test_rows 1000 --output_dir outputs/chat_2b
    accelerate launch … recipes/visual_chat.py --model_name_or_path llava-hf/llava-1.5-7b-hf --output_dir outputs/llava
    accelerate launch … recipes/visual_chat.py --do_train false --model_name_or_path outputs/chat --output_dir …
Your own: --dataset_name FOLDER or FILE: such rows (JSONL, Parquet, imagefolder), ShareGPT's, LLaVA's (docs/data.md).
"""

from vlm_recipes.training.launch import launch  # isort: skip  (before the libraries that it keeps quiet)
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trl import SFTConfig, SFTTrainer

from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators.conversation import clean_messages
from vlm_recipes.collators.length import within_length
from vlm_recipes.collators.sharing import chat_collator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.text import conversation, text_evaluation, text_majority
from vlm_recipes.models.chat import ChatModel, PixelBudget, load_chat_model, lora_on
from vlm_recipes.rows import group_by_image, parts_of, read_rows, usable_rows, with_validation
from vlm_recipes.rows.formats.chat import check_answers, refuse_unread, text_of
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import ChatSettings, RowSettings, setting

LORA, TRAINABLE_SHARE = ("language",), 0.0048  # on this part: 40,370,176 of the 7B model's 8.33 billion parameters


@dataclass
class Data(RowSettings, PixelBudget):
    dataset_name: str = "HuggingFaceH4/llava-instruct-mix-vsft"
    validation_fraction: float = setting(0.01, "share of training images to validate on, 0-1")
    questions_per_row: int = setting(1, "train on so many conversations about the same pictures at once")
    max_new_tokens: int = 256


@dataclass
class Training(ChatSettings, SFTConfig):
    output_dir: str = "outputs/visual_chat"
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 2
    gradient_accumulation_steps: int = 8
    learning_rate: float = 1e-4
    warmup_steps: float = 0.05  # below 1: a share of all steps
    eval_steps: float = 0.2
    metric_for_best_model: str = "eval_token_f1"


@dataclass
class Model(ChatModel):
    lora_r: int = 16


def to_chat(row: dict, control: list[str]) -> dict:
    """One row of the dataset, its contents as lists of parts; no answer may spell a token of `control`."""
    refuse_unread(row, "system")
    messages = clean_messages(row["messages"], len(row["image_sizes"]), placeholders=())
    check_answers(messages, control)
    return {
        "image_id": " ".join(row["image_ids"]) or f"none, {row['id']}",
        "question": text_of(messages[-2]),
        "answer": text_of(messages[-1]),
        "question_type": str(row.get("kind") or ""),
        "messages": messages,
    }


def to_question(data: Data, folder: Path, question: str) -> dict:
    """What `vlm-ask` asks about a picture; in training and evaluation the dataset's rows say all."""
    return {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]}


def load(data: Data, model: Model, output_dir: str | None = None):
    """Model and processor; without LoRA every part of the model trains."""
    return load_chat_model(model, data, output_dir, LORA if model.use_peft else ())


def evaluation(data: Data, network, processor, majority=None, kinds: tuple[str, ...] = ()) -> Evaluation:
    collator = processor and chat_collator(network, processor, data.questions_per_row, prompt_only=True, **data.shown)
    return text_evaluation(collator, data.max_new_tokens, majority, kinds, question=conversation, also=("rouge_l",))


def main(data: Data, training: Training, model: Model) -> None:
    raw = parts_of(read_rows("chats", data, ("messages", "images")).splits, data, training.seed)
    network, processor = load(data, model, training.trained_into)
    collator = chat_collator(network, processor, data.questions_per_row, max_length=training.max_length, **data.shown)
    adapt = within_length(partial(to_chat, control=processor.tokenizer.all_special_tokens), collator)
    parts, refused = usable_rows(raw, adapt, training.output_dir, data.max_rejected, training.dataset_num_proc)
    parts = with_validation(parts, data.validation_fraction, by="image_ids", seed=training.seed)
    parts = train, validation, test = data.limited(*parts, training)
    majority = text_majority(train["answer"][:], train["question_type"][:])
    evaluated = evaluation(data, network, processor, majority, sorted({*train.unique("question_type")} - {""}))
    run = Run(__file__, data, training, model, parts, evaluated, refused)
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
        f1 = GenerationEvalCallback(trainer, trainer.eval_dataset, run.evaluation)
        lora = {"trains": "lora_", "parts": LORA, "share": TRAINABLE_SHARE} if model.use_peft else {}
        network = run.train(trainer, f1, GradNormCallback(trainer), **lora)
    run.conclude(network)


if __name__ == "__main__":
    launch(main, Data, Training, Model)
