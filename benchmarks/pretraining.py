"""The demo's Qwen2-VL, taught to describe drawn endoscopy pictures: a small stand-in for a trained model."""

from pathlib import Path

import numpy as np
from datasets import Dataset, Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from demo.worlds.endoscopy.picture import render
from demo.worlds.endoscopy.questions import answers
from demo.worlds.endoscopy.scene import draw_scene
from vlm_recipes.collators import ChatCollator

REQUEST = "Describe the image."
PICTURES, SEED, STEPS = 6000, 1, 1500  # the demo draws with seed 0


def write_descriptions(folder: Path) -> Dataset:
    """Draw pictures into the folder; a chat row for each, whose answer says all there is to see, in a fixed order."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(PICTURES):
        scene, file = draw_scene(np.random.default_rng([SEED, i])), folder / f"{i}.jpg"
        render(scene).save(file, quality=88)
        asked = [{"type": "image"}, {"type": "text", "text": REQUEST}]
        said = [{"type": "text", "text": "\n".join(answers(scene).values())}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        rows.append({"id": str(i), "image": str(file), "messages": messages})
    return Dataset.from_list(rows).cast_column("image", Image())


def learn_to_describe(untrained: Path, folder: Path) -> None:
    """Write the trained checkpoint, its weights last; some ten minutes on two CPU cores."""
    network, processor = (kind.from_pretrained(untrained) for kind in (AutoModelForImageTextToText, AutoProcessor))
    settings = SFTConfig(
        str(folder / "trainer"),
        max_steps=STEPS,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        adam_beta2=0.95,
        warmup_steps=50,
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=1,
        dataloader_pin_memory=False,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        logging_steps=250,
        report_to="none",
        disable_tqdm=True,
    )
    rows = write_descriptions(folder / "pictures")
    SFTTrainer(network, settings, ChatCollator(processor), rows, processing_class=processor).train()
    processor.save_pretrained(folder)
    network.save_pretrained(folder)
