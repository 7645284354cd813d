"""What has to hold in several processes too; each check works in a folder and returns what its process found.

accelerate launch --config_file accelerate_configs/zero2.yaml tests/support/processes/checks.py FOLDER runs those that
ZeRO could fail; what they return goes to FOLDER/results.<rank>.json.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForImageTextToText, AutoProcessor, Seq2SeqTrainingArguments, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import ModelConfig

from tests.support import tiny
from tests.support.processes import shared_image
from tests.support.processes.toy import N_ROWS, Toy, toy_rows
from vlm_recipes.callbacks import GenerationEvalCallback, GradNormCallback
from vlm_recipes.collators import ChatCollator, SegmentationCollator, Seq2SeqCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.models.checkpoints import load_checkpoint
from vlm_recipes.models.lisa.loading import load_lisa
from vlm_recipes.training.launch import leave_processes
from vlm_recipes.training.saved import SavedError, save
from vlm_recipes.training.trainers import LisaTrainer, TokenMeanTrainer

ROW_COUNTS = (0, 1, 2, 5, 7)


def write_checkpoints() -> None:
    """Before there are several processes, of which the first alone would save."""
    for write in (tiny.trained_qwen2_vl, tiny.trained_blip2, tiny.lisa, partial(shared_image.sharp, "qwen2_vl")):
        write()


def arguments(folder: Path, **settings) -> Seq2SeqTrainingArguments:
    """Settings under which the processes see all rows together at every optimizer step."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        settings["ddp_backend"] = "gloo"  # with use_cpu accelerate would take DDP
    else:
        settings["use_cpu"] = True
    processes = int(os.environ["WORLD_SIZE"])
    defaults = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    defaults |= {"lr_scheduler_type": "constant", "learning_rate": 0.1, "optim": "sgd", "max_grad_norm": 1e-3}
    defaults |= {"per_device_train_batch_size": N_ROWS // 2 // processes, "gradient_accumulation_steps": 2}
    return Seq2SeqTrainingArguments(folder, **(defaults | settings))


def grad_norms(folder: Path) -> dict:
    args = arguments(folder, max_steps=3)
    trainer = Trainer(Toy(), args, train_dataset=toy_rows())
    trainer.add_callback(GradNormCallback(trainer))
    trainer.train()
    result = {"kind": trainer.accelerator.distributed_type.value, "log": trainer.state.log_history}
    if trainer.is_deepspeed_enabled:
        result["steps_by"] = trainer.model_wrapped.optimizer.step.__qualname__
    return result


def rows_seen(folder: Path) -> dict:
    """Which of five rows this process collates in an epoch of steps of two rows a process."""
    seen: list[int] = []

    def collate(rows: list[tuple[int, dict]]) -> dict[str, torch.Tensor]:
        seen.extend(number for number, _ in rows)
        return torch.utils.data.default_collate([row for _, row in rows])

    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_train_epochs": 1}
    args = arguments(folder, train_sampling_strategy="sequential", remove_unused_columns=False, **settings)
    trainer = Trainer(Toy(), args, data_collator=collate, train_dataset=list(enumerate(toy_rows()))[:5])
    trainer.train()
    return {"seen": seen, "steps": trainer.state.global_step}


def sharded_grad_norms(folder: Path) -> dict:
    """FSDP2's gradients, which accelerate has only on GPUs: PyTorch shards, and the callback looks."""
    trainer = Trainer(Toy(), arguments(folder), train_dataset=toy_rows())
    model = fully_shard(trainer.model, mesh=init_device_mesh("cpu", (PartialState().num_processes,)))
    callback = GradNormCallback(trainer)
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model)
    mine = toy_rows()[PartialState().process_index :: PartialState().num_processes]
    model(torch.stack([row["x"] for row in mine]), torch.stack([row["y"] for row in mine]))["loss"].backward()
    callback._measure()
    return {group: square.sqrt().item() for group, square in callback._squares.items()}


def answers(folder: Path) -> dict:
    """Answers of the trained Qwen2-VL; under DeepSpeed as its Trainer divided it among the processes."""
    rows = tiny.chat_rows()
    checkpoint = tiny.trained_qwen2_vl()
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(checkpoint),
        AutoProcessor.from_pretrained(checkpoint),
    )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        args = arguments(folder, max_steps=1, learning_rate=0.0, remove_unused_columns=False)
        trainer = Trainer(model, args, data_collator=ChatCollator(processor), train_dataset=rows)
        trainer.train()
        model = trainer.model
    calls, answer = [], model.generate
    model.generate = lambda **batch: calls.append(len(batch["input_ids"])) or answer(**batch)
    result = {"divided": is_deepspeed_zero3_enabled()}
    for count in ROW_COUNTS:
        calls.clear()
        collator = ChatCollator(processor, prompt_only=True)
        texts = generate(model, rows[:count], collator, max_new_tokens=30, batch_size=2)
        result[str(count)] = {"texts": texts, "calls": [*calls]}
    return result


def token_mean(folder: Path) -> dict:
    """BLIP-2 at one optimizer step over all rows, evaluated by a callback before and after it."""
    PartialState().wait_for_everyone()
    checkpoint = tiny.trained_blip2()
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(checkpoint),
        AutoProcessor.from_pretrained(checkpoint),
    )
    args = arguments(folder, max_steps=1, learning_rate=0.0, remove_unused_columns=False, eval_strategy="steps")
    trainer = TokenMeanTrainer(
        model,
        args,
        data_collator=Seq2SeqCollator(processor),
        train_dataset=tiny.eight_questions(),
        eval_dataset=tiny.question_rows(),
        processing_class=processor,
    )
    evaluation = Evaluation(
        collator=Seq2SeqCollator(processor, prompt_only=True),
        metric=tiny.exact_match,
        score=tiny.exact_scores,
        headline="exact",
        max_new_tokens=30,
        reference=lambda row: row["answer"],
        batch_size=2,
    )
    trainer.add_callback(GenerationEvalCallback(trainer, tiny.question_rows(), evaluation))
    trainer.train()
    return {"log": trainer.state.log_history}


def mask_losses(folder: Path) -> dict:
    """LISA at one optimizer step over rows of which one process sees none with a mask, and the other three masks."""
    torch.manual_seed(0)
    llava, sam = tiny.lisa()
    network, processor = load_lisa(ModelConfig(str(llava), dtype="float32"), str(sam), True)
    args = arguments(
        folder, max_steps=1, learning_rate=0.0, remove_unused_columns=False, gradient_accumulation_steps=1
    )
    rows = [tiny.mask_rows()[i] for i in (1, 1, 2, 3)]
    collator = SegmentationCollator(processor)
    trainer = LisaTrainer(network, args, data_collator=collator, train_dataset=rows, processing_class=processor)
    trainer._get_train_sampler = lambda *_: range(len(rows))  # so that the processes' shares are known
    trainer.train()
    return {"log": trainer.state.log_history}


def image_losses(folder: Path) -> dict:
    """Qwen2-VL at one optimizer step over an image's row and a text-only one, each in a process of its own."""
    checkpoint = tiny.trained_qwen2_vl()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    rows = tiny.chat_rows()[2:4]
    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 1, "max_steps": 1}
    settings |= {"learning_rate": 0.0, "remove_unused_columns": False, "ddp_find_unused_parameters": False}
    collator = ChatCollator(AutoProcessor.from_pretrained(checkpoint))
    trainer = Trainer(model, arguments(folder, **settings), data_collator=collator, train_dataset=rows)
    trainer._get_train_sampler = lambda *_: range(len(rows))  # so that the processes' shares are known
    trainer.train()
    return {"log": trainer.state.log_history}


def shared_images(folder: Path) -> dict:
    """Each process sees two of the four images, or half of the questions, one after the other."""
    settings = {"ddp_backend": "gloo"} if os.environ.get("ACCELERATE_USE_DEEPSPEED") else {"use_cpu": True}
    checkpoint = shared_image.sharp("qwen2_vl")
    processor, result = AutoProcessor.from_pretrained(checkpoint), {}
    for name, shared in (("shared", True), ("separate", False)):
        model = AutoModelForImageTextToText.from_pretrained(checkpoint)
        more = {"gradient_accumulation_steps": 2, **settings}
        trainer = shared_image.new_trainer(model, processor, folder, shared_image.twelve_questions(), shared, **more)
        trainer.train()
        result[name] = trainer.state.log_history
    return result | {"kind": trainer.accelerator.distributed_type.value}


def saved_models(folder: Path) -> dict:
    """What each process says of a folder that holds what was trained, and of one in which a value was changed."""

    class Changing(Trainer):
        changes = False

        def save_model(self, *arguments, **settings):
            super().save_model(*arguments, **settings)
            for file in Path(self.args.output_dir).glob("*model.safetensors") if self.changes else ():
                if self.args.should_save:
                    weights = load_file(file)
                    next(weights[name] for name in weights if "q_proj" in name).view(-1)[0] += 1
                    save_file(weights, file, metadata={"format": "pt"})

    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 1, "max_steps": 1}
    settings |= {"remove_unused_columns": False, "ddp_find_unused_parameters": False}
    said = {}
    for kind in ("whole", "adapter"):
        args = arguments(folder / kind, **settings)  # ZeRO-3 wants to know before the model is loaded
        model, processor = load_checkpoint(ModelConfig(str(tiny.trained_qwen2_vl()), dtype="float32"), to_train=True)
        if kind == "adapter":
            model = get_peft_model(model, LoraConfig(target_modules=r".*language_model.*\.q_proj", r=2))
        rows = tiny.chat_rows()[:2]
        trainer = Changing(
            model, args, data_collator=ChatCollator(processor), train_dataset=rows, processing_class=processor
        )
        trainer.train()
        for trainer.changes in (False, True):
            try:
                said[f"{kind}, changed {trainer.changes}"] = save(trainer)
            except SavedError as error:
                said[f"{kind}, changed {trainer.changes}"] = str(error)
    return said


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Path(sys.argv[1])
    checks = (grad_norms, answers, mask_losses, image_losses, shared_images, saved_models)
    results = {check.__name__: check(here) for check in checks}
    (here / f"results.{os.environ['RANK']}.json").write_text(json.dumps(results))
    leave_processes()
