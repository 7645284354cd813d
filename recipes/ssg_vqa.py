"""SurgViVQA answers questions about surgical scenes: SSG-VQA's 51 classes, or REAL-Colon-VQA's sentences (Trainer).

VideoMAE and BLIP's text encoder stay as they are, GPT-2 gets LoRA. The reference implementation sends the answer, too,
through the text encoder, which reads both ways, so that its loss and its scores have seen it; here the question alone
is encoded (`vlm_recipes.models.surgvivqa.model`). Other people's numbers stand in `published.yaml`.

Meant for one card and a 12-hour slot (not measured): 30,000 steps of 8 questions. On a cluster that stops jobs, the
last of these goes on by itself from the last checkpoint:
    accelerate launch --config_file accelerate_configs/a100_40gb.yaml recipes/ssg_vqa.py --output_dir outputs/ssg_vqa
    accelerate launch … recipes/ssg_vqa.py --max_steps 0 --output_dir outputs/ssg_vqa_preflight   # only look
    OUTPUT_DIR=outputs/ssg_vqa_slots sbatch slurm/train.sbatch --frames_folder data/CholecT45/data
The frame's neighbours instead of the frame repeated; all of GPT-2 and of BLIP's text encoder; evaluate; colonoscopies:
    accelerate launch … recipes/ssg_vqa.py --clip_stride 1 --num_frames 16 --output_dir outputs/ssg_vqa_clips
    accelerate launch … recipes/ssg_vqa.py --train_gpt2 true --train_blip true --learning_rate 1e-6 \
        --per_device_train_batch_size 2 --output_dir outputs/ssg_vqa_whole
    accelerate launch … recipes/ssg_vqa.py --do_train false --model_name_or_path outputs/ssg_vqa --output_dir …
    accelerate launch … recipes/ssg_vqa.py --dataset_format real_colon --output_dir outputs/real_colon \
        --dataset_name data/REAL-Colon-VQA/in_template.jsonl --frames_folder data/REAL-Colon --max_new_tokens 40
Your own questions: SSG-VQA's layout `FOLDER/ssg-qa/<video>/<frame>.txt` and `FOLDER/data/<video>/<six digits>.png`, a
split by video in `--videos FILE`, and your answers in LABELS.
"""

from vlm_recipes.training.launch import launch  # isort: skip  (before the libraries that it keeps quiet)
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset
from transformers import TrainingArguments, set_seed

from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators import VideoCollator
from vlm_recipes.eval.closed_set import closed_set_evaluation, types_of
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.label_tree import LabelTree, choose_label
from vlm_recipes.eval.keywords import keyword_evaluation
from vlm_recipes.eval.metrics.baselines import majority_answers
from vlm_recipes.models.lora import LoraModel, lora_unless
from vlm_recipes.models.surgvivqa.loading import ATTENTION_AND_MLP, load_surgvivqa, train_parts
from vlm_recipes.rows import BadRow, DataError, by_video, group_by_image, read_videos, usable_rows
from vlm_recipes.rows.formats.real_colon import load_real_colon, read_real_colon
from vlm_recipes.rows.formats.ssg_vqa import check_clip, clip_of, load_question_folder, read_line
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import RowSettings, RunSettings, setting
from vlm_recipes.training.trainers import ComposedTrainer

TRAINABLE_SHARE = 0.0023  # 811,008 parameters, with LoRA
LABELS = """0 1 10 2 3 4 5 6 7 8 9 False True abdominal_wall_cavity adhesion anatomy aspirate bipolar blood_vessel blue
brown clip clipper coagulate cut cystic_artery cystic_duct cystic_pedicle cystic_plate dissect fluid gallbladder grasp
grasper gut hook instrument irrigate irrigator liver omentum pack peritoneum red retract scissors silver specimen_bag
specimenbag white yellow""".split()


@dataclass
class Data(RowSettings):
    dataset_name: str = "data/SSG-VQA"  # from github.com/CAMMA-public/SSG-VQA; the frames are CholecT45's
    dataset_format: str = field(default="ssg_vqa", metadata={"choices": ["ssg_vqa", "real_colon"]})
    frames_folder: str | None = setting(None, "default: `data` in the dataset's folder")
    videos: str | None = setting(None, "split by video; default: one beside this")
    clip_stride: int = setting(0, "n: a clip of every n-th frame; 0: the frame repeated")
    candidates: bool = setting(False, "name the 51 labels in the prompt")
    score: str = setting("mean", "of a label's token log-probabilities", "mean", "sum")
    questions_per_row: int = setting(4, "train on so many of a frame's questions at once; 1: on each by itself")
    eval_rows: int = 500
    max_new_tokens: int = 16


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
    eval_steps: float = 2000
    metric_for_best_model: str = "eval_accuracy"
    prediction_loss_only: bool = True  # answers are generated; nobody needs the logits of an evaluation step


@dataclass
class Model(LoraModel):
    model_name_or_path: str = "openai-community/gpt2"
    video_name_or_path: str = "MCG-NJU/videomae-base"
    text_name_or_path: str = "Salesforce/blip-vqa-base"
    num_frames: int = setting(8, "of a video, where the model is made anew")
    train_videomae: bool = setting(False, "train VideoMAE, too")
    train_blip: bool = setting(False, "train BLIP's text encoder, too")
    train_gpt2: bool = setting(False, "train all of GPT-2 instead of LoRA")
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
    data.refuse_without_effect("dataset_(config|.*_split)|test_fraction", "ssg_vqa splits by video, see --videos")
    splits = read_videos(Path(data.videos or Path(__file__).with_name(f"{data.dataset_format}_videos.yaml")))
    frames = frames_of(data)
    if real_colon:
        data.refuse_without_effect("clip_stride|score", "REAL-Colon-VQA has clips, and answers in sentences")
        return by_video(load_real_colon(source, frames), splits)
    parts = {split: load_question_folder(source / "ssg-qa", frames, videos) for split, videos in splits.items()}
    for split, part in parts.items():
        if missing := sorted(set(splits[split]) - set(part.unique("video"))):
            raise DataError(f"no questions on {', '.join(missing)} of {split!r}: list those you have in --videos FILE")
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
    query["prompt"] = prompt(query["question"], data.candidates)
    collator.question_ids(query["prompt"])
    return {**query, "id": row["id"], "image_id": image_id, "frames": clip}


def to_question(data: Data, folder: Path, question: str) -> dict:
    """What `vlm-ask` asks about a frame that stands still."""
    return {"prompt": prompt(question, data.candidates)}


def trained_whole(model: Model) -> list[str]:
    """The parts that the flags name."""
    flags = {"video": model.train_videomae, "text_encoder": model.train_blip, "decoder": model.train_gpt2}
    return [part for part, trains in flags.items() if trains]


def load(data: Data, model: Model, output_dir: str | None = None):
    """Model and processor; to train, LoRA on GPT-2, and whole what the flags name."""
    network, processor = load_surgvivqa(
        model, model.video_name_or_path, model.text_name_or_path, model.num_frames, to_train=output_dir is not None
    )
    if output_dir is not None:
        network = train_parts(network, trained_whole(model), lora_unless(model, "train_gpt2"))
    return network, processor


def evaluation(data: Data, network, processor, majority=None, groups: tuple[str, ...] = ()) -> Evaluation:
    collator = processor and VideoCollator(processor, network.config.video.num_frames, prompt_only=True, **data.shown)
    if data.dataset_format == "real_colon":
        return keyword_evaluation(collator, data.max_new_tokens, majority, groups)
    if processor is None:  # to score alone
        return closed_set_evaluation(None, data.max_new_tokens, LABELS, None, majority, groups)
    tree = LabelTree([collator.answer_ids(label) for label in LABELS], processor.tokenizer.eos_token_id)
    longest = max(data.max_new_tokens, tree.sequences.shape[1])
    choose = partial(choose_label, labels=tree, mean=data.score == "mean")
    return closed_set_evaluation(collator, longest, LABELS, choose, majority, groups)


def main(data: Data, training: Training, model: Model) -> None:
    set_seed(training.seed)  # what load makes anew is random
    raw = read(data)
    network, processor = load(data, model, training.trained_into)
    collator = VideoCollator(processor, network.config.video.num_frames, **data.shown)
    adapt = partial(to_row, data=data, collator=collator)
    usable, refused = usable_rows(raw, adapt, training.output_dir, data.max_rejected, training.dataset_num_proc)
    parts = train, validation, test = data.limited(*usable, training)
    kinds = sorted({kind for part in parts for kind in part.unique("kind")})
    hops = sorted({hops for part in parts for hops in part.unique("hops")} - {*kinds, ""})
    majority = majority_answers(train["answer"][:], types_of(train["kind"][:], train["hops"][:]))

    evaluated = evaluation(data, network, processor, majority, (*kinds, *hops))
    run = Run(__file__, data, training, model, parts, evaluated, refused, name=data.dataset_format)
    if training.do_train:
        grouped = group_by_image(train, data.questions_per_row, seed=training.seed)
        settings = training.in_rows(len(train), len(grouped))
        if data.dataset_format == "real_colon" and training.metric_for_best_model == Training.metric_for_best_model:
            settings.metric_for_best_model = f"eval_{evaluated.headline}"
        trainer = ComposedTrainer(
            network,
            settings,
            data_collator=collator,
            train_dataset=grouped,
            eval_dataset=data.watched(validation, training.seed),
            processing_class=processor,
        )
        accuracy = GenerationEvalCallback(trainer, trainer.eval_dataset, run.evaluation)
        trains = "|".join(["lora_", *(rf"(^|\.){part}\." for part in trained_whole(model))])
        share = None if trained_whole(model) else TRAINABLE_SHARE
        network = run.train(trainer, accuracy, GradNormCallback(trainer), trains=trains, share=share)
    run.conclude(network)


if __name__ == "__main__":
    launch(main, Data, Training, Model)
