"""Questions about a drawn endoscopy frame in Kvasir-VQA's wordings; each answer can be read off the picture."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from demo.worlds.endoscopy.scene import Scene, Spot

QUESTIONS = {  # spelled as upstream
    "kind": "What type of polyp is present?",
    "size": "What is the size of the polyp?",
    "abnormality": "Are there any abnormalities in the image? Check all that are present.",
    "removed": "Have all polyps been removed?",
    "easy": "Is this finding easy to detect?",
    "box": "Is there a green/black box artefact?",
    "text": "Is there text?",
    "procedure": "What type of procedure is the image taken from?",
    "colour": "What color is the abnormality? If more than one separate with ;",
    "findings": "How many findings are present?",
    "polyps": "How many polyps are in the image?",
    "place": "Where in the image is the abnormality?",
    "instruments": "How many instrumnets are in the image?",
    "instrument": "Are there any instruments in the image? Check all that are present.",
    "instrument place": "Where in the image is the instrument?",
    "landmark": "Are there any anatomical landmarks in the image? Check all that are present.",
    "landmark place": "Where in the image is the anatomical landmark?",
}
USUAL, COUNT = tuple(QUESTIONS)[:12], ("instruments",)
INSTRUMENT, LANDMARK = (*COUNT, "instrument", "instrument place"), ("landmark", "landmark place")
# Which questions come together, and for how many of 160 real images.
PATTERNS = {
    (*USUAL, *COUNT): 48,
    USUAL: 37,
    (*USUAL, *INSTRUMENT, *LANDMARK): 32,
    (*USUAL, *INSTRUMENT): 5,
    (*USUAL, *COUNT, "instrument place"): 1,
    (*USUAL, *COUNT, "instrument"): 1,
    (*USUAL[:-1], *COUNT, "instrument place"): 1,
    (*USUAL[:10], "place"): 1,
    ("abnormality", "removed"): 2,
    ("abnormality",): 2,
}
# The same of images that are asked about the kind, or the kind and the size, once for each of two polyps.
DOUBLED = {
    (*USUAL, "kind", "size"): 11,
    (*USUAL, "kind", *COUNT): 9,
    (*USUAL, "kind", "size", *COUNT): 3,
    (*USUAL, "kind", "size", *LANDMARK): 2,
    (*USUAL, "kind", "size", *INSTRUMENT): 2,
    (*USUAL, "kind", *INSTRUMENT): 1,
}


def yes_no(holds: bool) -> str:
    return "yes" if holds else "no"


def listed(names: Iterable[str], separator: str = "; ") -> str:
    """Each name once, in alphabetical order."""
    return separator.join(sorted(set(names))) or "none"


def cells(spots: Iterable[Spot | None]) -> str:
    return listed(spot.cell for spot in spots if spot)


def answers(scene: Scene) -> dict[str, str]:
    """The answer to each of QUESTIONS, about all polyps at once."""
    removed = yes_no(bool(scene.scar)) if scene.polyps else "not relevant"
    abnormalities = ["polyp"] * bool(scene.polyps) + [scene.patch_name] * bool(scene.patch)
    landmark = "cecum" if scene.procedure == "colonoscopy" else "pylorus"
    return {
        "kind": listed(polyp.kind for polyp in scene.polyps),
        "size": listed((polyp.size for polyp in scene.polyps), ";"),
        "abnormality": listed(abnormalities),
        "removed": removed,
        "easy": yes_no(scene.easy),
        "box": yes_no(scene.box),
        "text": yes_no(scene.text),
        "procedure": scene.procedure,
        "colour": "; ".join(scene.colour_areas),
        "findings": str(len(scene.polyps) + bool(scene.patch)),
        "polyps": str(len(scene.polyps)),
        "place": cells([*scene.polyps, scene.patch]),
        "instruments": str(len(scene.instruments)),
        "instrument": listed(instrument.name for instrument in scene.instruments),
        "instrument place": cells(scene.instruments),
        "landmark": landmark if scene.landmark else "none",
        "landmark place": cells([scene.landmark]),
    }


def misspell(answer: str, rng: np.random.Generator) -> str:
    """Upstream's slips, as often as there."""
    if answer == ">20mm" and rng.random() < 0.1:
        return ">20"
    return answer.replace("lower-right", "lower-rigth") if rng.random() < 0.02 else answer


def ask(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """(question, answer) of one image, in no order: a pattern of upstream's, doubled only where there are two polyps.

    A question that comes twice is answered for each polyp alone.
    """
    patterns = DOUBLED if len(scene.polyps) == 2 and rng.random() < 0.8 else PATTERNS
    weights = np.array(list(patterns.values()))
    asked = Counter(list(patterns)[rng.choice(len(weights), p=weights / weights.sum())])
    together, pairs = answers(scene), []
    apart = {"kind": [polyp.kind for polyp in scene.polyps], "size": [polyp.size for polyp in scene.polyps]}
    for name, times in asked.items():
        given = [together[name]] if times == 1 else apart[name]
        pairs += [(QUESTIONS[name], answer) for answer in given]
    for index in rng.permutation(len(pairs)):
        question, answer = pairs[index]
        yield question, misspell(answer, rng)
