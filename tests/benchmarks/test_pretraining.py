import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks import pretraining
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.worlds.endoscopy.dataset import draw_endoscopy
from demo.worlds.endoscopy.questions import QUESTIONS
from vlm_recipes.collators import ChatCollator


def test_a_description_says_every_answer_and_is_all_that_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "PICTURES", 3)
    rows = pretraining.write_descriptions(tmp_path / "pictures")
    said = [row["messages"][1]["content"][0]["text"] for row in rows]
    assert [len(text.split("\n")) for text in said] == [len(QUESTIONS)] * 3
    write_qwen2_vl(tmp_path / "model", said * 20, hidden_size=64, layers=1)
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    labels = ChatCollator(processor)(list(rows))["labels"]
    trained = [processor.decode(row[row != -100]) for row in labels]
    assert [text.strip() for text in trained] == [f"{text}<|im_end|>" for text in said]


def test_the_pictures_it_learns_from_are_not_the_demo_s(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "PICTURES", 4)
    pretraining.write_descriptions(tmp_path / "described")
    draw_endoscopy(tmp_path / "demo", images=4, broken=0)
    described = {file.read_bytes() for file in (tmp_path / "described").iterdir()}
    assert not described & {file.read_bytes() for file in (tmp_path / "demo" / "images").iterdir()}


def test_what_has_learnt_to_describe_is_a_checkpoint_whose_weights_have_moved(tmp_path, monkeypatch):
    for name, value in {"PICTURES": 2, "STEPS": 2}.items():
        monkeypatch.setattr(pretraining, name, value)
    write_qwen2_vl(tmp_path / "untrained", ["none"] * 20, hidden_size=64, layers=1)
    pretraining.learn_to_describe(tmp_path / "untrained", tmp_path / "described")
    before, after = (
        AutoModelForImageTextToText.from_pretrained(tmp_path / name).state_dict()
        for name in ("untrained", "described")
    )
    assert before.keys() == after.keys() and not any(torch.equal(before[name], after[name]) for name in before)
    AutoProcessor.from_pretrained(tmp_path / "described")
