"""How tests run a recipe: quietly in this process, or its file as a user does, up to the line that it fails with."""

import runpy
import sys

import pytest

from tests.support.paths import ROOT

QUIET = dict(
    report_to="none",
    disable_tqdm=True,
    dataloader_num_workers=0,
    dataloader_pin_memory=False,
    eval_strategy="no",
    save_strategy="no",
    load_best_model_at_end=False,
    bf16=False,
    fp16=False,
    logging_steps=1,
    use_cpu=True,
)


def fails(recipe: str, *arguments: str, monkeypatch) -> str:
    """Run the recipe's file with these arguments; return the one line that it ends with."""
    monkeypatch.setattr(sys, "argv", [recipe, *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
    assert isinstance(stopped.value.code, str) and "\n" not in stopped.value.code
    return stopped.value.code
