import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from vlm_recipes.collators import Seq2SeqCollator

IGNORE = -100


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def row(prompt: str = "What is shown in this picture?", answer: str = "a bowl", **more) -> dict:
    return {"id": "r1", "image": picture(), "prompt": prompt, "answer": answer, **more}


ROWS = [
    row(),
    row("Given <img>. Q: yes or no?\nA:", "yes", image=picture(64, 64, seed=1)),
    row("a", "a bowl of muesli with a helpful assistant", image=picture(90, 20, seed=2)),
]


def plainly(processor, row: dict) -> dict[str, torch.Tensor]:
    """One row, as Blip2Processor is used in the examples of transformers."""
    inputs = processor(images=row["image"].convert("RGB"), text=row["prompt"], return_tensors="pt")
    answer = processor.tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
    return inputs | {"labels": torch.tensor([[*answer, processor.tokenizer.eos_token_id]])}


def test_each_row_is_what_the_processor_makes_of_it_alone(blip2):
    processor = blip2.processor
    batch = Seq2SeqCollator(processor)(ROWS)
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values", "labels"}
    for i, row in enumerate(ROWS):
        alone = plainly(processor, row)
        length, target = alone["input_ids"].shape[1], alone["labels"].shape[1]
        assert torch.equal(batch["input_ids"][i, :length], alone["input_ids"][0])
        assert (batch["input_ids"][i, length:] == processor.tokenizer.pad_token_id).all()
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (batch["attention_mask"].shape[1] - length)
        assert torch.equal(batch["pixel_values"][i], alone["pixel_values"][0])
        assert torch.equal(batch["labels"][i, :target], alone["labels"][0])
        assert (batch["labels"][i, target:] == IGNORE).all()
    assert batch["labels"].shape[1] == max(plainly(processor, row)["labels"].shape[1] for row in ROWS)


def test_image_tokens_come_first(blip2):
    image = blip2.processor.tokenizer.convert_tokens_to_ids("<image>")
    ids = Seq2SeqCollator(blip2.processor)(ROWS)["input_ids"]
    assert (ids[:, :4] == image).all() and not (ids[:, 4:] == image).any()  # the fixture has four queries


def test_an_answer_ends_with_one_end_of_sequence(blip2):
    tokenizer = blip2.processor.tokenizer
    labels = Seq2SeqCollator(blip2.processor)(ROWS)["labels"]
    for row, ids in zip(ROWS, labels, strict=True):
        assert tokenizer.decode(ids[ids != IGNORE]) == f"{row['answer']}</s>"


def test_padding_changes_neither_the_loss_nor_the_answers(blip2):
    model, collator = blip2.new_model().eval(), Seq2SeqCollator(blip2.processor)
    n_tokens = torch.tensor([(collator([row])["labels"] != IGNORE).sum() for row in ROWS])
    with torch.no_grad():
        alone = torch.stack([model(**collator([row])).loss for row in ROWS])
        together = model(**collator(ROWS)).loss
    torch.testing.assert_close(together, (alone * n_tokens).sum() / n_tokens.sum())

    ask = Seq2SeqCollator(blip2.processor, prompt_only=True)
    length = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    answers = torch.cat([model.generate(**ask([row]), **length) for row in ROWS])
    assert torch.equal(model.generate(**ask(ROWS), **length), answers)


def test_the_gradient_reaches_the_vision_tower(blip2):
    model = blip2.new_model()
    model(**Seq2SeqCollator(blip2.processor)(ROWS)).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.vision_model.parameters())


def test_prompt_only_differs_in_the_labels_alone(blip2):
    prompts, batch = (Seq2SeqCollator(blip2.processor, prompt_only=only)(ROWS) for only in (True, False))
    assert set(batch) - set(prompts) == {"labels"}
    assert all(torch.equal(prompts[key], batch[key]) for key in prompts)


def test_prompt_only_needs_no_answer(blip2):
    question = {key: value for key, value in row().items() if key != "answer"}
    assert "input_ids" in Seq2SeqCollator(blip2.processor, prompt_only=True)([question])


def test_the_image_transform_sees_the_upright_rgb_image(blip2, tmp_path):
    seen = []

    def fit(image: Image.Image) -> Image.Image:
        seen.append((image.mode, image.size))
        return ImageOps.pad(image, (32, 32), color="black")

    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    picture(40, 20).convert("CMYK").save(tmp_path / "a.jpg", exif=exif)
    images = [Image.open(tmp_path / "a.jpg"), str(tmp_path / "a.jpg"), picture(40, 20).convert("L")]
    batch = Seq2SeqCollator(blip2.processor, image_transform=fit)([row(image=image) for image in images])
    assert seen == [("RGB", (20, 40)), ("RGB", (20, 40)), ("RGB", (40, 20))]
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).convert("RGB")
    expected = blip2.processor.image_processor(fit(upright), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(batch["pixel_values"][0], expected) and torch.equal(batch["pixel_values"][1], expected)


@pytest.mark.parametrize("answer", ["", "  \n", None])
def test_rows_without_an_answer_are_named(blip2, answer):
    with pytest.raises(ValueError, match="rows without an answer: .*r7"):
        Seq2SeqCollator(blip2.processor)([row(), row(answer=answer, id="r7")])


def test_an_image_is_read_from_a_path_and_never_from_a_url(blip2, tmp_path):
    picture().save(tmp_path / "a.png")
    batch, expected = (Seq2SeqCollator(blip2.processor)([row(image=i)]) for i in (tmp_path / "a.png", picture()))
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    with pytest.raises(ValueError, match="^row 'r1': No such file: 'https://example.org/a.png' is a URL"):
        Seq2SeqCollator(blip2.processor)([row(image="https://example.org/a.png")])


def test_a_text_that_spells_the_image_token_takes_no_image(blip2):
    image = blip2.processor.tokenizer.convert_tokens_to_ids("<image>")
    batch = Seq2SeqCollator(blip2.processor)([row("<image> or <image>?", "an <image>"), row()])
    assert (batch["input_ids"] == image).sum(1).tolist() == [4, 4]
    assert not (batch["labels"] == image).any()
    assert torch.isfinite(blip2.new_model()(**batch).loss)


printable = st.text(st.characters(codec="latin-1", exclude_categories=["Cc", "Zs"]), max_size=5)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(printable).map(" ".join), printable.filter(bool)), min_size=1, max_size=4))
@example([("<pad> </s>", "</s>"), ("what is shown?", "<pad>")])
def test_any_text_is_padded_around_and_ends_once(blip2, pairs):
    batch = Seq2SeqCollator(blip2.processor)([row(prompt, answer) for prompt, answer in pairs])
    tokenizer = blip2.processor.tokenizer
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        assert torch.equal(mask, (ids != tokenizer.pad_token_id).long())
        trained = labels[labels != IGNORE]
        assert (trained == tokenizer.eos_token_id).nonzero().tolist() == [[len(trained) - 1]] and len(trained) > 1
        assert (labels[len(trained) :] == IGNORE).all()


def test_the_callers_rows_stay_as_they_were(blip2):
    rows = [row("<image>", "<image>"), *ROWS]
    before = copy.deepcopy(rows)
    Seq2SeqCollator(blip2.processor, image_transform=lambda image: image.resize((8, 8)))(rows)
    assert rows == before


def test_it_works_in_workers_and_pickled(blip2):
    collator = Seq2SeqCollator(blip2.processor, image_transform=ImageOps.mirror)
    expected = collator(ROWS)
    (batch,) = DataLoader(ROWS, batch_size=3, collate_fn=collator, num_workers=1)
    for other in (batch, pickle.loads(pickle.dumps(collator))(ROWS)):
        assert all(torch.equal(other[key], expected[key]) for key in expected)
