"""One batch for LISA: tokens as the chat collator gives them, each image once, the masks of each answer."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from trl import ModelConfig

from demo.checkpoints.llava import write_llava
from demo.checkpoints.sam import write_sam
from vlm_recipes.collators import ChatCollator, SegmentationCollator, images
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.models.lisa.loading import LisaProcessor, load_lisa
from vlm_recipes.rows.opened import open_image

IGNORE = -100
IMAGE = {"type": "image"}
TEXTS = ["USER: Where is the bowl of muesli? Please output segmentation mask. ASSISTANT: Sure, it is [SEG].\n"]
TEXT_KEYS = ("input_ids", "attention_mask", "labels")
SAM_SIDE = 64  # pixels of the longer side as SAM sees an image


@pytest.fixture(scope="session")
def processor(tmp_path_factory) -> LisaProcessor:
    llava, sam = tmp_path_factory.mktemp("llava"), tmp_path_factory.mktemp("sam")
    write_llava(llava, TEXTS, hidden_size=32, layers=1, image_size=28)
    write_sam(sam, image_size=SAM_SIDE, hidden_size=32, prompt_size=32, layers=1)
    return load_lisa(ModelConfig(str(llava), dtype="float32"), str(sam))[1]


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels_of(width: int = 60, height: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, 1]).random((height, width)) > 0.5


def text(content: str) -> dict:
    return {"type": "text", "text": content}


def turn(role: str, *content) -> dict:
    return {"role": role, "content": [text(part) if isinstance(part, str) else part for part in content]}


def row(question="Where is it?", answer="Sure, it is [SEG].", size=(60, 40), seed=0, **more) -> dict:
    masks = [encode(pixels_of(*size, seed=seed + i)) for i in range(answer.count("[SEG]"))]
    asked = {"messages": [turn("user", IMAGE, question), turn("assistant", answer)], "masks": masks, "ignore": None}
    return {"id": f"r{seed}", "image": picture(*size, seed=seed), **asked, **more}


def for_chat(rows: list[dict]) -> list[dict]:
    """The same rows as the chat collator takes them."""
    return [{"id": row["id"], "images": [row["image"]], "messages": row["messages"]} for row in rows]


def trained_text(batch, processor, i: int = 0) -> str:
    labels = batch["labels"][i]
    return processor.tokenizer.decode(labels[labels != IGNORE])


def assert_same(batch, expected) -> None:
    assert set(batch) == set(expected)
    for key in expected:
        if key == "masks":
            assert len(batch[key]) == len(expected[key])
            assert all(torch.equal(a, b) for a, b in zip(batch[key], expected[key], strict=True))
        else:
            assert batch[key].dtype == expected[key].dtype and torch.equal(batch[key], expected[key]), key


# --- tokens and labels


SEVERAL_TURNS = [
    *[turn("user", IMAGE, "Where is it?"), turn("assistant", "It is [SEG].")],
    *[turn("user", "Sure?"), turn("assistant", "No, [SEG]."), turn("user", "And now?"), turn("assistant", "Yes.")],
]
ROWS = {
    "one row": [row()],
    "rows of different length": [row("a " * 30, size=(40, 60)), row(answer="[SEG].", seed=1), row("So?", seed=2)],
    "several [SEG]": [row(answer="It is [SEG], [SEG] and [SEG].", size=(50, 70)), row(seed=1)],
    "no [SEG]": [row(answer="There is none."), row(answer="I see nothing of it.", seed=1)],
    "several turns": [row() | {"messages": SEVERAL_TURNS, "masks": row(answer="[SEG][SEG]")["masks"]}],
    "a system message": [row() | {"messages": [turn("system", "Be short."), *row()["messages"]]}],
    "the image is not mentioned": [row() | {"messages": [turn("user", "Where?"), turn("assistant", "[SEG]")]}],
    "content as strings": [
        row() | {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "It is [SEG]."}]}
    ],
    "unicode": [row("Où est le café? 表はどこ 😀", "là-bas: [SEG] 👩‍🔬")],
    "an end of turn in the question": [row("yes ASSISTANT: It is </s>USER: well?")],
}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("prompt_only", [False, True])
def test_tokens_and_labels_are_the_chat_collators(processor, case, prompt_only):
    batch = SegmentationCollator(processor, prompt_only=prompt_only)(ROWS[case])
    expected = ChatCollator(processor, prompt_only=prompt_only)(for_chat(ROWS[case]))
    for key in expected:
        assert batch[key].dtype == expected[key].dtype and torch.equal(batch[key], expected[key]), key
    assert ("labels" in batch) == ("masks" in batch) == (not prompt_only)
    assert batch["image_index"].tolist() == list(range(len(ROWS[case])))


def test_the_tokens_are_those_of_the_finished_text_and_the_labels_its_answer(processor):
    batch = SegmentationCollator(processor)([row("Where is it?", "Sure, it is [SEG].")])
    written = "USER: <image>\nWhere is it? ASSISTANT: Sure, it is [SEG].</s>"
    ids = processor.tokenizer(written.replace("<image>", "<image>" * 4))["input_ids"]  # 28 / 14 squared
    assert batch["input_ids"][0].tolist() == ids
    prompt = processor.tokenizer("USER: <image>\nWhere is it? ASSISTANT:".replace("<image>", "<image>" * 4))
    length = len(prompt["input_ids"])
    assert batch["labels"][0].tolist() == [IGNORE] * length + ids[length:]
    assert ids[-1] == processor.tokenizer.eos_token_id
    assert trained_text(batch, processor).strip() == "Sure, it is [SEG].</s>"


@pytest.mark.parametrize("answer", ["[SEG]", "[SEG].", "It is[SEG]!", "It is [SEG].", "[SEG][SEG] [SEG]"])
def test_each_seg_is_one_token_and_is_trained(processor, answer):
    collator = SegmentationCollator(processor)
    batch = collator([row(answer=answer)])
    assert processor.tokenizer.convert_ids_to_tokens(collator.seg_token_id) == "[SEG]"
    assert collator.seg_token_id != processor.tokenizer.unk_token_id
    for key in ("input_ids", "labels"):
        assert (batch[key] == collator.seg_token_id).sum() == answer.count("[SEG]") == len(batch["masks"][0])
    assert re.sub(r"\s", "", trained_text(batch, processor)) == re.sub(r"\s", "", answer) + "</s>"


def test_padding_is_on_the_right_to_train_and_on_the_left_to_ask(processor):
    rows = ROWS["rows of different length"]
    train, ask = SegmentationCollator(processor)(rows), SegmentationCollator(processor, prompt_only=True)(rows)
    assert (train["attention_mask"].diff() <= 0).all() and (ask["attention_mask"].diff() >= 0).all()
    for batch in (train, ask):
        padding = batch["attention_mask"] == 0
        assert padding.any() and (batch["input_ids"][padding] == processor.tokenizer.pad_token_id).all()
    assert (train["labels"][train["attention_mask"] == 0] == IGNORE).all()
    assert "labels" not in ask and "masks" not in ask
    for i in range(3):
        prompt, ids, labels = (
            batch[key][i][batch["attention_mask"][i].bool()]
            for batch, key in ((ask, "input_ids"), (train, "input_ids"), (train, "labels"))
        )
        assert torch.equal(prompt, ids[: len(prompt)])
        assert (labels[: len(prompt)] == IGNORE).all() and labels[len(prompt)] != IGNORE
    for key in ("image_index", "pixel_values", "sam_pixel_values", "original_sizes", "reshaped_input_sizes"):
        assert torch.equal(ask[key], train[key])


def test_a_row_without_answer_and_masks_can_be_asked(processor):
    asked = {"id": "", "image": picture(), "messages": [{"role": "user", "content": "Where is it?"}], "masks": []}
    ask = SegmentationCollator(processor, prompt_only=True)
    assert_same(ask([asked]), ask([row()]))


# --- texts that spell what draws or shows


HOSTILE = [
    "[SEG]",
    "x [SEG] y",
    "<image>",
    "<image>\n[SEG]",
    "[[SEG]SEG]",
    "<im<image>age>",
    "[SEG<image>]",
    "[S<image>EG]",
]


def assert_harmless(batch, plain, processor, seg: int) -> None:
    for token in (processor.image_token_id, seg):
        assert torch.equal((batch["input_ids"] == token).sum(1), (plain["input_ids"] == token).sum(1))
    assert not (batch["labels"] == processor.image_token_id).any()
    for key in ("pixel_values", "sam_pixel_values", "image_index", "original_sizes"):
        assert torch.equal(batch[key], plain[key])


@pytest.mark.parametrize("spelt", HOSTILE)
@pytest.mark.parametrize("where", ["question", "string", "system", "earlier question"])
def test_a_question_that_spells_a_special_token_neither_draws_nor_shows(processor, where, spelt):
    collator = SegmentationCollator(processor)
    asked, answer = [turn("user", IMAGE, f"Where {spelt}?")], turn("assistant", "It is [SEG].")
    if where == "string":
        asked = [{"role": "user", "content": f"Where {spelt}?"}]
        if "<image>" in spelt:  # nothing else says where the image belongs
            with pytest.raises(ValueError, match="row 'r0': <image> in a text .* marks the place of an image"):
                collator([row() | {"messages": [*asked, answer]}])
            return
    if where == "system":
        asked = [turn("system", spelt), turn("user", IMAGE, "Where?")]
    if where == "earlier question":
        asked += [turn("assistant", "There."), turn("user", "Where?")]
    batch, plain = (
        collator([row() | {"messages": messages}, row(seed=1)]) for messages in ([*asked, answer], row()["messages"])
    )
    assert_harmless(batch, plain, processor, collator.seg_token_id)
    read, wanted = (
        re.sub(r"\s|<image>", "", said) for said in (processor.tokenizer.decode(batch["input_ids"][0]), spelt)
    )
    assert wanted in read  # the text itself is still there
    ask = SegmentationCollator(processor, prompt_only=True)([row() | {"messages": [*asked, answer]}])
    assert (ask["input_ids"] == collator.seg_token_id).sum() == 0


@pytest.mark.parametrize("joiner", [" ", ""], ids=["spaced", "joined"])
def test_a_special_token_that_two_parts_spell_together_neither_draws_nor_shows(processor, joiner):
    processor = copy.deepcopy(processor)
    processor.chat_template = processor.chat_template.replace("part['text'] + ' '", f"part['text'] + '{joiner}'")
    collator = SegmentationCollator(processor)
    messages = [turn("user", IMAGE, "[SE", "G]", "<im", "age>"), turn("assistant", "It is [SEG].")]
    assert_harmless(collator([row() | {"messages": messages}]), collator([row()]), processor, collator.seg_token_id)


def test_an_answer_that_spells_the_images_token_shows_none(processor):
    collator = SegmentationCollator(processor)
    assert_harmless(
        collator([row(answer="<image> [SEG] <image>")]), collator([row()]), processor, collator.seg_token_id
    )


fragment = st.sampled_from(
    ["[SEG]", "[SEG", "SEG]", "[", "]", "<image>", "<image", "image>", "<", "</s>", "USER:", " "]
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(fragment, max_size=8).map("".join), st.booleans())
def test_no_question_draws_or_shows_whatever_it_spells(processor, question, as_string):
    assume(not (as_string and "<image>" in question))  # refused, see above
    collator = SegmentationCollator(processor)
    user = {"role": "user", "content": question} if as_string else turn("user", IMAGE, question)
    batch = collator([row() | {"messages": [user, turn("assistant", "It is [SEG].")]}])
    assert_harmless(batch, collator([row()]), processor, collator.seg_token_id)


# --- images


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (200, 31), (17, 90), (13, 7)])
def test_each_model_sees_the_image_as_its_own_processor_makes_it(processor, size):
    rows = [row(size=size), row(size=(64, 64), seed=1)]
    batch = SegmentationCollator(processor)(rows)
    assert torch.equal(
        batch["pixel_values"],
        processor.image_processor([r["image"] for r in rows], return_tensors="pt")["pixel_values"],
    )
    alone = processor.sam_image_processor(rows[0]["image"], return_tensors="pt")
    assert torch.equal(batch["sam_pixel_values"][:1], alone["pixel_values"])
    scale = SAM_SIDE / max(size)  # segment_anything's ResizeLongestSide
    height, width = (int(side * scale + 0.5) for side in size[::-1])
    assert batch["original_sizes"].tolist() == [list(size[::-1]), [64, 64]]
    assert batch["reshaped_input_sizes"].tolist() == [[height, width], [64, 64]]
    seen = batch["sam_pixel_values"][0]
    assert seen.shape == (3, SAM_SIDE, SAM_SIDE)
    assert (seen[:, height:] == 0).all() and (seen[:, :, width:] == 0).all()  # padded at the bottom and the right
    assert batch["masks"][0].shape == (1, *size[::-1])


def test_an_image_of_sams_own_size_is_only_normalised(processor):
    image = picture(SAM_SIDE, SAM_SIDE)
    seen = SegmentationCollator(processor)([row(size=(SAM_SIDE, SAM_SIDE))])["sam_pixel_values"][0]
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # segment_anything's
    expected = (np.array(image) - mean) / std
    assert np.allclose(seen.permute(1, 2, 0).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["exif", "L", "RGBA", "P"])
def test_a_file_of_any_kind_is_its_upright_rgb_image_with_a_mask_of_that_size(processor, kind, tmp_path):
    exif = Image.Exif()
    if kind == "exif":
        exif[0x0112] = 6  # to be shown turned by 90 degrees
    path = tmp_path / ("a.jpg" if kind == "exif" else "a.png")
    picture(60, 40).convert("RGB" if kind == "exif" else kind).save(path, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert upright.size == ((40, 60) if kind == "exif" else (60, 40))
    expected = row(size=upright.size) | {"image": upright}
    for image in (str(path), Image.open(path)):
        batch = SegmentationCollator(processor)([expected | {"image": image}])
        assert_same(batch, SegmentationCollator(processor)([expected]))
        assert batch["original_sizes"].tolist() == [list(upright.size[::-1])]


def test_an_image_may_be_the_only_one_in_a_list(processor):
    listed = {key: value for key, value in row().items() if key != "image"} | {"images": [row()["image"]]}
    assert_same(SegmentationCollator(processor)([listed]), SegmentationCollator(processor)([row()]))


# --- one image, several queries


SHARED = [row("Where is it?"), row("And the spoon?", "[SEG] and [SEG]."), row("The milk?", "There is none.")]
SHARED = [query | {"id": f"q{i}", "image": picture(), "image_id": "a"} for i, query in enumerate(SHARED)]
OTHER = row("Where is the table?", size=(30, 50), seed=5, image_id="b")


@pytest.mark.parametrize("prompt_only", [False, True])
def test_rows_with_the_same_image_id_share_one_image_and_are_otherwise_the_same(processor, prompt_only):
    collator = SegmentationCollator(processor, prompt_only=prompt_only)
    rows = [SHARED[0], OTHER, *SHARED[1:]]
    batch, apart = collator(rows), collator([row | {"image_id": f"{i}"} for i, row in enumerate(rows)])
    assert batch["image_index"].tolist() == [0, 1, 0, 0]
    assert apart["image_index"].tolist() == [0, 1, 2, 3]
    assert len(batch["pixel_values"]) == len(batch["sam_pixel_values"]) == len(batch["original_sizes"]) == 2
    of_images = ("pixel_values", "sam_pixel_values", "original_sizes", "reshaped_input_sizes")
    spread = {key: batch[key][batch["image_index"]] if key in of_images else batch[key] for key in batch}
    assert_same(spread | {"image_index": apart["image_index"]}, apart)


@pytest.mark.parametrize("prompt_only", [False, True])
def test_an_image_with_all_its_queries_gives_the_batch_of_its_rows(processor, prompt_only):
    collator = SegmentationCollator(processor, prompt_only=prompt_only)
    asked = [{key: query[key] for key in ("id", "messages", "masks", "ignore")} for query in SHARED]
    grouped = {"id": "all", "image": picture(), "image_id": "a", "queries": asked}
    assert_same(collator([grouped]), collator(SHARED))
    assert_same(collator([OTHER, grouped]), collator([OTHER, *SHARED]))
    assert_same(collator([grouped, OTHER]), collator([*SHARED, OTHER]))


def test_rows_without_an_image_id_share_nothing(processor):
    rows = [{key: value for key, value in query.items() if key != "image_id"} for query in SHARED]
    assert SegmentationCollator(processor)(rows)["image_index"].tolist() == [0, 1, 2]
    unnamed = [query | {"image_id": None} for query in SHARED]
    assert SegmentationCollator(processor)(unnamed)["image_index"].tolist() == [0, 1, 2]


def test_a_shared_image_is_opened_once(processor, monkeypatch):
    opened = []
    monkeypatch.setattr(images, "open_image", lambda *image: opened.append(image) or open_image(*image))
    SegmentationCollator(processor)(SHARED)
    assert len(opened) == 1


# --- masks


def test_masks_keep_their_own_size_number_and_pixels(processor):
    rows = [row(size=(60, 40)), row(answer="[SEG] and [SEG].", size=(30, 70), seed=4), row(answer="None.", seed=9)]
    masks = SegmentationCollator(processor)(rows)["masks"]
    assert [tuple(mask.shape) for mask in masks] == [(1, 40, 60), (2, 70, 30), (0, 40, 60)]
    assert all(mask.dtype == torch.uint8 for mask in masks)
    assert np.array_equal(masks[0][0], pixels_of(60, 40))
    assert np.array_equal(masks[1], np.stack([pixels_of(30, 70, seed=4), pixels_of(30, 70, seed=5)]))


def test_what_does_not_count_is_255_in_every_mask_of_the_answer(processor):
    ignored = pixels_of(seed=8)
    (masks,) = SegmentationCollator(processor)([row(answer="[SEG] and [SEG].", ignore=encode(ignored))])["masks"]
    for i in range(2):
        assert np.array_equal(masks[i], np.where(ignored, 255, pixels_of(seed=i)))


@pytest.mark.parametrize("fill", [0, 1])
def test_masks_and_ignored_pixels_may_be_empty_or_everything(processor, fill):
    whole = np.full((40, 60), fill)
    (mask,) = SegmentationCollator(processor)([row(masks=[encode(whole)], ignore=encode(0 * whole))])["masks"]
    assert (mask == fill).all()
    (mask,) = SegmentationCollator(processor)([row(masks=[encode(whole)], ignore=encode(0 * whole + 1))])["masks"]
    assert (mask == 255).all()


# --- through Arrow and to the workers


def stored(rows: list[dict], tmp_path) -> Dataset:
    """Rows as a dataset gives them back: one type per column, the union of keys in each part, images as paths."""
    for i, asked in enumerate(rows):
        asked["image"].save(tmp_path / f"{i}.png")
    return Dataset.from_list([asked | {"image": str(tmp_path / f"{i}.png")} for i, asked in enumerate(rows)])


def test_rows_survive_a_dataset_and_its_union_of_keys(processor, tmp_path):
    named = {"type": "image", "image": "a.png"}
    rows = [
        row("Where is [SEG]?", ignore=encode(pixels_of(seed=3))),
        row(answer="None.", seed=1),
        row() | {"id": "named", "messages": [turn("user", named, "Where?"), turn("assistant", "It is [SEG].")]},
    ]
    given = stored(rows, tmp_path)
    assert given[0]["messages"][0]["content"][1] == {"type": "text", "text": "Where is [SEG]?", "image": None}
    assert given[1]["masks"] == [] and given[1]["ignore"] is None
    for prompt_only in (False, True):
        collator = SegmentationCollator(processor, prompt_only=prompt_only)
        assert_same(collator(list(given)), collator(rows))


def test_messages_as_strings_survive_a_dataset(processor, tmp_path):
    rows = [
        row(seed=i) | {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "It is [SEG]."}]}
        for i, q in enumerate(("Where is it?", "And [SEG]?"))
    ]
    parts = [
        asked | {"messages": [turn(message["role"], message["content"]) for message in asked["messages"]]}
        for asked in rows
    ]
    collator = SegmentationCollator(processor)
    assert_same(collator(list(stored(rows, tmp_path))), collator(rows))
    assert_same(collator(rows), collator(parts))


def test_an_image_with_its_queries_survives_a_dataset(processor, tmp_path):
    asked = [{key: query[key] for key in ("id", "messages", "masks", "ignore")} for query in SHARED]
    asked[1]["ignore"] = encode(pixels_of(seed=3))
    grouped = {"id": "all", "image": picture(), "image_id": "a", "queries": asked}
    collator = SegmentationCollator(processor)
    assert_same(collator(list(stored([grouped], tmp_path))), collator([grouped]))


def test_the_callers_rows_stay_as_they_were(processor):
    rows = [*SHARED, *ROWS["content as strings"], row("Where is [SEG] <image>?")]
    before = copy.deepcopy(rows)
    for prompt_only in (False, True):
        SegmentationCollator(processor, prompt_only=prompt_only)(rows)
    assert rows == before


def test_a_pickled_collator_makes_the_same_batch(processor):
    collator = SegmentationCollator(processor)
    assert_same(pickle.loads(pickle.dumps(collator))(SHARED), collator(SHARED))


# --- errors


@pytest.mark.parametrize(
    ("answer", "said", "n_masks"), [("It is here.", 0, 1), ("[SEG] [SEG]", 2, 1), ("[SEG]", 1, 0)]
)
@pytest.mark.parametrize("grouped", [False, True])
def test_another_number_of_seg_than_of_masks_names_the_row(processor, answer, said, n_masks, grouped):
    bad = row(answer=answer) | {"id": "r7", "masks": row()["masks"][:n_masks]}
    rows = [row(), bad, row(seed=1)]
    if grouped:
        rows = [{"id": "all", "image": picture(), "queries": [row(seed=1), bad, row(seed=2)]}]
    with pytest.raises(ValueError, match=rf"row 'r7': .*\[SEG\] {said} times.* {n_masks} masks"):
        SegmentationCollator(processor)(rows)


@pytest.mark.parametrize("field", ["masks", "ignore"])
def test_a_mask_of_another_size_than_its_image_names_the_row(processor, field):
    turned = encode(pixels_of(40, 60))  # width and height exchanged
    bad = row(id="r7") | {field: [turned] if field == "masks" else turned}
    with pytest.raises(
        ValueError, match=r"row 'r7': a mask of \[60, 40\] for an image of \[40, 60\] \(height, width\)"
    ):
        SegmentationCollator(processor)([row(), bad])


@pytest.mark.parametrize("content", [None, b"", b"no picture", "cut"], ids=["missing", "empty", "text", "cut"])
@pytest.mark.parametrize("prompt_only", [False, True])
def test_an_image_that_cannot_be_read_names_the_row(processor, tmp_path, content, prompt_only):
    path = tmp_path / "a.png"
    if content == "cut":
        picture().save(path)
        content = path.read_bytes()[:500]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="row 'r7': "):
        SegmentationCollator(processor, prompt_only=prompt_only)([row(), row(id="r7") | {"image": str(path)}])


@pytest.mark.parametrize(
    "messages", [[], [turn("assistant", "[SEG]")], [turn("user", IMAGE, IMAGE), turn("assistant", "[SEG]")]]
)
def test_messages_that_cannot_be_shown_name_the_row(processor, messages):
    with pytest.raises(ValueError, match="row 'r7': "):
        SegmentationCollator(processor)([row(), row(id="r7") | {"messages": messages}])


def test_a_content_of_unknown_type_names_the_row(processor):
    bad = row(id="r7") | {"messages": [turn("user", IMAGE, {"type": "video"}), turn("assistant", "[SEG]")]}
    with pytest.raises(ValueError, match="row 'r7': .*'video'"):
        SegmentationCollator(processor)([bad])
