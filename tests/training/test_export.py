"""`vlm-export`: what plain transformers loads says what the run's adapter says on its base, under the Hub's names."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig
from trl import ModelConfig

from demo.worlds.small import SIZES
from recipes import visual_chat
from tests.support import tiny
from tests.support.left import WHOLE, left_by
from tests.support.paths import ROOT
from tests.support.worlds import world
from vlm_recipes.collators import ChatCollator, SegmentationCollator, Seq2SeqCollator, VideoCollator
from vlm_recipes.models.checkpoints import CheckpointError
from vlm_recipes.models.lisa.loading import load_lisa
from vlm_recipes.models.surgvivqa.loading import load_surgvivqa
from vlm_recipes.training import export
from vlm_recipes.training.runs import first_base

OF_THE_HUB = ["nutrition_tables", "kvasir_vqa", "vqa_rad", "visual_chat"]
pytestmark = pytest.mark.usefixtures("figures_are_blank")


def exported(output: Path, to: Path) -> Path:
    export.main([str(output), "--to", str(to)])
    return to


def batch_of(recipe: str, folder: Path):
    collator = Seq2SeqCollator if recipe == "vqa_rad" else ChatCollator
    rows = tiny.question_rows() if recipe == "vqa_rad" else tiny.chat_rows()
    return collator(AutoProcessor.from_pretrained(folder))(rows)


@torch.no_grad()
def logits(network, batch) -> torch.Tensor:
    return network.eval()(**batch).logits.float()


def plain(folder: Path, **settings):
    return AutoModelForImageTextToText.from_pretrained(folder, **settings)


@pytest.mark.parametrize("recipe", OF_THE_HUB)
def test_a_merged_adapter_says_what_peft_says_on_the_base_under_the_base_s_names(recipe, tmp_path, capsys):
    output = left_by(recipe)
    base = output.parent / "model"
    to = exported(output, tmp_path / "for others")
    printed = capsys.readouterr().out
    batch = batch_of(recipe, to)
    before = logits(plain(base), batch)
    expected = logits(PeftModel.from_pretrained(plain(base), output), batch)
    network, loading = plain(to, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (logits(network, batch) - expected).abs().max() < 1e-5
    assert (before - expected).abs().max() > 0.01
    weights, of_base = load_file(to / "model.safetensors"), load_file(base / "model.safetensors")
    assert {name: (weight.shape, weight.dtype) for name, weight in weights.items()} == {
        name: (weight.shape, weight.dtype) for name, weight in of_base.items()
    }
    assert f"{len(of_base)} weights, named as those of {base}\n" in printed and f"exported: {to}\n" in printed
    difference = float(re.search(r"not quantised: the first token's logits differ by at most (\S+),", printed)[1])
    assert difference < 1e-5 and "bits" not in printed
    # nutrition_tables' small run is --tune joint
    assert ("are the vision tower's, which some servers drop" in printed) == (recipe == "nutrition_tables")
    assert list(to.parent.iterdir()) == [to]


@pytest.mark.parametrize("recipe", OF_THE_HUB)
def test_a_whole_model_is_copied_to_the_bit_under_the_base_s_names(recipe, tmp_path):
    output = left_by(recipe, *WHOLE[recipe].split())
    to = exported(output, tmp_path / "whole")
    expected, found = plain(output).state_dict(), plain(to).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    of_base = load_file(output.parent / "model" / "model.safetensors")
    assert load_file(to / "model.safetensors").keys() == of_base.keys()
    assert load_file(output / "model.safetensors").keys() == of_base.keys()


def test_each_weight_of_a_whole_model_keeps_its_number_format(tmp_path):
    output = left_by("nutrition_tables", "--tune", "vision", "--dtype", "bfloat16")
    to = exported(output, tmp_path / "whole")
    weights = load_file(to / "model.safetensors")
    assert {name: weight.dtype for name, weight in weights.items()} == {
        name: torch.float32 if name.startswith("visual.") else torch.bfloat16 for name in weights
    }
    found = plain(to, dtype="float32").state_dict()
    assert all(
        torch.equal(weight, found[name]) for name, weight in plain(output, dtype="float32").state_dict().items()
    )


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "whole"])
@pytest.mark.parametrize("recipe", ["reasonseg", "ssg_vqa"])
def test_a_composed_model_is_exported_as_the_whole_folder_that_its_loader_reads(recipe, whole, tmp_path, capsys):
    output = left_by(recipe, *(WHOLE[recipe].split() if whole else ()))
    to = exported(output, tmp_path / "whole")
    assert f"for {recipe}.py alone" in capsys.readouterr().out
    assert not (to / "adapter_config.json").exists()
    outputs = []
    for folder in (output, to):
        config = ModelConfig(str(folder), dtype="float32")
        network, processor = load_lisa(config) if recipe == "reasonseg" else load_surgvivqa(config)
        if recipe == "reasonseg":
            batch = SegmentationCollator(processor)(tiny.mask_rows())
        else:
            batch = VideoCollator(processor, network.config.video.num_frames)(tiny.video_rows())
        with torch.no_grad():
            outputs.append(network.eval()(**batch))
    if recipe == "reasonseg":
        assert outputs[0].loss.item() == pytest.approx(outputs[1].loss.item(), rel=1e-6)
        masks = [[mask for row in one.mask_logits for mask in row] for one in outputs]
        assert len(masks[0]) == 4
        assert all(torch.allclose(own, other, atol=1e-4) for own, other in zip(*masks, strict=True))
    else:
        assert (outputs[0].logits - outputs[1].logits).abs().max() < 1e-5


def test_an_adapter_is_added_to_16_bits_in_full_precision_and_rounded_once(tmp_path):
    output = left_by("visual_chat")
    base = tmp_path / "base"
    plain(output.parent / "model", dtype="bfloat16").save_pretrained(base)
    run = of_base(output, base, tmp_path / "run")
    to = exported(run, tmp_path / "to")
    adapter, merged = load_file(run / "adapter_model.safetensors"), load_file(to / "model.safetensors")
    config = json.loads((run / "adapter_config.json").read_text())
    stem, changed = "base_model.model.model.language_model.", 0
    for name, weight in load_file(base / "model.safetensors").items():
        key = stem + name.removeprefix("model.").removesuffix(".weight")
        if f"{key}.lora_A.weight" in adapter:
            up, down = adapter[f"{key}.lora_B.weight"], adapter[f"{key}.lora_A.weight"]
            weight = (weight.float() + up @ down * (config["lora_alpha"] / config["r"])).to(torch.bfloat16)
            changed += 1
        assert torch.equal(merged[name], weight), name
    assert changed == 7


def of_base(output: Path, base: Path, to: Path) -> Path:
    """A copy of a run whose adapter belongs to another base."""
    shutil.copytree(output, to)
    for file, change in {
        "adapter_config.json": lambda config: config.update(base_model_name_or_path=str(base)),
        "run.json": lambda run: run["arguments"]["model"].update(model_name_or_path=str(base)),
    }.items():
        content = json.loads((to / file).read_text())
        change(content)
        (to / file).write_text(json.dumps(content))
    return to


@pytest.mark.parametrize(("recipe", "bits"), [("visual_chat", 4), ("vqa_rad", 8), ("reasonseg", 4)])
def test_of_a_run_in_few_bits_the_distance_is_printed_and_its_base_is_not_quantised(recipe, bits, tmp_path, capsys):
    output = left_by(recipe, f"--load_in_{bits}bit", "true")
    assert json.loads((output / "run.json").read_text())["quantised_bits"] == bits
    capsys.readouterr()
    to = exported(output, tmp_path / "to")
    said = re.findall(
        r"(not quantised|bits, as it was trained): the first token's logits differ by at most (\S+),",
        capsys.readouterr().out,
    )
    assert [what[:4] for what, _ in said] == ["not ", "bits"]
    merged, quantised = (float(number) for _, number in said)
    assert merged < 1e-4 < 1e-3 < quantised
    assert "quantization_config" not in json.loads((to / "config.json").read_text())
    if recipe != "reasonseg":
        batch, base = batch_of(recipe, to), output.parent / "model"
        expected = logits(PeftModel.from_pretrained(plain(base), output), batch)
        assert (logits(plain(to), batch) - expected).abs().max() < 1e-4


def test_a_run_without_quantising_says_so_in_its_record():
    assert json.loads((left_by("kvasir_vqa") / "run.json").read_text())["quantised_bits"] is None


def test_names_are_compared_with_the_base_that_a_chain_of_runs_began_with(tmp_path, capsys):
    first = left_by("nutrition_tables")
    second = left_by("nutrition_tables", "--tune", "vision", "--model_name_or_path", str(first))
    base = str(first.parent / "model")
    assert first_base(str(second)) == base and first_base(str(second / "checkpoint-3")) == base
    assert first_base("Qwen/Qwen2-VL-7B-Instruct") == "Qwen/Qwen2-VL-7B-Instruct"
    exported(second, tmp_path / "to")
    assert f"weights, named as those of {base}\n" in capsys.readouterr().out


def test_a_run_that_was_evaluated_in_its_own_folder_keeps_its_base_and_its_bits(tmp_path, monkeypatch, capsys):
    source = left_by("visual_chat", "--load_in_4bit", "true")
    output = Path(shutil.copytree(source, tmp_path / "run"))
    base, before = str(source.parent / "model"), json.loads((output / "run.json").read_text())
    arguments = [*world("visual_chat", tmp_path), "--dataset_name", str(source.parent / "data"), "--use_cpu", "true"]
    arguments += ["--do_train", "false", "--load_in_4bit", "true", "--output_dir", str(output), "--max_test_rows", "1"]
    monkeypatch.setattr("sys.argv", ["visual_chat", *arguments, "--model_name_or_path", str(output)])
    for _ in range(2):
        runpy.run_path(str(ROOT / "recipes" / "visual_chat.py"), run_name="__main__")
    run = json.loads((output / "run.json").read_text())
    assert run["arguments"]["model"]["model_name_or_path"] == base
    assert run["evaluated_with"]["model"]["model_name_or_path"] == str(output)
    assert run["quantised_bits"] == before["quantised_bits"] == 4
    assert first_base(str(output)) == base
    capsys.readouterr()
    exported(output, tmp_path / "to")
    printed = capsys.readouterr().out
    assert f"weights, named as those of {base}\n" in printed and "the run in 4 bits, as it was trained" in printed


def test_names_that_are_not_the_base_s_are_named(tmp_path, capsys):
    output = left_by("visual_chat", *WHOLE["visual_chat"].split())
    other = left_by("vqa_rad").parent / "model"
    shutil.copytree(output, tmp_path / "run")
    run = json.loads((output / "run.json").read_text())
    run["arguments"]["model"]["model_name_or_path"] = str(other)
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    exported(tmp_path / "run", tmp_path / "to")
    assert re.search(rf"! 33 weights, of which 1\d\d are not named as in {other}, such as ", capsys.readouterr().out)
    run["arguments"]["model"]["model_name_or_path"] = "no/such-model"
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    exported(tmp_path / "run", tmp_path / "again")
    assert "! 33 weights, names not compared with those of no/such-model: " in capsys.readouterr().out


def test_without_to_the_export_lies_in_the_run_s_folder_and_is_not_overwritten(tmp_path, capsys):
    output = shutil.copytree(left_by("vqa_rad"), tmp_path / "run")
    export.main([str(output)])
    assert (output / "export" / "model.safetensors").is_file()
    assert refused(output) == f"error: {output / 'export'} is not empty: name another folder, --to FOLDER"


def refused(output: Path, *more: str) -> str:
    with pytest.raises(SystemExit) as ended:
        export.main([str(output), *more])
    assert "\n" not in ended.value.code
    return ended.value.code


@pytest.mark.parametrize("place", ["run/export", "elsewhere"])
def test_an_export_is_shown_pictures_as_its_run_was_wherever_it_lies(place, tmp_path, capsys):
    """Not as the recipe's defaults say: that is told by the run's record, which an export has, too."""
    output = shutil.copytree(left_by("visual_chat"), tmp_path / "run")
    to = exported(output, tmp_path / place)
    processors = [visual_chat.load(visual_chat.Data(), a_model(folder))[1] for folder in (output, to)]
    sizes = [processor.image_processor.size for processor in processors]
    assert sizes[0] == sizes[1] and sizes[0]["longest_edge"] == 12544
    assert (to / "trained.json").read_bytes() == (output / "run.json").read_bytes()
    with pytest.raises(CheckpointError, match="^--max_pixels 50176 has no effect"):
        visual_chat.load(visual_chat.Data(min_pixels=12544, max_pixels=50176), a_model(to))


def a_model(folder: Path) -> visual_chat.Model:
    return visual_chat.Model(model_name_or_path=str(folder), dtype="float32")


def test_a_folder_that_cannot_be_written_and_the_one_that_one_is_in(tmp_path, monkeypatch):
    assert refused(left_by("visual_chat"), "--to", "/proc/export").startswith("error: [Errno 2]")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export.main([str(left_by("visual_chat")), "--to", "."])
    assert (tmp_path / "here" / "model.safetensors").is_file()


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    assert "run.json does not exist" in refused(tmp_path / "nothing")
    output = shutil.copytree(left_by("visual_chat"), tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert "file is not empty" in refused(output, "--to", str(tmp_path / "file"))
    (output / "adapter_model.safetensors").unlink()
    assert refused(output).endswith(
        "(no checkpoint was saved): let it go on to its end with --resume_from_checkpoint true"
    )
    run = json.loads((output / "run.json").read_text())
    run["arguments"]["training"]["do_train"] = False
    (output / "run.json").write_text(json.dumps(run))
    evaluated = run["arguments"]["model"]["model_name_or_path"]
    assert refused(output).endswith(f"its run only evaluated {evaluated!r}: name a run that trained")
    moved = of_base(left_by("visual_chat"), tmp_path / "moved", tmp_path / "orphan")
    assert "there is no such folder" in refused(moved, "--to", str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_nothing_is_merged_into_weights_of_few_bits(tmp_path):
    output = left_by("visual_chat")
    quantised = plain(output.parent / "model", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    quantised.save_pretrained(tmp_path / "base")
    run = of_base(output, tmp_path / "base", tmp_path / "run")
    assert refused(run).endswith("holds quantised weights, into which nothing is merged")


def test_a_run_that_has_not_finished_is_said_to(tmp_path, capsys):
    output = shutil.copytree(left_by("vqa_rad"), tmp_path / "run")
    run = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps(run | {"finished": False}))
    exported(output, tmp_path / "to")
    assert f"! {output}: the run has not finished" in capsys.readouterr().out


def test_an_export_that_says_something_else_does_not_get_its_name(tmp_path, monkeypatch):
    output = left_by("vqa_rad")
    said = iter([torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.9])])
    monkeypatch.setattr(export, "next_token_logits", lambda *arguments: next(said))
    assert "does not say what" in refused(output, "--to", str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_every_recipe_has_an_export():
    assert {*OF_THE_HUB, "reasonseg", "ssg_vqa"} == set(SIZES)
