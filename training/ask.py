"""Ask a model that a run left: `vlm-ask OUTPUT_DIR PICTURE_OR_FOLDER ["question"] [--recipe FILE]`.

The answer goes to the terminal; where it holds boxes or masks, a copy of the picture with them drawn goes to
`OUTPUT_DIR/answers/`. The prompt is the recipe's own function, the one that training and evaluation used.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import UnidentifiedImageError
from transformers.image_utils import load_image

from ..eval.evaluation import text_of

RECIPES = Path(__file__).resolve().parent.parent / "recipes"  # of the clone that this is installed from
NOTHING_KNOWN = {"boxes": [], "masks": [], "ignore": None}


def load_recipe(file: Path) -> ModuleType:
    """Import a recipe's file; modules beside it are found, as when it was launched."""
    name = f"recipe_{file.stem}"  # of no module that something else imports
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    sys.path.append(str(file.resolve().parent))
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def restore(dataclass: type, values: dict[str, Any]) -> Any:
    """Build a recipe's `Data` or `Model` from what `run.json` recorded."""
    return dataclass(**{field.name: values[field.name] for field in fields(dataclass) if field.name in values})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-ask", description="Ask a model that a run left.")
    parser.add_argument("output_dir", type=Path, help="what the recipe was given as --output_dir")
    parser.add_argument("picture", type=Path, help="an image, or a folder of images")
    parser.add_argument("question", nargs="?", help="default: the question of the recipe, where it has one")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="default: the clone's own that made the run")
    args = parser.parse_args(arguments)
    record = args.output_dir / "run.json"
    if not record.is_file():
        parser.error(f"{record} does not exist; OUTPUT_DIR is what a recipe was given as --output_dir")
    pictures = sorted(args.picture.iterdir()) if args.picture.is_dir() else [args.picture]

    run = json.loads(record.read_text(encoding="utf-8"))
    # `run.json` may name a recipe of the clone, but no other code.
    file = args.recipe or next((file for file in RECIPES.glob("*.py") if file.stem == run["recipe"]), None)
    if file is None:
        parser.error(f"this run's recipe is {run['recipe']!r}, and {RECIPES} has none of that name: --recipe FILE")
    if not file.is_file():
        parser.error(f"there is no file {file}")
    recipe = load_recipe(file)
    data, model = restore(recipe.Data, run["arguments"]["data"]), restore(recipe.Model, run["arguments"]["model"])
    question = args.question or getattr(recipe, "QUESTION", None)
    if question is None:
        parser.error(f"{run['recipe']} has no question of its own; give one")
    model.model_name_or_path = str(args.output_dir)
    network, processor = recipe.load(data, model)
    evaluation = recipe.evaluation(data, network, processor)
    for picture in pictures:
        try:
            image = load_image(str(picture.resolve(strict=True)))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            print(f"{picture}: no image ({str(error).splitlines()[0]})")
            continue
        row = {"id": "", "image": image, "image_size": list(image.size), "question": question, **NOTHING_KNOWN}
        row |= recipe.to_question(data, args.output_dir, question)
        [answer] = evaluation.answer(network, [row])
        print(f"{picture}: {text_of(answer)}")
        if evaluation.draw:
            drawn = args.output_dir / "answers" / f"{picture.stem}.png"
            drawn.parent.mkdir(exist_ok=True)
            evaluation.draw(image, row, answer).save(drawn)
            print(f"drawn on {drawn}")


if __name__ == "__main__":
    main()
