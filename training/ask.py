"""Ask a model that a run left: `vlm-ask OUTPUT_DIR PICTURE_OR_FOLDER ["question"] [--recipe FILE]`.

The answer goes to the terminal; where it holds boxes or masks, a copy of the picture with them drawn goes to
`OUTPUT_DIR/answers/`. The prompt is the recipe's own function, the one that training and evaluation used.
"""

import argparse
from pathlib import Path

from PIL import UnidentifiedImageError
from transformers.image_utils import load_image

from ..eval.evaluation import text_of
from .runs import RunError, read_run, recipe_of, restore

NOTHING_KNOWN = {"boxes": [], "masks": [], "ignore": None}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-ask", description="Ask a model that a run left.")
    parser.add_argument("output_dir", type=Path, help="what the recipe was given as --output_dir")
    parser.add_argument("picture", type=Path, help="an image, or a folder of images")
    parser.add_argument("question", nargs="?", help="default: the question of the recipe, where it has one")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="default: the clone's own that made the run")
    args = parser.parse_args(arguments)
    pictures = sorted(args.picture.iterdir()) if args.picture.is_dir() else [args.picture]
    try:
        run = read_run(args.output_dir)
        recipe = recipe_of(run, args.recipe)
    except RunError as error:
        parser.error(str(error))
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
