"""Questions about a drawn scan in VQA-RAD's types and wordings; each answer can be read off the picture."""

from collections.abc import Iterator

import numpy as np

from demo.worlds.radiology.scene import Scene

# (question type, answer, wordings). Wordings in lower case get answers in lower case: the original mixes the two.
Fact = tuple[str, str | int, tuple[str, ...]]
PARTS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}
MODALITIES = {"CT": "a CT", "MRI": "an MRI", "X-ray": "an X-ray"}
PLANES = {"Axial": "an axial", "Coronal": "a coronal", "PA": "a PA"}
ENLARGED = {"HEAD": ("are", "ventricles"), "CHEST": ("is", "heart"), "ABD": ("is", "liver")}
WEIGHTS = {"POS": 4.0, "COLOR": 2.0, "SIZE": 2.0}  # these have few facts; any other type weighs 1
COUNTS = ("None", "One", "Two", "Three")


def yes_no(holds: bool) -> str:
    return "Yes" if holds else "No"


def lesion_facts(scene: Scene) -> Iterator[Fact]:
    """What can be asked about the lesions; where, how large and how bright only of a single one."""
    lesions = scene.lesions
    yield (
        "PRES",
        yes_no(bool(lesions)),
        ("Is there a lesion in this image?", "is a lesion present?", "Is a lesion seen?"),
    )
    for side in ("left", "right"):
        present = yes_no(any(lesion.side == side for lesion in lesions))
        wordings = (f"Is there a lesion on the {side} side of the image?", f"is there a lesion on the image's {side}?")
        yield "PRES", present, wordings
    for bright, word in ((True, "bright"), (False, "dark")):
        present = yes_no(any(lesion.bright == bright for lesion in lesions))
        yield "PRES", present, (f"Is there a {word} lesion?", f"is a {word} lesion present?")
    yield "COUNT", COUNTS[len(lesions)], ("How many lesions are in this image?", "how many lesions are there?")
    if lesions:
        yield "COUNT", yes_no(len(lesions) > 1), ("Is there more than one lesion?", "are there multiple lesions?")
    if len(lesions) != 1:
        return
    lesion = lesions[0]
    wordings = ("Which side of the image is the lesion on?", "on which side of the image is the lesion?")
    yield "POS", lesion.side.title(), wordings
    if abs(lesion.y) > 0.1:
        place = f"{'Upper' if lesion.y < 0 else 'Lower'} {lesion.side}"
        yield "POS", place, ("Where in the image is the lesion located?", "where in the image is the lesion?")
    size = "Large" if lesion.large else "Small"
    yield "SIZE", size, ("Is the lesion large or small?", "What is the size of the lesion?")
    ending = "intense" if scene.modality == "MRI" else "dense"
    wordings = (f"Is the lesion hyper{ending} or hypo{ending}?", "How would you describe the lesion?")
    yield "COLOR", f"{'Hyper' if lesion.bright else 'Hypo'}{ending}", wordings


def finding_facts(scene: Scene) -> Iterator[Fact]:
    """What can be asked about everything else that is seen."""
    verb, organ = ENLARGED[scene.organ]
    yield "SIZE", yes_no(scene.enlarged), (f"{verb.title()} the {organ} enlarged?", f"{verb} the {organ} too large?")
    if scene.organ == "HEAD":
        wordings = ("Is there a midline shift?", "is there a shift of midline structures?")
        yield "PRES", yes_no(bool(scene.shift)), wordings
    if scene.organ == "CHEST":
        wordings = ("Is there a pleural effusion?", "is a pleural effusion present?")
        yield "PRES", yes_no(bool(scene.effusion)), wordings
        if scene.effusion:
            wordings = ("Which side of the image shows the effusion?", "on which side of the image is the effusion?")
            yield "POS", scene.effusion.title(), wordings
    if scene.organ == "ABD":
        yield "PRES", yes_no(scene.gas), ("Is there air in the bowel?", "is gas seen in the bowel?")
        if not any(lesion.large for lesion in scene.lesions):  # a large one may hide a kidney
            kidneys = 1 if scene.missing_kidney else 2
            yield "COUNT", kidneys, ("How many kidneys are in this image?", "How many kidneys are visible?")
    if (scene.organ, scene.modality) == ("ABD", "CT"):
        yield "MODALITY", yes_no(scene.contrast), ("Was IV contrast given?", "is this a contrast enhanced image?")
    normal = not (scene.lesions or scene.enlarged or scene.effusion or scene.shift or scene.missing_kidney)
    yield "ABN", yes_no(normal), ("Is this a normal image?", "Is this image normal?", "are the findings normal?")
    yield "ABN", yes_no(not normal), ("Is this image abnormal?", "are there abnormal findings?")


def view_facts(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    """What can be asked about the kind of scan; a closed question names the true kind half of the time and more."""
    part = PARTS[scene.organ]
    yield "ORGAN", part.title(), ("What part of the body is shown?", "what body part is this?")
    named = part if rng.random() < 0.5 else rng.choice(list(PARTS.values()))
    yield "ORGAN", yes_no(named == part), (f"Is this an image of the {named}?", f"does this image show the {named}?")
    yield "MODALITY", scene.modality, ("What type of image is this?", "How was this image taken?")
    named = scene.modality if rng.random() < 0.5 else rng.choice(list(MODALITIES))
    wordings = (f"Is this {MODALITIES[named]}?", f"is this {MODALITIES[named]} image?")
    yield "MODALITY", yes_no(named == scene.modality), wordings
    yield "PLANE", scene.plane, ("What plane is this image in?", "What is the plane of this image?")
    named = scene.plane if rng.random() < 0.5 else rng.choice(list(PLANES))
    yield "PLANE", yes_no(named == scene.plane), (f"Is this {PLANES[named]} image?", f"is this {PLANES[named]} view?")


def ask(scene: Scene, rng: np.random.Generator) -> Iterator[dict]:
    """1 to 12 questions (median 7), half of the facts in two wordings, in the original's fields for a question."""
    facts = [*lesion_facts(scene), *finding_facts(scene), *view_facts(scene, rng)]
    left = int(rng.choice([1, 3, 5, 6, 7, 8, 10, 12], p=[0.02, 0.08, 0.10, 0.15, 0.30, 0.10, 0.15, 0.10]))
    weights = np.array([WEIGHTS.get(fact[0], 1.0) for fact in facts])
    for index in rng.choice(len(facts), len(facts), replace=False, p=weights / weights.sum()):
        kind, answer, wordings = facts[index]
        pair = rng.permutation(wordings)[: 1 + int(left > 1 and rng.random() < 0.5)].tolist()
        linked = str(rng.integers(2**63))
        for phrase_type, question in zip(("freeform", "para"), pair, strict=False):
            keep = question[0].isupper() or isinstance(answer, int)
            yield {
                "phrase_type": phrase_type,
                "qid_linked_id": linked,
                "evaluation": "evaluated" if len(pair) == 2 else "not evaluated",
                "question": question,
                "question_rephrase": pair[1 - pair.index(question)] if len(pair) == 2 else "NULL",
                "question_relation": "strict agreement" if len(pair) == 2 else "NULL",
                "question_frame": "NULL",
                "question_type": kind,
                "answer": answer if keep else answer.lower(),
                "answer_type": "CLOSED" if answer in ("Yes", "No") or " or " in question else "OPEN",
            }
        left -= len(pair)
        if not left:
            return
