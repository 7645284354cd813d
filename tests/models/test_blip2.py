"""BLIP-2 looks at an image once for all its questions; transformers' own looks again each time, and is the oracle."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoProcessor
from transformers.utils import find_labels
from trl import ModelConfig

from recipes import vqa_rad
from tests.support import tiny
from vlm_recipes.collators import Seq2SeqCollator
from vlm_recipes.models.blip2 import Blip2ForConditionalGeneration
from vlm_recipes.models.checkpoints import load_checkpoint
from vlm_recipes.rows.grouping import group_by_image


def rows() -> list[dict]:
    """Seven questions about three images: four, two, and one without `image_id`; prompts and answers differ."""
    asked = [("red", 0), ("red", 1), ("blue", 2), ("red", 3), ("blue", 4), ("red", 5), (None, 6)]
    return [
        {
            "id": str(i),
            "image_id": colour,
            "image": Image.new("RGB", (56, 40), colour or "lime"),
            "prompt": f"Question: {'What colour do you see? ' * (1 + i % 3)}Answer:",
            "answer": ("red", "it is green", "white")[i % 3],
        }
        for colour, i in asked
    ]


@pytest.fixture
def both(request):
    """Ours and transformers' own with the same weights, and the processor."""
    folder = getattr(request, "param", tiny.blip2)()
    ours = Blip2ForConditionalGeneration.from_pretrained(folder)
    return (
        ours,
        transformers.Blip2ForConditionalGeneration.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )


def gradients(model: torch.nn.Module, batch: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_loss_and_gradient_are_those_of_looking_again_for_each_question(both):
    ours, stock, processor = both
    shared, plain = Seq2SeqCollator(processor, share_images=True)(rows()), Seq2SeqCollator(processor)(rows())
    assert len(shared["pixel_values"]) == 3 and len(plain["pixel_values"]) == 7
    assert shared["image_index"].tolist() == [0, 0, 1, 0, 1, 0, 2] and "image_index" not in plain
    assert torch.equal(shared["pixel_values"][shared["image_index"]], plain["pixel_values"])
    torch.testing.assert_close(ours(**shared).loss, stock(**plain).loss, rtol=1e-6, atol=0)
    expected = gradients(stock, plain)
    found = gradients(ours, shared)
    assert found.keys() == expected.keys() and any("vision_model" in name for name in found)
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    assert difference < 1e-5 * torch.cat([gradient.flatten() for gradient in expected.values()]).norm()


def test_a_row_with_its_queries_is_the_same_batch_as_rows_apart(both):
    _, _, processor = both
    red = [row for row in rows() if row["image_id"] == "red"]
    together = {"id": "red", "image_id": "red", "image": red[0]["image"]}
    together["queries"] = [{key: row[key] for key in ("id", "prompt", "answer")} for row in red]
    collator = Seq2SeqCollator(processor, share_images=True)
    one, several = collator([together]), collator(red)
    assert one.keys() == several.keys() and all(torch.equal(one[key], several[key]) for key in one)


def test_a_frozen_tower_sees_each_image_once_and_keeps_no_graph(both):
    ours, _, processor = both
    network = get_peft_model(ours, LoraConfig(target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM"))
    seen = []
    ours.vision_model.register_forward_hook(lambda module, inputs, output: seen.append(output.last_hidden_state))
    ours.language_projection.register_forward_hook(lambda module, inputs, output: seen.append(output))
    loss = network(**Seq2SeqCollator(processor, share_images=True)(rows())).loss
    assert [(len(output), output.requires_grad) for output in seen] == [(3, False), (3, False)]
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters() if weight.requires_grad)


@pytest.mark.parametrize("both", [tiny.blip2, tiny.trained_blip2], indirect=True)
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_answers_are_those_of_looking_again_for_each_question(both, settings):
    ours, stock, processor = both
    looks = []
    ours.vision_model.register_forward_hook(lambda module, inputs, output: looks.append(len(output[0])))
    settings = {"max_new_tokens": 10, "do_sample": False, **settings}
    shared = Seq2SeqCollator(processor, prompt_only=True, share_images=True)(rows())
    plain = Seq2SeqCollator(processor, prompt_only=True)(rows())
    assert torch.equal(ours.eval().generate(**shared, **settings), stock.eval().generate(**plain, **settings))
    assert looks == [3]
    assert torch.equal(ours.generate(**plain, **settings), stock.generate(**plain, **settings))


def test_eight_bits_and_lora_train_with_shared_images():
    model = vqa_rad.Model(model_name_or_path=str(tiny.blip2()), dtype="float32")
    network, processor = vqa_rad.load(vqa_rad.Data(), model, output_dir="out")
    loss = network(**Seq2SeqCollator(processor, share_images=True)(rows())).loss
    loss.backward()
    assert loss.isfinite() and all(
        weight.grad is not None and weight.grad.isfinite().all()
        for weight in network.parameters()
        if weight.requires_grad
    )


def test_what_is_saved_names_transformers_own_class(tmp_path):
    model = ModelConfig(str(tiny.blip2()), dtype="float32")
    network, _ = load_checkpoint(model, model_class=Blip2ForConditionalGeneration)
    network.save_pretrained(tmp_path)
    assert network.config.architectures == ["Blip2ForConditionalGeneration"]
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(again) is transformers.Blip2ForConditionalGeneration
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in network.state_dict().items())


@pytest.mark.parametrize(
    "batch, accumulation, rows, expected",
    [
        (4, 16, 60, (4, 16)),
        (64, 1, 5, (5, 1)),
        (4, 16, 5, (1, 5)),
        (1, 8, 15, (1, 2)),
        (2, 10, 30, (1, 10)),
        (1, 1, 4, (1, 1)),
    ],
)
def test_batches_given_in_questions_become_about_as_many_questions_in_rows(batch, accumulation, rows, expected):
    """60 questions in so many rows."""
    settings = vqa_rad.Training(use_cpu=True)
    settings.per_device_train_batch_size, settings.gradient_accumulation_steps = batch, accumulation
    changed = settings.in_rows(60, rows)
    assert (changed.per_device_train_batch_size, changed.gradient_accumulation_steps) == expected
    assert (settings.per_device_train_batch_size, settings.gradient_accumulation_steps) == (batch, accumulation)


def test_group_by_image_makes_rows_for_blip2(both):
    from datasets import Dataset, Features, Value
    from datasets import Image as Images

    ours, _, processor = both
    features = Features(
        {"image": Images(), **{key: Value("string") for key in ("id", "image_id", "prompt", "answer")}}
    )
    dataset = Dataset.from_list(rows(), features=features)
    grouped = group_by_image(dataset, max_conversations=3)
    assert sorted(len(row["queries"]) for row in grouped) == [1, 2, 2, 2]
    collator = Seq2SeqCollator(processor, share_images=True)
    torch.testing.assert_close(ours(**collator(list(grouped))).loss, ours(**collator(list(dataset))).loss)


def test_an_evaluation_has_a_loss():
    """The Trainer takes one of a model whose `forward` names its labels."""
    assert find_labels(Blip2ForConditionalGeneration) == ["labels"]
