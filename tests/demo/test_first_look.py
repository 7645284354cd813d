"""What `make demo` says before it trains."""

import pytest
import yaml
from PIL import Image
from transformers import AutoModelForImageTextToText

from demo.__main__ import LEARNT, first_look
from demo.worlds.build import DEMO
from tests.support import tiny
from tests.support.paths import ROOT


def test_it_says_what_is_learnt_from_how_many_pictures_by_how_large_a_model_and_where_the_report_is(tmp_path):
    (tmp_path / "dataset" / "val").mkdir(parents=True)
    for name in ("a.png", "val/b.jpg", "val/c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / "dataset" / name)
    (tmp_path / "dataset" / "metadata.jsonl").write_text("{}\n")
    (tmp_path / "untrained").symlink_to(tiny.qwen2_vl())
    weights = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()).num_parameters()
    said = first_look("nutrition_tables", tmp_path, tmp_path / "run").split("\n")
    assert said[1].startswith(f"a model of {weights / 1e6:.1f} million random weights learns to find the nutrition")
    assert f"3 drawn pictures, in {tmp_path}/dataset: 2,000 steps of 16 examples" in said[2]
    assert "longest batch" in said[3] and f" {tmp_path}/run/report.html, from the first evaluation on" in said[4]


@pytest.mark.parametrize("recipe", DEMO)
def test_each_demo_says_what_it_learns_and_evaluates_before_its_first_step_as_often_as_it_ever_did(recipe):
    assert LEARNT[recipe].startswith("to ")
    config = yaml.safe_load((ROOT / "demo" / "configs" / f"{recipe}.yaml").read_text())
    assert config["eval_on_start"] is True
    assert config["max_steps"] // config["eval_steps"] in (3, 4), "more of them would choose among more checkpoints"
