"""LISA on ReasonSeg: asked a question that takes a thought, a language model draws the mask (Trainer, LoRA).

LLaVA-1.5 answers "Sure, it is [SEG].", and the hidden state that predicts `[SEG]` becomes the prompt of SAM's mask
decoder. The paper (arXiv 2308.00692) reports a gIoU of .473 to .613 for models first trained on large segmentation
datasets (`published.yaml`); this recipe starts from LLaVA and SAM alone.

Settings are the reference's, for a large card (not measured), and with ddp.yaml or zero2.yaml for several:
    accelerate launch --config_file accelerate_configs/h100_80gb.yaml recipes/reasonseg.py --output_dir outputs/lisa
Those of the small-card copy, which reports 5.79 GB and 1.9 s per sample on 8 GB, or 5.00 and 0.7 without LoRA (here
--tune decoder). It trains neither embeddings nor output head, --tune seg of both the row of [SEG] alone:
    accelerate launch --config_file accelerate_configs/rtx_8gb.yaml recipes/reasonseg.py \
        --tune seg --load_in_4bit true --sam_name_or_path facebook/sam-vit-base --learning_rate 1e-4 \
        --weight_decay 0.01 --per_device_train_batch_size 1 --gradient_accumulation_steps 20 \
        --gradient_checkpointing true --questions_per_row 1 --optim paged_adamw_8bit --output_dir outputs/lisa_small
Only evaluate what a run left, for example on a Hub copy of the test part:
    accelerate launch … recipes/reasonseg.py --do_train false --model_name_or_path outputs/lisa \
        --dataset_name Ricky06662/ReasonSeg_test --output_dir outputs/lisa_test
Your own masks: --dataset_name FOLDER as ReasonSeg's authors give it (`train/`, `val/`, `test/`; a `kind` beside `text`
groups the numbers), in COCO, labelme or PNG files (docs/data.md), or with `image`, `text` (a sentence) and `mask`.
"""

from vlm_recipes.training.launch import launch  # isort: skip  (before the libraries that it keeps quiet)
import math
import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators import SegmentationCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.masks import mask_evaluation
from vlm_recipes.eval.metrics.baselines import best_constant_mask
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.models.checkpoints import CheckpointError
from vlm_recipes.models.lisa.loading import ATTENTION, WHOLE, freeze_unreached, load_lisa, with_adapter
from vlm_recipes.models.lora import LoraModel, refuse_lora
from vlm_recipes.models.precision import trainable_in_float32
from vlm_recipes.rows import apart, content_id, group_by_image, one_per_query, read_rows, three_parts, usable_rows
from vlm_recipes.rows.conventions import IGNORED_PIXEL
from vlm_recipes.rows.formats.reasonseg import read_annotated
from vlm_recipes.rows.grouping import with_questions_shuffled
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import RowSettings, RunSettings, setting
from vlm_recipes.training.trainers import LisaTrainer

SENTENCES = ["{} Please output segmentation mask.", "{} Please respond with segmentation mask."]
PHRASES = [
    "What is {} in this image? Please output segmentation mask.",
    "What is {} in this image? Please respond with segmentation mask.",
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
]
MASKS = ["trainable_tokens", "mask_decoder", "mask_projection"]
TRAINS = {"lisa": ["lora_", *WHOLE], "seg": ["lora_", *MASKS], "decoder": MASKS, "all": [""]}
TRAINABLE_SHARE = {"lisa": 0.0360, "decoder": 0.0028, "seg": 0.0034}  # of LLaVA-1.5-7B and SAM-huge
ANSWERS = ["It is [SEG].", "Sure, [SEG].", "Sure, it is [SEG].", "Sure, the segmentation result is [SEG].", "[SEG]."]


@dataclass
class Data(RowSettings):
    dataset_name: str = "data/ReasonSeg"  # linked from github.com/dvlab-research/LISA; not on the Hub as a whole
    dataset_validation_split: str = "val"
    validation_fraction: float = setting(0.1, "share of images to validate on where a dataset has no part for it, 0-1")
    questions_per_row: int = setting(2, "train on so many of an image's queries at once; 1: on each by itself")


@dataclass
class Training(RunSettings, TrainingArguments):
    output_dir: str = "outputs/reasonseg"
    max_steps: int = 5000
    per_device_train_batch_size: int = 2
    per_device_eval_batch_size: int = 1  # an image with all its queries; eight take SAM's attention 4 GB
    gradient_accumulation_steps: int = 10
    learning_rate: float = 3e-4
    adam_beta2: float = 0.95
    warmup_steps: float = 100
    logging_steps: float = 10
    eval_steps: float = 500
    metric_for_best_model: str = "eval_giou"
    prediction_loss_only: bool = True  # an evaluation step has masks of many sizes, and needs none of them
    patience: int = setting(10, "stop after this many evaluations without a better eval_giou")


@dataclass
class Model(LoraModel):
    model_name_or_path: str = "llava-hf/llava-1.5-7b-hf"
    sam_name_or_path: str = "facebook/sam-vit-huge"
    tune: str = setting("lisa", "LoRA, vocabulary, masks; of the vocabulary [SEG]; so without LoRA; all", *TRAINS)
    ce_weight: float = setting(1.0, "weight of the loss of the answer's tokens")
    bce_weight: float = setting(2.0, "weight of the binary cross-entropy of masks")
    dice_weight: float = setting(0.5, "weight of the Dice loss of masks")
    use_bnb_nested_quant: bool = True
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_target_modules: list[str] = field(default_factory=lambda: [ATTENTION])
    lora_modules_to_save: list[str] = field(default_factory=lambda: list(WHOLE))
    lora_task_type: str | None = None  # of PEFT's tasks, this is none


def prompt(query: str, is_sentence: bool = True, source: random.Random | None = None) -> list[dict]:
    """What the model is asked: in the reference's wording of evaluation, to train in one of its drawn ones."""
    wordings = SENTENCES if is_sentence else PHRASES
    wording = source.choice(wordings) if source else wordings[0]
    return [{"role": "user", "content": wording.format(query).replace("the the ", "the ")}]


def read(data: Data, do_train: bool, seed: int = 42) -> dict[str, Dataset]:
    """Each part with an image a row; to evaluate, only that to test on has to be there."""
    splits = read_rows("masks", data, ("image", "text", "mask")).splits
    test = data.dataset_test_split or "test"
    if not do_train and test in splits:
        named = {"train": data.dataset_train_split, "validation": data.dataset_validation_split, "test": test}
        apart(test, named["train"], named["validation"])
        return {part: splits[split] for part, split in named.items() if split in splits}
    return three_parts(splits, data, seed, data.dataset_validation_split)


def asked(query: dict, source: random.Random | None = None, answers: list[str] = ANSWERS) -> dict:
    """A query with its conversation: to train, in wordings that each epoch draws anew."""
    answer = source.choice(answers) if source else answers[0]
    messages = [*prompt(query["question"], query["is_sentence"], source), {"role": "assistant", "content": answer}]
    return {**query, "answer": answer, "messages": messages}


def to_row(row: dict) -> dict:
    """An image with its queries: for each the conversation, the mask and what does not count."""
    texts, is_sentence, kind, mask = read_annotated(row)
    image_id = content_id(row["image"])
    name = str(row.get("id") or row.get("image_id") or image_id[:12])
    ignored = mask == IGNORED_PIXEL
    target, ignored = encode(mask == 1), encode(ignored) if ignored.any() else None
    same = {"is_sentence": is_sentence, "masks": [target], "ignore": ignored, "kind": kind}
    queries = [{"id": f"{name} {i}", "question": text, **same, "first": i == 0} for i, text in enumerate(texts)]
    return {"id": name, "image_id": image_id, "queries": [asked(query) for query in queries]}


def to_question(data: Data, folder: Path, question: str) -> dict:
    """What `vlm-ask` asks about a picture that nobody has masked."""
    return {"messages": prompt(question, is_sentence=question.endswith((".", "?", "!")))}


def load(data: Data, model: Model, output_dir: str | None = None):
    """Model and processor, with what `--tune` names set to train."""
    training = output_dir is not None
    network, processor = load_lisa(model, model.sam_name_or_path, to_train=training)
    for name in ("ce_weight", "bce_weight", "dice_weight"):
        setattr(network.config, name, getattr(model, name))
    if training and model.tune == "all":
        if isinstance(network, PeftModel) or model.load_in_4bit or model.load_in_8bit:
            raise CheckpointError("--tune all trains a whole model that is not quantised, and no adapter")
        refuse_lora(model, "--tune all trains without LoRA")
        freeze_unreached(network)
        network.float()  # what is frozen, too, reads float32: on a CPU nothing would cast that for it
    elif training:
        network = with_adapter(network, model, lora=model.tune != "decoder", vocabulary=model.tune == "lisa")
    if training:
        trainable_in_float32(network)
    return network, processor


def evaluation(data: Data, network, processor, constant=None, kinds: tuple[str, ...] = ()) -> Evaluation:
    collator = processor and SegmentationCollator(processor, prompt_only=True, **data.shown)  # none: to score alone
    return mask_evaluation(collator, data.max_new_tokens, constant, kinds)


def main(data: Data, training: Training, model: Model) -> None:
    set_seed(training.seed)  # what load makes anew is random
    raw = read(data, training.do_train, training.seed)
    network, processor = load(data, model, training.trained_into)
    usable, refused = usable_rows(raw, to_row, training.output_dir, data.max_rejected, training.dataset_num_proc)
    rows = {split: one_per_query(images) for split, images in zip(raw, usable, strict=True)}
    parts = train, validation, test = data.limited(*map(rows.get, ("train", "validation", "test")), training)
    known = test if train is None else train  # then the baseline has even seen the answers
    constant = best_constant_mask(known["masks"], known["ignore"])
    kinds = tuple(sorted({kind for part in rows.values() for kind in part.unique("kind")}))
    run = Run(__file__, data, training, model, parts, evaluation(data, network, processor, constant, kinds), refused)
    if training.do_train:
        reworded = partial(asked, answers=ANSWERS[-1:] if model.tune == "decoder" else ANSWERS)
        grouped = group_by_image(train, data.questions_per_row, training.seed, reworded)
        trainer = LisaTrainer(
            network,
            training.in_rows(len(train), len(grouped)),
            data_collator=SegmentationCollator(processor, **data.shown),
            train_dataset=grouped,
            eval_dataset=data.watched(validation, training.seed),
            processing_class=processor,
        )
        giou = GenerationEvalCallback(trainer, trainer.eval_dataset, run.evaluation)
        stopping = [EarlyStoppingCallback(training.patience)] if training.eval_strategy != "no" else []
        lisa = {"trains": "|".join(TRAINS[model.tune]), "share": TRAINABLE_SHARE.get(model.tune)}
        # An untrained model guesses tokens, and each pixel by a coin.
        guess = model.ce_weight * math.log(network.config.llava.text_config.vocab_size)
        guess += model.bce_weight * math.log(2) + model.dice_weight
        network = run.train(trainer, giou, GradNormCallback(trainer), *stopping, first_loss=guess, **lisa)
    run.conclude(network, {"test, questions shuffled": with_questions_shuffled(test, training.seed)})


if __name__ == "__main__":
    launch(main, Data, Training, Model)
