"""The figures of tasks that read, in words: what was asked, of which kind, and what could be said without looking."""

import re

from tavq.report.measures import Measure

KINDS: dict[str, tuple[str, str]] = {
    "constant": ("constant answer", "what fits the training set best, said of every image: nobody looked"),
    "constant/name": ("by the thing's name", "the mean box of the training set's things of that name: nobody looked"),
    "constant/previous": ("by the word before", "the words that follow the one before most often: nobody looked"),
    "others": ("another image's", "what was said of other images: is it about this one at all?"),
    "chance": ("chance", "an order drawn at random"),
}
"""Answers without looking: a name and what it means."""

TITLES = {
    "answers": "Answers to questions",
    "captions": "Captions",
    "boxes": "Boxes of phrases",
    "words": "Missing words",
    "ranks": "Images and texts that find each other",
}
NOTES = {
    "answers": "Of all questions, and of those of each type.",
    "captions": "Against all captions that people gave of an image.",
    "boxes": "In the centre square that the task sees.",
    "words": "Of captions with one and with three words missing. Content words are all but articles and the like.",
    "ranks": "Among all images, and all distinct texts, of the split.",
}

_ANSWER = re.compile(r"(?:(?P<type>.+)/)?(?P<score>accuracy|vqa_accuracy|WUPS@[\d.]+)")
_CAPTION = re.compile(r"BLEU-[1-4]|ROUGE-L|CIDEr-D|METEOR|meteor_nltk")
_BOX = re.compile(r"accuracy@0\.5|mean_iou")
_WORD = re.compile(r"masked-(?P<missing>\d+)/(?:(?P<kind>.+)/)?recall@(?P<most>\d+)")
_RANK = re.compile(r"(?P<way>image_to_text|text_to_image)/(?:recall@(?P<most>\d+)|median_rank)")
_GROUPS = {"answers": _ANSWER, "captions": _CAPTION, "boxes": _BOX, "words": _WORD, "ranks": _RANK}

MAIN = {
    "answers": re.compile(r"(?:.+/)?(?:vqa_)?accuracy"),
    "captions": re.compile(r"CIDEr-D|BLEU-4"),
    "boxes": _BOX,
    "words": re.compile(r"masked-\d+/content/recall@1"),
    "ranks": re.compile(r"\w+/(?:recall@1|median_rank)"),
}
"""The figures that a comparison shows first."""

WAYS = {"image_to_text": "Text of an image", "text_to_image": "Image of a text"}


def place(key: str) -> tuple[str, str, str] | None:
    """Group, row and kind ("" for the task's own) of a figure of a task that reads; None of any other."""
    for kind, opening in (
        ("constant/name", "constant/name/"),
        ("constant/previous", "constant/previous/"),
        ("constant", "constant/"),
        ("others", "shuffled/"),
        ("chance", "chance/"),
        ("", ""),
    ):
        row = key.removeprefix(opening)
        if not key.startswith(opening) or (kind == "constant/name" and not _BOX.fullmatch(row)):
            continue  # a question's type may be called name
        group = next((name for name, pattern in _GROUPS.items() if pattern.fullmatch(row)), None)
        if group is not None:
            return group, row, kind
    return None


def measure(group: str, row: str) -> Measure:
    """A row of these groups in words."""
    return _MEASURES[group](row)


def _answer(row: str) -> Measure:
    kind, _, score = row.rpartition("/")
    name = {"accuracy": "Right answers", "vqa_accuracy": "VQA accuracy"}.get(score, score)
    close = "Mean closeness of the answers in WordNet."
    meaning = close if score.startswith("WUPS") else "Share of the questions that got the very answer."
    return Measure(row, f"{name}: {kind}" if kind else name, 1, meaning, percent=True)


def _caption(row: str) -> Measure:
    meaning = {
        "CIDEr-D": "How much of what is telling in people's captions was said; from 0 to 10.",
        "ROUGE-L": "The longest common sequence of words.",
        "METEOR": "Words that match, by stem and synonym too, and their order.",
        "meteor_nltk": "As METEOR, by NLTK's rules; not comparable with METEOR.",
    }.get(row, f"Runs of up to {row[-1]} words that people's captions have too.")
    return Measure(row, row, 1, meaning, 3)


def _box(row: str) -> Measure:
    if row == "mean_iou":
        return Measure(row, "Mean IoU", 1, "Intersection of the found and the true box over their union.", 3)
    return Measure(row, "Right boxes", 1, "Share of the phrases whose box has an IoU above a half.", percent=True)


def _word(row: str) -> Measure:
    found = re.fullmatch(_WORD, row)
    missing, kind, most = found.group("missing", "kind", "most") if found else ("?", None, "?")
    among = "the likeliest" if most == "1" else f"among the {most} likeliest"
    words = f"{kind} words" if kind else "all words"
    name = f"{missing} missing, {words}, " + ("right" if most == "1" else f"among the first {most}")
    return Measure(row, name, 1, f"Share of the missing words that were {among}.", percent=True)


def _rank(row: str) -> Measure:
    way, _, score = row.partition("/")
    if score == "median_rank":
        return Measure(row, f"{WAYS[way]}, median rank", -1, "1 is best.", 1)
    most = score.partition("@")[2]
    return Measure(row, f"{WAYS[way]}, R@{most}", 1, f"How often its own is among the first {most}.", percent=True)


_MEASURES = {"answers": _answer, "captions": _caption, "boxes": _box, "words": _word, "ranks": _rank}
