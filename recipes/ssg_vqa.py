"""SurgViVQA answers questions about surgical scenes: SSG-VQA's 51 classes, or REAL-Colon-VQA's sentences (Trainer).

SSG-VQA-Net on SSG-VQA: mean F1 .549 over classes (its paper); its checkpoint run again gets accuracy .608, mean F1
.504, weighted F1 .604. VideoMAE and BLIP's text encoder stay as they are, GPT-2 gets LoRA (811,008 parameters). The
reference implementation sends the answer, too, through the text encoder, which reads both ways, so that its loss and
its scores have seen it; here the question alone is encoded (`vlm_recipes.models.surgvivqa.model`).

Meant for one card and a 12-hour slot (not measured): 30,000 steps of 8 questions. On a cluster that stops jobs, this
goes on by itself from the last checkpoint:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/ssg_vqa.py --max_steps 0   # only look
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/ssg_vqa.py
    sbatch slurm/train.sbatch --frames_folder data/CholecT45/data
The frame's neighbours instead of the frame repeated; a frame encoded once for forty of its questions:
    accelerate launch … recipes/ssg_vqa.py --clip_stride 1 --num_frames 16
    accelerate launch … recipes/ssg_vqa.py --questions_per_row 40
All of GPT-2 instead of LoRA, and BLIP's text encoder; only evaluate; sentences about colonoscopies:
    accelerate launch … recipes/ssg_vqa.py --train_gpt2 true --train_blip true --learning_rate 1e-6 \
        --per_device_train_batch_size 2
    accelerate launch … recipes/ssg_vqa.py --do_train false --model_name_or_path outputs/ssg_vqa \
        --output_dir outputs/ssg_vqa_again
    accelerate launch … recipes/ssg_vqa.py --dataset_format real_colon \
        --dataset_name data/REAL-Colon-VQA/in_template.jsonl --frames_folder data/REAL-Colon --max_new_tokens 40
Your own questions: SSG-VQA's layout `FOLDER/ssg-qa/<video>/<frame>.txt` and `FOLDER/data/<video>/<six digits>.png`, a
split by video in `--videos FILE`, and your answers in LABELS.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset
from PIL import Image
from transformers import TrainingArguments, set_seed
from trl import ModelConfig, ScriptArguments, get_peft_config

from vlm_recipes.callbacks.preflight.model import Expected
from vlm_recipes.collators import VideoCollator
from vlm_recipes.eval.closed_set import closed_set_evaluation, types_of
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.label_tree import LabelTree, choose_label
from vlm_recipes.eval.keywords import keyword_evaluation
from vlm_recipes.eval.metrics.baselines import majority_answers
from vlm_recipes.eval.report.tables import Published
from vlm_recipes.models.checkpoints import CheckpointError
from vlm_recipes.models.precision import launched_dtype
from vlm_recipes.models.surgvivqa.loading import ATTENTION_AND_MLP, load_surgvivqa, train_parts
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.formats.real_colon import load_real_colon, read_real_colon
from vlm_recipes.rows.formats.ssg_vqa import check_clip, clip_of, load_question_folder, read_line
from vlm_recipes.rows.grouping import group_by_image, one_per_query
from vlm_recipes.rows.splits import by_video, read_videos
from vlm_recipes.rows.usable import usable_rows
from vlm_recipes.training.launch import launch
from vlm_recipes.training.record import RunRecord, describe_run
from vlm_recipes.training.run import train_watched
from vlm_recipes.training.settings import RunSettings
from vlm_recipes.training.trainers import ComposedTrainer

TRAINABLE_SHARE = 0.0023  # 811,008 parameters, with LoRA
LABELS = """0 1 10 2 3 4 5 6 7 8 9 False True abdominal_wall_cavity adhesion anatomy aspirate bipolar blood_vessel blue
brown clip clipper coagulate cut cystic_artery cystic_duct cystic_pedicle cystic_plate dissect fluid gallbladder grasp
grasper gut hook instrument irrigate irrigator liver omentum pack peritoneum red retract scissors silver specimen_bag
specimenbag white yellow""".split()
PUBLISHED = Published(
    metric_names=["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]
    + [f"macro_f1_{kind}" for kind in ("zero_hop", "one_hop", "single_and", "exist", "count")],
    rows=[
        (
            "SSG-VQA-Net, its paper",
            {
                "macro_f1": 0.549,
                "macro_f1_zero_hop": 0.582,
                "macro_f1_one_hop": 0.524,
                "macro_f1_single_and": 0.384,
                "macro_f1_exist": 0.758,
                "macro_f1_count": 0.286,
            },
            "mean F1",
        ),
        (
            "SSG-VQA-Net, its checkpoint run again",
            {
                "accuracy": 0.6076,
                "macro_precision": 0.5498,
                "macro_recall": 0.4918,
                "macro_f1": 0.5039,
                "weighted_f1": 0.6037,
            },
            "macro_precision and macro_recall are called mAP and mAR there",
        ),
    ],
    source="SSG-VQA, arXiv 2312.10251, and its released code, on the questions of five test videos",
)


@dataclass
class Data(ScriptArguments):
    dataset_name: str = "data/SSG-VQA"  # from github.com/CAMMA-public/SSG-VQA; the frames are CholecT45's
    dataset_format: str = field(default="ssg_vqa", metadata={"choices": ["ssg_vqa", "real_colon"]})
    frames_folder: str | None = field(default=None, metadata={"help": "default: `data` in the dataset's folder"})
    videos: str | None = field(default=None, metadata={"help": "split by video; default: one beside this"})
    clip_stride: int = field(default=0, metadata={"help": "n: a clip of every n-th frame; 0: the frame repeated"})
    candidates: bool = field(default=False, metadata={"help": "name the 51 labels in the prompt"})
    score: str = field(
        default="mean", metadata={"help": "of a label's token log-probabilities", "choices": ["mean", "sum"]}
    )
    questions_per_row: int = field(
        default=4, metadata={"help": "train on a frame with so many of its questions at once; 1: on each by itself"}
    )
    max_rejected: float = field(default=0.01, metadata={"help": "stop if more rows than this share are unusable, 0-1"})
    eval_rows: int = field(default=2000, metadata={"help": "validation questions to answer at each evaluation"})
    max_new_tokens: int = field(default=16, metadata={"help": "longest free answer in tokens"})
    dataset_num_proc: int | None = field(default=None, metadata={"help": "processes that check rows"})


@dataclass
class Training(RunSettings, TrainingArguments):
    output_dir: str = "outputs/ssg_vqa"
    max_steps: int = 30000
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup_steps: float = 500
    logging_steps: float = 50
    eval_strategy: str = "steps"
    eval_steps: float = 2000
    save_strategy: str = "steps"
    save_steps: float = 2000
    metric_for_best_model: str = "eval_accuracy"
    prediction_loss_only: bool = True  # answers are generated; nobody needs the logits of an evaluation step


@dataclass
class Model(ModelConfig):
    model_name_or_path: str = "openai-community/gpt2"
    video_name_or_path: str = "MCG-NJU/videomae-base"
    text_name_or_path: str = "Salesforce/blip-vqa-base"
    num_frames: int = field(default=8, metadata={"help": "of a video, where the model is made anew"})
    train_videomae: bool = field(default=False, metadata={"help": "train VideoMAE, too"})
    train_blip: bool = field(default=False, metadata={"help": "train BLIP's text encoder, too"})
    train_gpt2: bool = field(default=False, metadata={"help": "train all of GPT-2 instead of LoRA"})
    dtype: str = field(default_factory=launched_dtype)
    lora_r: int = 8
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    lora_target_modules: list[str] = field(default_factory=lambda: [ATTENTION_AND_MLP])
    lora_task_type: str | None = None  # of PEFT's tasks, this is none


def prompt(question: str, candidates: bool = False) -> str:
    """What the text encoder reads: the same in training, evaluation and `vlm-ask`."""
    named = f"\nCandidates: {', '.join(LABELS)}" if candidates else ""
    return f"Question: {question}{named}\nAnswer:"


def frames_of(data: Data) -> Path:
    source = Path(data.dataset_name)
    return Path(data.frames_folder or (source.parent if data.dataset_format == "real_colon" else source) / "data")


def read(data: Data) -> dict[str, Dataset]:
    """Training, validation and test part, a row for each question; no video is in two of them."""
    source, real_colon = Path(data.dataset_name), data.dataset_format == "real_colon"
    splits = read_videos(Path(data.videos or Path(__file__).with_name(f"{data.dataset_format}_videos.yaml")))
    frames = frames_of(data)
    if real_colon:
        return by_video(load_real_colon(source, frames), splits)
    parts = {split: load_question_folder(source / "ssg-qa", frames, videos) for split, videos in splits.items()}
    for split, part in parts.items():
        if missing := sorted(set(splits[split]) - set(part.unique("video"))):
            raise DataError(
                f"no questions on {', '.join(missing)} of {split!r}: list the videos you have in --videos FILE"
            )
    return parts


def to_row(row: dict, data: Data, collator: VideoCollator) -> dict:
    """A frame or clip with one question; a label that is none of the 51 is refused, and nothing is cut."""
    if data.dataset_format == "real_colon":
        query, clip = read_real_colon(row), row["frames"]
        image_id = f"{row['video']} {Path(clip[0]).stem} to {Path(clip[-1]).stem}"
    else:
        query, clip, image_id = read_line(row["line"]), [], f"{row['video']}/{row['frame']}"
        if query["answer"] not in LABELS:
            raise BadRow(f"the answer {query['answer']!r} is none of the {len(LABELS)} labels")
        if data.clip_stride:
            clip = clip_of(row["image"]["path"], row["frame"], collator.num_frames, data.clip_stride)
    if clip:
        check_clip(clip, collator.num_frames, frames_of(data))
    query |= {"id": row["id"], "prompt": prompt(query["question"], data.candidates)}
    collator.question_ids(query["prompt"])
    return {"id": row["id"], "image_id": image_id, "image_size": row["image_size"], "frames": clip, "queries": [query]}


def to_question(data: Data, folder: Path, image: Image.Image, question: str) -> dict:
    """A question that nobody has answered, as a row about a frame that stands still."""
    return {"id": "", "image": image, "question": question, "prompt": prompt(question, data.candidates)}


def trained_whole(model: Model) -> list[str]:
    """The parts that the flags name."""
    flags = {"video": model.train_videomae, "text_encoder": model.train_blip, "decoder": model.train_gpt2}
    return [part for part, trains in flags.items() if trains]


def load(data: Data, model: Model, training: bool = False):
    """Model and processor; to train, LoRA on GPT-2, and whole what the flags name."""
    network, processor = load_surgvivqa(
        model, model.video_name_or_path, model.text_name_or_path, model.num_frames, to_train=training
    )
    if training:
        model.use_peft = not model.train_gpt2
        network = train_parts(network, trained_whole(model), get_peft_config(model))
    return network, processor


def evaluation(data: Data, network, processor, majority=None, groups: tuple[str, ...] = ()) -> Evaluation:
    collator = VideoCollator(processor, network.config.video.num_frames, prompt_only=True)
    if data.dataset_format == "real_colon":
        return keyword_evaluation(collator, data.max_new_tokens, majority, groups)
    tree = LabelTree([collator.answer_ids(label) for label in LABELS], processor.tokenizer.eos_token_id)
    longest = max(data.max_new_tokens, tree.sequences.shape[1])
    choose = partial(choose_label, labels=tree, mean=data.score == "mean")
    return closed_set_evaluation(collator, longest, LABELS, choose, majority, groups)


def expected(model: Model) -> Expected:
    """LoRA on GPT-2, or all of it, and what the flags name."""
    parts = [rf"(^|\.){part}\." for part in trained_whole(model)]
    own = model.model_name_or_path == Model.model_name_or_path and not parts
    return Expected("|".join(["lora_", *parts]), TRAINABLE_SHARE if own else None)


def main(data: Data, training: Training, model: Model) -> None:
    set_seed(training.seed)  # what load makes anew is random
    raw = read(data)
    network, processor = load(data, model, training.do_train)
    collator = VideoCollator(processor, network.config.video.num_frames)
    with training.main_process_first(desc="checking rows"):
        adapt = partial(to_row, data=data, collator=collator)
        usable, refused = usable_rows(raw, adapt, training.output_dir, data.max_rejected, data.dataset_num_proc)
    train, validation, test = (one_per_query(frames) for frames in usable)
    kinds = sorted({kind for part in (train, validation, test) for kind in part["kind"]})
    hops = sorted({hops for part in (train, validation, test) for hops in part["hops"]} - {*kinds, ""})
    majority = majority_answers(train["answer"], types_of(train.select_columns(["kind", "hops"])))
    evaluated = evaluation(data, network, processor, majority, (*kinds, *hops)).as_trained(training)
    if data.dataset_format == "real_colon" and training.metric_for_best_model == Training.metric_for_best_model:
        training.metric_for_best_model = f"eval_{evaluated.headline}"
    parts = {"train": train, "validation": validation, "test": test}

    record = RunRecord(
        training.output_dir,
        title="SSG-VQA" if data.dataset_format == "ssg_vqa" else "REAL-Colon-VQA",
        evaluation=evaluated,
        run=describe_run(__file__, data, training, model, parts),
        published=PUBLISHED if data.dataset_format == "ssg_vqa" else None,
        rejected=refused,
    )
    log_history = []
    if training.do_train:
        # The loss, too, over these alone: over all of the validation part it would take longer than the answers.
        watched = validation.shuffle(seed=training.seed).select(range(min(data.eval_rows, len(validation))))
        grouped = group_by_image(train, data.questions_per_row, seed=training.seed)
        training.batch_rows(len(train), len(grouped))
        trainer = ComposedTrainer(
            network,
            training,
            data_collator=collator,
            train_dataset=grouped,
            eval_dataset=watched,
            processing_class=processor,
        )
        network, log_history = train_watched(trainer, record, parts | {"validation": watched}, expected(model))

    record.conclude(network, {"test": test} if training.do_predict else {}, log_history)


if __name__ == "__main__":
    launch(main, (Data, Training, Model), refusals=(DataError, CheckpointError))
