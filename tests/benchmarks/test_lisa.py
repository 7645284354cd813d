"""LISA's 8 GB setting, at a size that needs no GPU."""

import re

import torch

from benchmarks import lisa
from recipes import reasonseg


def test_the_setting_is_the_recipe_s_small_card_line():
    [line] = re.findall(r"rtx_8gb\.yaml recipes/reasonseg\.py (.*?)\n\S", reasonseg.__doc__, re.DOTALL)
    stated = line.replace("\\\n", " ").replace("--sam_name_or_path facebook/sam-vit-base", "")
    stated = stated.removesuffix("--output_dir outputs/lisa_small").split()
    measured = f"{lisa.SETTING} {lisa.PAGED}".split()
    pairs = [set(zip(flags[::2], flags[1::2], strict=True)) for flags in (stated, measured)]
    assert pairs[0] == pairs[1]


def test_it_trains_in_four_bits_and_says_how_long_a_sample_takes(capsys):
    [row] = lisa.measure(toy=True)
    assert row["what"] == "LISA on 8 GB" and row["s/step"] > 0
    assert row["rows/step"] == 2 and row["s/sample"] == round(row["s/step"] / 2, 3)
    printed = capsys.readouterr().out
    assert "✓ gradients" in printed and "s per sample" in printed


def test_without_a_gpu_it_says_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lisa.main()
    assert "no GPU" in capsys.readouterr().out
