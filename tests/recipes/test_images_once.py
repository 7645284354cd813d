"""To answer a part, each of its images passes through the vision tower once, however many questions are about it."""

import importlib
from collections import Counter
from dataclasses import replace

import pytest

from demo.worlds.small import build
from vlm_recipes.eval.generation.batches import QUESTIONS, batches_by_image
from vlm_recipes.rows.conventions import SEG_TOKEN
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.run import Run

TOWERS = {
    "kvasir_vqa": ["model.visual"],
    "visual_chat": ["model.visual"],
    "vqa_rad": ["vision_model"],
    "reasonseg": ["llava.model.vision_tower", "sam.vision_encoder"],
    "ssg_vqa": ["video"],
}
MORE = {
    "kvasir_vqa": ["--test_fraction", "0.3"],
    "visual_chat": ["--questions_per_row", "4"],
    "vqa_rad": ["--max_test_rows", "40"],
}
DATA = {
    "visual_chat": {"test": 4},
    "reasonseg": {"test": 4},
    "ssg_vqa": {"frames": {"train": 4, "validation": 1, "test": 4}},
}
LAUNCH = "--do_train false --use_cpu true --bf16 false --dataloader_num_workers 0 --max_new_tokens 2".split()


@pytest.mark.parametrize("name", TOWERS)
def test_a_pass_over_the_test_part_encodes_each_image_once(name, tmp_path, monkeypatch):
    recipe, kept = importlib.import_module(f"recipes.{name}"), []
    monkeypatch.setattr(Run, "conclude", lambda run, network, *others: kept.append((run, network)))
    arguments = [*build(name, tmp_path, **DATA.get(name, {})), *LAUNCH, "--output_dir", str(tmp_path / "out")]
    parser = RecipeParser((recipe.Data, recipe.Training, recipe.Model))
    recipe.main(*parser.parse_args_and_config([*arguments, *MORE.get(name, [])]))
    [(run, network)] = kept
    rows, evaluation = run.parts["test"], replace(run.evaluation, batch_size=1)
    if name == "reasonseg":  # untrained, it draws nothing, and needs no encoded image to do so
        seg = evaluation.collator.processor.tokenizer.convert_tokens_to_ids(SEG_TOKEN)
        evaluation.generation_kwargs["prefix_allowed_tokens_fn"] = lambda row, ids: [seg]
    images, seen = Counter(rows["image_id"]), Counter()
    assert len(images) >= 3 and max(images.values()) > 1  # more than a batch

    def count(tower):
        def hook(module, inputs, settings):
            pixels = settings.get("grid_thw", settings.get("pixel_values", inputs[0] if inputs else None))
            seen[tower] += len(pixels)

        return hook

    for tower in TOWERS[name]:
        network.get_submodule(tower).register_forward_pre_hook(count(tower), with_kwargs=True)
    monkeypatch.setattr("vlm_recipes.eval.generation.generate.refuse_other_answers", lambda *tried, **how: None)
    evaluation.answer(network, rows)
    sizes = rows["image_sizes"] if "image_sizes" in rows.column_names else [[0]] * len(rows)
    pictures = dict(zip(rows["image_id"], sizes, strict=True))  # a chat may be about several, or none
    shown = sum(map(len, pictures.values()))
    assert seen == dict.fromkeys(TOWERS[name], shown)

    for processes in (1, 2):
        batches = batches_by_image(rows, (), evaluation.batch_size, processes, evaluation.collator.share_images)
        spread = Counter(image for batch in batches for image in {rows["image_id"][i] for i in batch})
        assert set(spread.values()) == {1} and max(map(len, batches)) == max(images.values()) <= QUESTIONS
