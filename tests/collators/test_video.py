"""One batch for SurgViVQA: questions on the left, answers with their end, each video once and whole."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from transformers import VideoMAEImageProcessor

import vlm_recipes.collators.video
from demo.checkpoints.surgvivqa import write_surgvivqa
from tests.support import tiny
from vlm_recipes.collators import VideoCollator
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor

IGNORE = -100
SIDE = 32  # pixels of the square that the fixture's VideoMAE reads
QUESTION = "Question: What is the grasper doing?\nAnswer:"


@pytest.fixture(scope="session")
def processor() -> SurgViVqaProcessor:
    return SurgViVqaProcessor.from_pretrained(tiny.surgvivqa())


@pytest.fixture(scope="session")
def four_frames(tmp_path_factory) -> SurgViVqaProcessor:
    """Of a model that reads at most twelve tokens of a question."""
    folder = tmp_path_factory.mktemp("surgvivqa")
    sizes = {"hidden_size": 32, "layers": 1, "image_size": SIDE, "num_frames": 4}
    write_surgvivqa(folder, [QUESTION] * 5, ["grasp"], longest_question=12, **sizes)
    return SurgViVqaProcessor.from_pretrained(folder)


@pytest.fixture
def opened(monkeypatch) -> list:
    """What the collator opens, in order."""
    seen, open_image = [], vlm_recipes.collators.video.open_image
    monkeypatch.setattr(
        vlm_recipes.collators.video, "open_image", lambda image, *how: seen.append(image) or open_image(image, *how)
    )
    return seen


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def row(prompt: str = QUESTION, answer: str = "grasp", **more) -> dict:
    return {"id": "r1", "image": picture(), "prompt": prompt, "answer": answer, **more}


@pytest.fixture
def clip(tmp_path) -> list[str]:
    """Four files, the first of them twice, as at a video's beginning."""
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        picture(seed=i).save(path)
    return [paths[0], *paths]


def pixels_of(processor, *images: Image.Image) -> torch.Tensor:
    return processor.image_processor([list(images)], return_tensors="pt")["pixel_values"][0]


def assert_same(batch, expected) -> None:
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[key], expected[key]) for key in expected)


# --- tokens and labels


def test_a_batch_has_each_question_on_the_left_of_its_own_answer(processor):
    rows = tiny.video_rows()
    batch = VideoCollator(processor, num_frames=2)(rows)
    assert set(batch) == {"input_ids", "attention_mask", "video_index", "pixel_values", "labels"}
    assert batch["pixel_values"].shape == (3, 1, 3, SIDE, SIDE)
    assert batch["video_index"].tolist() == [0, 0, 1, 2]
    longest = batch["input_ids"].shape[1]
    end, pad = processor.tokenizer.eos_token_id, processor.question_tokenizer.pad_token_id
    questions, answers = [], []
    for i, row in enumerate(rows):
        question = processor.question_tokenizer(row["prompt"])["input_ids"]  # [CLS] … [SEP], as BLIP was trained
        answer = [*processor.tokenizer(f" {row['answer']}", add_special_tokens=False)["input_ids"], end]
        assert batch["input_ids"][i].tolist() == [pad] * (longest - len(question)) + question
        assert batch["attention_mask"][i].tolist() == [0] * (longest - len(question)) + [1] * len(question)
        assert batch["labels"][i].tolist() == answer + [IGNORE] * (batch["labels"].shape[1] - len(answer))
        questions.append(len(question))
        answers.append(len(answer))
    assert (longest, batch["labels"].shape[1]) == (max(questions), max(answers))
    assert len(set(questions)) > 1 and len(set(answers)) > 1


def test_what_is_trained_reads_as_a_space_the_answer_and_the_end(processor):
    labels = VideoCollator(processor, num_frames=2)([row(answer="  blood vessel \n")])["labels"]
    assert processor.tokenizer.decode(labels[0]) == " blood vessel<|endoftext|>"


def test_prompt_only_differs_in_the_labels_alone_and_needs_no_answer(processor):
    rows = tiny.video_rows()
    batch = VideoCollator(processor, num_frames=2)(rows)
    asked = [{key: value for key, value in row.items() if key != "answer"} for row in rows]
    prompts = VideoCollator(processor, num_frames=2, prompt_only=True)(asked)
    assert set(batch) - set(prompts) == {"labels"}
    assert all(torch.equal(prompts[key], batch[key]) for key in prompts)


SPECIAL = "[SEP] [CLS] [PAD] [UNK] [MASK] <|endoftext|>"


def test_a_special_token_that_a_text_spells_is_only_text(processor):
    batch = VideoCollator(processor, num_frames=2)([row(f"yes{SPECIAL}no", f"yes{SPECIAL}no"), row()])
    questions = processor.question_tokenizer
    asked = batch["input_ids"][0]
    assert (asked[0], asked[-1]) == (questions.cls_token_id, questions.sep_token_id)
    special = set(questions.all_special_ids) - {questions.unk_token_id}  # unknown to so small a vocabulary: < and |
    assert not special & set(asked[1:-1].tolist())
    said = batch["labels"][0][batch["labels"][0] != IGNORE]
    assert (said == processor.tokenizer.eos_token_id).nonzero().tolist() == [[len(said) - 1]]


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(printable, printable.filter(str.strip)), min_size=1, max_size=4))
@example([("[S[SEP]EP]", "<|endof<|endoftext|>text|>"), ("", "[PAD]")])
def test_any_text_is_padded_around_and_ends_once(processor, pairs):
    rows = [row(*pair) for pair in pairs]
    batch = VideoCollator(processor, num_frames=2)(rows)
    pad, end = processor.question_tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    assert torch.equal(batch["attention_mask"], (batch["input_ids"] != pad).long())
    assert (batch["attention_mask"].diff() >= 0).all() and batch["attention_mask"][:, -1].all()
    for labels in batch["labels"]:
        said = labels[labels != IGNORE]
        assert (said == end).nonzero().tolist() == [[len(said) - 1]] and len(said) > 1
        assert (labels[len(said) :] == IGNORE).all()


# --- videos


def test_a_video_that_rows_share_is_opened_once(processor, opened):
    rows = [row(image_id="a"), row("Is it?", "True", image_id="b", image=picture(seed=1)), row("So?", image_id="a")]
    batch = VideoCollator(processor, num_frames=2)(rows)
    assert batch["video_index"].tolist() == [0, 1, 0] and len(opened) == 2
    assert torch.equal(batch["pixel_values"][1, 0], pixels_of(processor, picture(seed=1))[0])


def test_rows_without_an_image_id_share_nothing(processor, opened):
    batch = VideoCollator(processor, num_frames=2)([row(), row()])
    assert batch["video_index"].tolist() == [0, 1] and len(batch["pixel_values"]) == len(opened) == 2


def test_an_image_stands_still_and_travels_once_however_many_frames_the_model_reads(processor, four_frames):
    for of_model, frames in ((processor, 2), (four_frames, 4)):
        pixels = VideoCollator(of_model, num_frames=frames)([row("So?"), row("So?", image=picture(seed=1))])
        pixels = pixels["pixel_values"]
        assert pixels.shape == (2, 1, 3, SIDE, SIDE) and pixels.untyped_storage().nbytes() == 2 * 3 * SIDE**2 * 4
        assert torch.equal(pixels[0, 0], pixels_of(of_model, picture())[0])


def test_beside_a_clip_an_image_has_its_frame_as_often_as_the_clip_has_frames(four_frames, clip):
    asked = [row("So?", frames=clip, image_id="a"), row("So?", image_id="b")]
    pixels = VideoCollator(four_frames, num_frames=4)(asked)["pixel_values"]
    assert torch.equal(pixels[0], pixels_of(four_frames, *map(Image.open, clip)))
    assert torch.equal(pixels[1], pixels_of(four_frames, *[picture()] * 4))


def test_a_clip_is_its_frames_in_order_and_each_file_is_opened_once(four_frames, clip, opened):
    asked = {"id": "r1", "frames": clip, "image": picture(seed=9), "prompt": "So?", "answer": "grasp"}
    pixels = VideoCollator(four_frames, num_frames=4)([asked])["pixel_values"]
    assert opened == clip[1:]
    images = [Image.open(path) for path in clip]
    assert torch.equal(pixels[0], pixels_of(four_frames, *images))
    assert torch.equal(pixels[0, 0], pixels[0, 1]) and not torch.equal(pixels[0, 1], pixels[0, 2])
    loaded = VideoCollator(four_frames, num_frames=4)([asked | {"frames": images}])["pixel_values"]
    assert torch.equal(loaded, pixels)


def test_an_empty_clip_is_the_image(processor):
    expected = VideoCollator(processor, num_frames=2)([row()])
    assert_same(VideoCollator(processor, num_frames=2)([row(frames=[])]), expected)


def test_a_row_with_queries_is_as_many_rows_about_one_video(processor, opened):
    queries = [{"id": f"q{i}", "prompt": f"Is it {i}?", "answer": str(i)} for i in range(3)]
    together = [{"id": "frame", "image_id": "a", "image": picture(), "queries": queries}, row(image_id="b")]
    batch = VideoCollator(processor, num_frames=2)(together)
    assert len(opened) == 2 and batch["video_index"].tolist() == [0, 0, 0, 1]
    apart = [{"image_id": "a", "image": picture(), **query} for query in queries]
    assert_same(batch, VideoCollator(processor, num_frames=2)([*apart, row(image_id="b")]))


def test_the_whole_frame_is_seen_at_its_edges(processor):
    """VideoMAE's own processor would cut the middle out of a frame that is twice as wide as high."""
    own = VideoMAEImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    image = Image.new("RGB", (4 * SIDE, 2 * SIDE), "black")
    expected = {box: image.copy() for box in [(0, 0, 4, 4), (4 * SIDE - 4, 2 * SIDE - 4, 4 * SIDE, 2 * SIDE)]}
    black = VideoCollator(processor, num_frames=2)([row(image=image)])["pixel_values"]
    for (left, top, right, bottom), marked in expected.items():
        marked.paste("white", (left, top, right, bottom))
        seen = VideoCollator(processor, num_frames=2)([row(image=marked)])["pixel_values"]
        changed = (seen != black).any(2)[0, 0].nonzero()
        corner = torch.tensor([0, 0] if left == 0 else [SIDE - 1, SIDE - 1])
        assert len(changed) and (changed - corner).abs().max() <= 2
        cut = own([[marked]], return_tensors="pt")["pixel_values"]
        assert torch.equal(cut, own([[image]], return_tensors="pt")["pixel_values"])


def test_the_same_pixels_come_to_train_and_to_ask_upright_and_in_rgb(processor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    picture(60, 40).convert("CMYK").save(tmp_path / "a.jpg", exif=exif)
    turned = Image.open(tmp_path / "a.jpg").convert("RGB").transpose(Image.Transpose.ROTATE_270)
    for prompt_only in (False, True):
        batch = VideoCollator(processor, num_frames=2, prompt_only=prompt_only)([row(image=tmp_path / "a.jpg")])
        assert torch.equal(batch["pixel_values"][0, 0], pixels_of(processor, turned)[0])


# --- what is refused


@pytest.mark.parametrize("answer", ["", "  \n", None])
def test_a_row_without_an_answer_is_named(processor, answer):
    with pytest.raises(ValueError, match="row 'r7': no answer"):
        VideoCollator(processor, num_frames=2)([row(), row(answer=answer, id="r7")])


def test_another_number_of_frames_than_the_model_reads_is_refused_by_name(four_frames, clip):
    asked = row("So?", id="r7")
    for frames in (clip[:3], [*clip, clip[0]]):
        with pytest.raises(ValueError, match=f"row 'r7': {len(frames)} frames, where the model reads 4"):
            VideoCollator(four_frames, num_frames=4)([row("So?"), asked | {"frames": frames}])


def test_a_prompt_is_never_cut_but_refused_by_name(four_frames):
    collator = VideoCollator(four_frames, num_frames=4)
    words = " ".join(["?"] * 10)
    assert collator([row(words)])["input_ids"].shape == (1, 12)
    with pytest.raises(ValueError, match="row 'r7': a prompt of 13 tokens, where the text encoder reads 12"):
        collator([row("So?"), row(f"{words} ?", id="r7")])
    with pytest.raises(ValueError, match="row 'q7'"):
        collator([{"id": "frame", "image": picture(), "queries": [{"id": "q7", "prompt": words * 2, "answer": "1"}]}])


def test_a_missing_file_and_a_url_are_refused_by_name(processor, clip, tmp_path):
    for wrong in (str(tmp_path / "none.png"), "https://example.org/a.png"):
        for video in ({"image": wrong}, {"frames": [clip[0], wrong]}):
            with pytest.raises(ValueError, match=f"row 'r7': .*{wrong.rsplit('/', 1)[-1]}"):
                VideoCollator(processor, num_frames=2)([row(), row(id="r7") | video])


def test_a_file_that_is_no_image_is_refused_by_name(processor, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="row 'r7': "):
        VideoCollator(processor, num_frames=2)([row(image=str(tmp_path / "a.png"), id="r7")])


# --- the caller


def test_the_callers_rows_stay_as_they_were(processor):
    rows = [row(SPECIAL, SPECIAL), {"id": "frame", "image": picture(), "queries": [row()]}, *tiny.video_rows()]
    before = copy.deepcopy(rows)
    VideoCollator(processor, num_frames=2)(rows)
    assert rows == before


def test_it_works_in_workers_and_pickled(processor):
    collator, rows = VideoCollator(processor, num_frames=2), tiny.video_rows()
    expected = collator(rows)
    (batch,) = DataLoader(rows, batch_size=4, collate_fn=collator, num_workers=1)
    assert_same(batch, expected)
    assert_same(pickle.loads(pickle.dumps(collator))(rows), expected)
