from dataclasses import dataclass

import pytest
import torch

from vlm_recipes.training.launch import launch


@dataclass
class Arguments:
    number: int = 1


@pytest.fixture
def process_group(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipe.py"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_a_run_that_succeeds_leaves_no_process_group_behind(process_group):
    launch(lambda arguments: None, (Arguments,), refusals=(ValueError,))
    assert not torch.distributed.is_initialized()


def test_a_refusal_is_one_line_and_does_not_wait_for_the_other_processes(process_group):
    def refuse(arguments):
        raise ValueError("row 3: no image")

    with pytest.raises(SystemExit, match="^error: row 3: no image$"):
        launch(refuse, (Arguments,), refusals=(ValueError,))
    assert torch.distributed.is_initialized()
