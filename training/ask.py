"""Ask a model that a run left: `vlm-ask OUTPUT_DIR PICTURE_OR_FOLDER ["question"] [--recipe FILE]`.

The answer goes to the terminal; where it holds boxes or masks, a copy of the picture with them drawn goes to
`OUTPUT_DIR/answers/`. The prompt is the recipe's own function, the one that training and evaluation used, and pictures
are refused as there. A run that was interrupted answers with its newest whole checkpoint. Where nothing is answered,
the exit status is 1.
"""

import argparse
import json
import sys
from pathlib import Path

from ..eval.evaluation import text_of
from ..rows.check import check_row
from ..rows.conventions import Row
from ..rows.errors import one_line
from ..rows.opened import open_image
from .chatter import bars_only_in_a_terminal
from .launch import REFUSALS
from .runs import RunError, model_of, read_run, recipe_of, restore

NOTHING_KNOWN = {"boxes": [], "masks": [], "ignore": None}


def usable(pictures: list[Path], asked: Row) -> dict[Path, Row]:
    """The rows that ask about these pictures, each looked at as in training; the others are named with the reason."""
    rows = {}
    for picture in pictures:
        found = {"id": picture.name, "image": {"bytes": None, "path": str(picture)}}
        _, refused, row = check_row(found, 0, adapt=lambda row: asked)
        if refused:
            print(f"{picture}: not asked ({refused})")
        else:
            rows[picture] = row
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-ask", description="Ask a model that a run left.")
    parser.add_argument("output_dir", type=Path, help="what the recipe was given as --output_dir")
    parser.add_argument("picture", type=Path, help="an image, or a folder of images")
    parser.add_argument("question", nargs="?", help="default: the question of the recipe, where it has one")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="default: the clone's own that made the run")
    args = parser.parse_args(arguments)
    bars_only_in_a_terminal()
    pictures = [args.picture]
    if args.picture.is_dir():
        pictures = sorted(file for file in args.picture.iterdir() if file.is_file())
    try:
        run = read_run(args.output_dir, ("data", "model"))
        recipe = recipe_of(run, args.recipe)
        data, model = (restore(getattr(recipe, part), run["arguments"][part.lower()]) for part in ("Data", "Model"))
        question = (args.question or getattr(recipe, "QUESTION", "")).strip()
        if not question:
            raise RunError(f"{run['recipe']} has no question of its own; give one")
        try:
            asked = {**NOTHING_KNOWN, "question": question, **recipe.to_question(data, args.output_dir, question)}
        except json.JSONDecodeError as error:  # of what the training left of its questions
            raise RunError(f"{args.output_dir} does not say whole how its model was asked ({error})") from error
        source = model_of(args.output_dir, run)
        if source != args.output_dir:
            print(f"the run in {args.output_dir} was interrupted: answering with {source.name}")
        model.model_name_or_path = str(source)
        rows = usable(pictures, asked)
        if not rows:
            sys.exit(f"error: nothing was answered: {args.picture} has no picture that can be used")
        network, processor = recipe.load(data, model)
        evaluation = recipe.evaluation(data, network, processor)
    except RunError as error:
        parser.error(str(error))
    except (*REFUSALS, OSError) as error:  # a file of the run's may be gone
        sys.exit(f"error: {error}")
    names = {picture: picture.stem for picture in pictures}
    if len(set(names.values())) < len(names):  # 1.jpg and 1.png would be drawn on one file
        names = {picture: picture.name for picture in pictures}
    answered = 0
    for picture, row in rows.items():
        image = open_image(picture, data.background)
        row |= {"image": image}
        try:
            evaluation.collator([row])
        except ValueError as error:  # names what cannot be read: nothing is ever cut
            print(f"{picture}: not asked ({one_line(str(error))})")
            continue
        [answer] = evaluation.answer(network, [row])
        answered += 1
        print(f"{picture}: {text_of(answer)}")
        if evaluation.draw:
            drawn = args.output_dir / "answers" / f"{names[picture]}.png"
            drawn.parent.mkdir(exist_ok=True)
            evaluation.draw(image, row, answer).save(drawn)
            print(f"drawn on {drawn}")
    if not answered:
        sys.exit("error: nothing was answered")


if __name__ == "__main__":
    main()
