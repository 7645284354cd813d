"""Qwen2-VL answers typed questions about endoscopy images: Kvasir-VQA (SFTTrainer, LoRA, constrained answers).

Accuracy in percent that the reference implementation reports on its test part, split 70/15/15 by image: 19.56 in all;
yes_no 37.90, open_ended 15.27, count_numeric 4.15, color 2.65, size_numeric 0. It hoped for 28-30 with constrained
decoding. Its types come from keywords: "Are there any abnormalities …" counts as yes_no though the answers are lists.
Here a question's type and its valid answers come from the training answers to it (`python -m
vlm_recipes.eval.metrics.question_types`), every number stands beside its majority baseline, and free beside
constrained accuracy.

Meant for one 40 GB card (not measured), then with nothing in the prompt but the question:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/kvasir_vqa.py
    accelerate launch … recipes/kvasir_vqa.py --typed_prompt false --output_dir outputs/kvasir_vqa_untyped
Four bits on an 8 GB card (on by itself below 24 GiB):
    accelerate launch --config_file accelerate_configs/rtx_8gb.yaml recipes/kvasir_vqa.py \
        --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --max_pixels 401408 --questions_per_row 4
Only evaluate, the untrained model or what a run left:
    accelerate launch … recipes/kvasir_vqa.py --do_train false --output_dir outputs/kvasir_vqa_untrained
    accelerate launch … recipes/kvasir_vqa.py --do_train false --model_name_or_path outputs/kvasir_vqa \
        --output_dir outputs/kvasir_vqa_again
Your own questions: --dataset_name FOLDER, an imagefolder whose metadata.jsonl has `file_name`, `question`, `answer`
and `img_id`, one line per question (--dataset_train_split names its one split, `raw` on the Hub).
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset
from PIL import Image
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, get_peft_config

from vlm_recipes.callbacks.preflight.model import Expected
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.collators.length import within_length
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.constraints import AnswerSetError
from vlm_recipes.eval.metrics.baselines import TypedMajority, typed_majority
from vlm_recipes.eval.metrics.question_types import QuestionType, QuestionTypes
from vlm_recipes.eval.report.tables import Published
from vlm_recipes.eval.typed import typed_evaluation
from vlm_recipes.models.checkpoints import CheckpointError, left_by_a_run, load_checkpoint
from vlm_recipes.models.precision import launched_dtype, small_card, trainable_in_float32
from vlm_recipes.models.qwen_vl import LANGUAGE, set_pixel_budget
from vlm_recipes.rows.errors import BadRow, DataError, start_of
from vlm_recipes.rows.grouping import group_by_image
from vlm_recipes.rows.loading import load_split
from vlm_recipes.rows.splits import hold_out
from vlm_recipes.rows.usable import usable_rows
from vlm_recipes.training.launch import launch
from vlm_recipes.training.record import RunRecord, describe_run
from vlm_recipes.training.run import train_watched
from vlm_recipes.training.settings import RunSettings

SYSTEM = "You are a surgical VQA assistant. Answer with a single word/number when possible."
COLUMNS = ("image", "question", "answer", "img_id")
TRAINABLE_SHARE = 0.0048  # 40,370,176 of 8.33 billion parameters, with LoRA on the 7B model
TYPES_FILE = "question_types.json"
CONTROL = "<|"  # how Qwen's control tokens begin
PUBLISHED = Published(
    metric_names=["accuracy", "accuracy_yes_no", "accuracy_color", "accuracy_count_numeric"],
    rows=[
        (
            "reference, its own types",
            {"accuracy": 0.1956, "accuracy_yes_no": 0.379, "accuracy_color": 0.0265, "accuracy_count_numeric": 0.0415},
            "types by keywords: other rows stand behind the same names",
        )
    ],
    source="the reference implementation's own report, n = 8,984 test questions, not peer-reviewed",
)


@dataclass
class Data(ScriptArguments):
    dataset_name: str = "SimulaMet-HOST/Kvasir-VQA"
    dataset_train_split: str = "raw"
    validation_fraction: float = field(default=0.15, metadata={"help": "share of images to validate on, 0-1"})
    test_fraction: float = field(default=0.15, metadata={"help": "share of images to test on, 0-1"})
    split_seed: int = field(default=42, metadata={"help": "which images are held out; apart from --seed"})
    typed_prompt: bool = field(default=True, metadata={"help": "tell the model the type and the valid answers"})
    constrain: bool = field(default=True, metadata={"help": "keep answers to what the question's type allows"})
    min_pixels: int = field(default=256 * 28 * 28, metadata={"help": "smaller images are enlarged to this area"})
    max_pixels: int = field(default=768 * 28 * 28, metadata={"help": "larger images are reduced to this area"})
    max_rejected: float = field(default=0.01, metadata={"help": "stop if more rows than this share are unusable, 0-1"})
    questions_per_row: int = field(
        default=20, metadata={"help": "train on an image with so many of its questions at once; 1: on each by itself"}
    )
    eval_rows: int = field(default=500, metadata={"help": "validation questions to answer at each evaluation"})
    max_new_tokens: int = field(default=48, metadata={"help": "longest free answer in tokens"})


@dataclass
class Training(RunSettings, SFTConfig):
    output_dir: str = "outputs/kvasir_vqa"
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 16
    learning_rate: float = 1e-4
    warmup_steps: float = 0.05  # below 1: a share of all steps
    eval_strategy: str = "steps"
    eval_steps: float = 0.2
    save_strategy: str = "steps"
    save_steps: float = 0.2
    metric_for_best_model: str = "eval_accuracy"
    max_length: int | None = None  # the pixel budget bounds a row; a longer one is refused, never cut
    dataset_kwargs: dict = field(default_factory=lambda: {"skip_prepare_dataset": True})


@dataclass
class Model(ModelConfig):
    model_name_or_path: str = "Qwen/Qwen2-VL-7B-Instruct"
    dtype: str = field(default_factory=launched_dtype)
    load_in_4bit: bool | None = field(default=None, metadata={"help": "QLoRA; by default on cards below 24 GB"})
    use_bnb_nested_quant: bool = True
    use_peft: bool = True
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_target_modules: list[str] = field(default_factory=lambda: [LANGUAGE])  # the vision tower stays as it is


def prompt(question: str, kind: QuestionType | None) -> list[dict]:
    """What the model is asked: the same in training, evaluation and `vlm-ask`; no `kind`, no hints."""
    lines = [f"Question: {question}"]
    if kind is not None:
        lines.insert(0, f"Question type: {kind.name}")
        if kind.choices and not kind.units:
            lines.append(f"Valid answers: {', '.join(kind.choices)}")
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\n".join(lines)}]},
    ]


def read(data: Data) -> dict[str, Dataset]:
    """Training, validation and test part; no image is in two of them, and no part depends on what is refused."""
    if data.validation_fraction + data.test_fraction >= 1:
        raise DataError("validation_fraction and test_fraction leave no image to train on: their sum must be below 1")
    rows = load_split(data.dataset_name, data.dataset_config, data.dataset_train_split, COLUMNS)
    # The same image may be asked the same twice, once per polyp.
    rows = rows.select_columns(list(COLUMNS)).add_column(
        "id", [f"{image}#{number}" for number, image in enumerate(rows["img_id"])]
    )
    rest, test = hold_out(rows, data.test_fraction, by="img_id", seed=data.split_seed)
    of_rest = data.validation_fraction / (1 - data.test_fraction)
    train, validation = hold_out(rest, of_rest, by="img_id", seed=data.split_seed)
    return {"train": train, "validation": validation, "test": test}


def types_of(rows: Dataset) -> QuestionTypes:
    """What each question wants, from those answers to it that `to_chat` does not refuse."""
    return QuestionTypes.infer(rows["question"], [None if CONTROL in (a or "") else a for a in rows["answer"]])


def to_chat(row: dict, types: QuestionTypes, typed_prompt: bool) -> dict:
    """One row of the dataset as a chat row with its question's type; spelling stays upstream's."""
    question, answer = ("" if row[key] is None else str(row[key]).strip() for key in ("question", "answer"))
    if not question or not answer:
        raise BadRow(f"empty {'question' if not question else 'answer'}")
    if (question, answer) == ("none", "nan"):
        raise BadRow("a placeholder where upstream has no question")
    if row["img_id"] is None:
        raise BadRow("no img_id")
    if CONTROL in answer:
        raise BadRow(f"the answer {start_of(answer)} spells a control token")
    kind = types[question]
    messages = prompt(question, kind if typed_prompt else None)
    return {
        "id": row["id"],
        "image_id": row["img_id"],
        "image_size": row["image_size"],
        "question": question,
        "answer": answer,
        **kind.columns(),
        "messages": [*messages, {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
    }


def to_question(data: Data, folder: Path, image: Image.Image, question: str) -> dict:
    """A question that nobody has answered, typed as in the run that left `folder`."""
    kind = QuestionTypes.load(folder / TYPES_FILE)[question]
    messages = prompt(question, kind if data.typed_prompt else None)
    return {"id": "", "image": image, "question": question, **kind.columns(), "messages": messages}


def load(data: Data, model: Model, training: bool = False):
    """Model and processor; without LoRA every part of the model trains."""
    if model.load_in_4bit is None:
        model.load_in_4bit = model.use_peft and small_card()
    network, processor = load_checkpoint(model, to_train=training, skip_quantising=("model.visual",))
    if training or not left_by_a_run(model.model_name_or_path):
        set_pixel_budget(processor, data.min_pixels, data.max_pixels)
    return network, processor


def collator(data: Data, processor, **settings) -> ChatCollator | SharedImageCollator:
    """An image with several questions is read once."""
    return (SharedImageCollator if data.questions_per_row > 1 else ChatCollator)(processor, **settings)


def evaluation(data: Data, network, processor, majority: TypedMajority | None = None) -> Evaluation:
    return typed_evaluation(collator(data, processor, prompt_only=True), data.max_new_tokens, majority, data.constrain)


def expected(model: Model) -> Expected:
    """What trains: LoRA alone, unless that is off."""
    own = model.use_peft and model.model_name_or_path == Model.model_name_or_path
    return Expected(trains="lora_" if model.use_peft else "", share=TRAINABLE_SHARE if own else None)


def main(data: Data, training: Training, model: Model) -> None:
    raw = read(data)
    types = types_of(raw["train"])
    network, processor = load(data, model, training.do_train)
    adapt = partial(to_chat, types=types, typed_prompt=data.typed_prompt)
    with training.main_process_first(desc="checking rows"):
        (train, validation, test), refused = usable_rows(
            raw,
            within_length(adapt, ChatCollator(processor, max_length=training.max_length)),
            training.output_dir,
            data.max_rejected,
            training.dataset_num_proc,
        )
    types.save(Path(training.output_dir, TYPES_FILE))
    majority = typed_majority(train["answer"], train["question_type"], train["question"])

    record = RunRecord(
        training.output_dir,
        title="Kvasir-VQA",
        evaluation=evaluation(data, network, processor, majority).as_trained(training),
        run=describe_run(__file__, data, training, model, {"train": train, "test": test}),
        published=PUBLISHED,
        rejected=refused,
    )
    for kind in types.by_question.values() if data.constrain else ():
        record.evaluation.constrain(kind.columns())  # an answer set that cannot be kept to ends the run here
    log_history = []
    if training.do_train:
        # The loss, too, over these alone: over all of the validation part it would take longer than the answers.
        watched = validation.shuffle(seed=training.seed).select(range(min(data.eval_rows, len(validation))))
        grouped = group_by_image(train, data.questions_per_row, seed=training.seed)
        training.batch_rows(len(train), len(grouped))
        trainer = SFTTrainer(
            network,
            training,
            data_collator=collator(data, processor, max_length=training.max_length),
            train_dataset=grouped,
            eval_dataset=watched,
            processing_class=processor,
            peft_config=get_peft_config(model),
        )
        trainable_in_float32(trainer.model)
        trainer.model_accepts_loss_kwargs = True  # TRL divides by the step's tokens; Qwen2.5-VL says it cannot
        network, log_history = train_watched(
            trainer, record, {"train": train, "validation": watched, "test": test}, expected(model)
        )

    record.conclude(network, {"validation": validation, "test": test} if training.do_predict else {}, log_history)


if __name__ == "__main__":
    launch(main, (Data, Training, Model), refusals=(DataError, CheckpointError, AnswerSetError))
