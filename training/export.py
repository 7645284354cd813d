"""Write what a run trained as a model for others: `vlm-export OUTPUT_DIR [--to FOLDER] [--recipe FILE]`.

An adapter is merged, in full precision, into its base, which is not quantised; a whole model is copied. Both get the
Hub's weight names, in a folder that `AutoModelForImageTextToText.from_pretrained` loads; LISA and SurgViVQA, which
transformers lacks, become whole folders for their recipe's `--model_name_or_path`. The folder is loaded again, and
what it says compared with the run's own model, before it gets its name.
"""

import argparse
import shutil
import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from PIL import Image
from safetensors import safe_open
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, PreTrainedModel, ProcessorMixin
from transformers.core_model_loading import revert_weight_conversion
from trl import ModelConfig

from ..callbacks.grad_norm import kinds_of
from ..models.checkpoints import EXPORTED, CheckpointError
from ..models.upstream import hub_weight_names
from .ask import NOTHING_KNOWN
from .chatter import bars_only_in_a_terminal
from .model_card import card_of_export
from .runs import RunError, first_base, model_of, read_run, recipe_of, restore
from .snippet import QUESTION

ADAPTER = "adapter_model.safetensors"
FORMATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
ALIKE = 0.05  # of the range of the logits: what rounding to 16 bits does not reach, and another model does


def weights_in(files: Iterable[Path]) -> dict[str, str]:
    """The names of the weights in safetensors files, with their number formats as these call them."""
    found = {}
    for file in files:
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            found |= {name: weights.get_slice(name).get_dtype() for name in names}
    return found


def export(folder: Path, to: Path, recipe_file: Path | None = None) -> None:
    """Write the model that the run in `folder` trained to `to`, and print what was compared.

    Raises `RunError` and `CheckpointError`, in one line, where there is no such model, and where the folder `to` is
    not empty.
    """
    run = read_run(folder)
    recipe = recipe_of(run, recipe_file)
    source = _source(folder, to, run)
    data, model = (restore(getattr(recipe, part.title()), run["arguments"][part]) for part in ("data", "model"))
    has_adapter = (source / ADAPTER).is_file()
    as_run = replace(model, model_name_or_path=str(source), attn_implementation=None)
    plain = replace(as_run, load_in_4bit=False, load_in_8bit=False, dtype="auto" if has_adapter else "float32")
    network, processor = recipe.load(data, plain)
    base = first_base(str(folder))
    if getattr(network.config, "quantization_config", None) is not None:
        raise RunError(f"{base} holds quantised weights, into which nothing is merged")
    before, kind = next_token_logits(recipe, data, folder, network, processor), kinds_of(network)
    if isinstance(network, PeftModel):
        network = network.merge_and_unload()  # PEFT adds in the adapter's float32, and rounds once
    of_the_hub = type(network.config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if of_the_hub:
        hub_weight_names(network)
    if not has_adapter:
        stored, own = weights_in(source.glob("model*.safetensors")), dict(network.named_parameters())
        for name, weight in [*own.items(), *revert_weight_conversion(network, own).items()]:
            weight.data = weight.data.to(FORMATS.get(stored.get(name), weight.dtype))
    unfinished = to.resolve().with_name(f"{to.resolve().name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    network.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.copyfile(folder / "run.json", unfinished / EXPORTED)
    del network
    names = weights_in(unfinished.glob("*.safetensors"))
    print(
        _names_compared(names, base, model) if of_the_hub else f"{len(names):,} weights, for {run['recipe']}.py alone"
    )
    again = next_token_logits(
        recipe, data, folder, *recipe.load(data, replace(plain, model_name_or_path=str(unfinished)))
    )
    whose = "the adapter on its base, not quantised" if has_adapter else "the run's model"
    print(_distance(f"the export and {whose}", before, again))
    if (before - again).abs().max() > ALIKE * (before.max() - before.min()):
        raise RunError(f"{unfinished} does not say what {source} says: it is not to be used, and nothing is exported")
    asked = 4 if as_run.load_in_4bit else 8 if as_run.load_in_8bit else None
    if bits := run.get("quantised_bits", asked):
        what = f"the export and the run in {bits} bits, as it was trained"
        if find_spec("bitsandbytes") is None:
            print(f"! {what}: not compared, which takes bitsandbytes")
        else:
            quantised = replace(as_run, load_in_4bit=bits == 4, load_in_8bit=bits == 8)
            in_bits = next_token_logits(recipe, data, folder, *recipe.load(data, quantised))
            print(_distance(what, in_bits, again))
    adapter = weights_in([source / ADAPTER]) if has_adapter else ()
    if vision := [name for name in adapter if kind(name) == "vision"]:
        print(
            f"! {len(vision):,} weights of the adapter in {source} are the vision tower's, which some servers drop "
            "without a word (vLLM issue 32541): serve the export, where they are merged"
        )
    if source == folder:  # else there is none yet
        card_of_export(folder, unfinished, to)
    unfinished.replace(to.resolve())
    print(f"exported: {to}")


def _source(folder: Path, to: Path, run: dict[str, Any]) -> Path:
    """Where the model is that the run has saved last, see `model_of`."""
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise RunError(f"{to} is not empty: name another folder, --to FOLDER")
    source = model_of(folder, run)
    if not run.get("finished") or source != folder:
        which = "this is" if source == folder else f"{source.name} is"
        print(f"! {folder}: the run has not finished, {which} the model that it has saved last")
    return source


@torch.no_grad()
def next_token_logits(
    recipe: ModuleType, data: Any, folder: Path, network: PreTrainedModel | PeftModel, processor: ProcessorMixin
) -> torch.Tensor:
    """What a model would say first about a drawn picture `[V]`, asked as the recipe asks."""
    image = Image.radial_gradient("L").resize((224, 224)).convert("RGB")
    question = getattr(recipe, "QUESTION", QUESTION)
    row = {"id": "", "image": image, "image_size": list(image.size), "question": question, **NOTHING_KNOWN}
    row |= recipe.to_question(data, folder, question)
    said: list[torch.Tensor] = []
    head = network.get_output_embeddings()
    watch = head.register_forward_hook(lambda module, inputs, output: said.append(output[0, -1].float().cpu()))
    try:
        evaluation = replace(recipe.evaluation(data, network, processor), max_new_tokens=1)
        evaluation.answer(network, [row], constrained=False)
    finally:
        watch.remove()
    return said[-1]  # before it a model may be tried on other questions


def _distance(what: str, first: torch.Tensor, second: torch.Tensor) -> str:
    largest, extent = (first - second).abs().max().item(), (first.max() - first.min()).item()
    return f"{what}: the first token's logits differ by at most {largest:.2g}, of a range of {extent:.3g}"


def _names_compared(names: Collection[str], base: str, model: ModelConfig) -> str:
    """Whether the weights have the names of the base's own files."""
    try:
        source = Path(base)
        if not source.is_dir():
            source = Path(snapshot_download(base, revision=model.model_revision, local_files_only=True))
    except (OSError, ValueError) as error:  # not in the Hub's cache here, or no name of the Hub
        return f"! {len(names):,} weights, names not compared with those of {base}: {str(error).splitlines()[0]}"
    own = weights_in(source.glob("*.safetensors")).keys()
    if differing := sorted(own ^ set(names)):
        shown = ", ".join(differing[:3])
        return f"! {len(names):,} weights, of which {len(differing):,} are not named as in {base}, such as {shown}"
    return f"{len(names):,} weights, named as those of {base}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-export", description="Write what a run trained as a model for others.")
    parser.add_argument("output_dir", type=Path, metavar="OUT", help="what the recipe was given as --output_dir")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="default: OUT/export")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="default: the clone's own that made the run")
    args = parser.parse_args(arguments)
    bars_only_in_a_terminal()
    try:
        export(args.output_dir, args.to or args.output_dir / "export", args.recipe)
    except (RunError, CheckpointError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
