"""BLEU, ROUGE-L and CIDEr-D: by hand, and equal to coco-caption's."""

import json
import math
import random
from pathlib import Path

import pytest
import torch

from tavq.core.errors import DataError
from tavq.metrics.captions import Captioned, CaptionScores, bleu, bleu_counts, cider_d, cider_d_of_constants, rouge_l
from tavq.metrics.record import by_key

CASE = {
    "1": ("a man rides a brown horse", ["a man is riding a horse", "the man on a brown horse rides away"]),
    "2": ("two dogs dogs dogs play", ["two dogs play in the grass", "dogs are playing on grass today"]),
    "3": ("a red bus", ["a red double decker bus drives down the street", "the bus is red"]),
    "4": ("the the the the", ["the cat sat on the mat", "there is a cat on the mat"]),
    "5": ("sky", ["a kite flies in the blue sky", "kites"]),
    "6": (
        "a plate of food with rice and beans and meat on a table",
        ["a plate of rice", "a plate of food on a table"],
    ),
}
# What pycocoevalcap 1.2 gives for CASE, corpus and images.
CORPUS = {
    "BLEU-1": 0.7187499999775392,
    "BLEU-2": 0.5514404214784587,
    "BLEU-3": 0.38691238396603,
    "BLEU-4": 0.24528979326426348,
    "ROUGE-L": 0.5013828987689942,
    "CIDEr-D": 1.298498845974436,
}
IMAGES = {
    "BLEU-1": [0.99999999966667, 0.49123845165029, 0.71653131009610, 0.30326532970468, 0.99999999800000, 0.61538461537],
    "BLEU-4": [8.408964149e-05, 1.2242880331e-08, 3.3882673701e-06, 1.8325568e-12, 3.162277656e-05, 0.28917849329787],
    "ROUGE-L": [0.6666666666667, 0.5366568914956, 0.4586466165414, 0.3860759493671, 0.2202166064982, 0.7400346620451],
    "CIDEr-D": [2.6681821902149, 1.1789672236393, 1.7784057109952, 0.0840536965106, 0.3615775314473, 1.7198067230392],
}


def scored(case: dict[str, tuple[str, list[str]]]) -> CaptionScores:
    scores = CaptionScores()
    for key, (caption, references) in case.items():
        scores.add(key, caption, references)
    return scores


def test_scores_are_those_of_coco_caption() -> None:
    result = scored(CASE).compute()
    assert {metric.key: metric.value for metric in result["metrics"]} == pytest.approx(CORPUS, rel=1e-12)
    for name, values in IMAGES.items():
        assert [result["per_image"][key][name] for key in CASE] == pytest.approx(values, rel=1e-9), name
    assert (result["images"], result["references"], result["tokenizer"]) == (6, 12, "tavq-ptb-1")


def test_bleu_by_hand() -> None:
    """Six words against references of five and eight: 4 of 6 words match (one clipped), 2 of 5 pairs."""
    image = Captioned("the dog saw the dog run", ("the dog ran off today", "a dog that was seen to run off"))
    counts = bleu_counts(image)
    assert counts == [6, 5, 3, 1, 0, 0, 6, 5, 4, 3]
    found = bleu(torch.tensor([counts], dtype=torch.float64))[0]
    assert found[:2].tolist() == pytest.approx([3 / 6, math.sqrt(3 / 6 * 1 / 5)], rel=1e-8)  # longer: no penalty
    short = bleu(torch.tensor([[3, 6, 3, 2, 1, 0, 3, 2, 1, 0]], dtype=torch.float64))[0]
    assert short[:3].tolist() == pytest.approx([math.exp(1 - 6 / 3)] * 3, rel=1e-6)


def test_the_closest_reference_counts_and_the_shorter_of_two_equally_close() -> None:
    assert bleu_counts(Captioned("a b c d e", ("a", "a b c d e f", "a b c d e f g h")))[1] == 6
    assert bleu_counts(Captioned("a b c", ("a b c d", "a b")))[1] == 2


def test_rouge_by_hand() -> None:
    """The subsequence "the dog run" of 4 and 5 words; precision 3/4, recall 3/5."""
    precision, recall, beta = 3 / 4, 3 / 5, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert rouge_l(Captioned("the big dog run", ("the dog will run off",))) == pytest.approx(expected)
    assert rouge_l(Captioned("x", ("the dog",))) == 0


def test_cider_by_hand() -> None:
    """Two images; "a" is in both, so weighs nothing; the words of one weigh log 2."""
    images = {"1": Captioned("a red", ("a red red",)), "2": Captioned("a b", ("a b",))}
    # 1: words: (red: 1) against (red: 2): 1 * 2 / (1 * 2) = 1; pairs: (a red) against (a red), (red red): 1 / sqrt(2)
    first = 10 * (1 + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72)
    assert cider_d(images) == pytest.approx([first, 10 * 2 / 4])
    # a word repeated in the caption is clipped to what the reference has: (red: 3) against (red: 1)
    clipped = {"1": Captioned("red red red", ("red",)), "2": Captioned("a b", ("a b",))}
    assert cider_d(clipped)[0] == pytest.approx(10 * (1 / 3) / 4 * math.exp(-4 / 72))


def test_word_weights_come_from_references_not_captions() -> None:
    same = {"1": Captioned("dog", ("dog runs",)), "2": Captioned("dog", ("cat sits",)), "3": Captioned("x", ("y z",))}
    other = {**same, "2": Captioned("cow", ("cat sits",))}
    assert cider_d(same)[0] == cider_d(other)[0]


def test_the_cider_of_a_single_image_is_zero() -> None:
    found = by_key(scored({"1": CASE["1"]}).compute()["metrics"])["CIDEr-D"]
    assert (found.value, found.interval) == (0.0, None)


def test_punctuation_alone_scores_nothing_and_is_counted() -> None:
    result = scored({"1": CASE["1"], "2": ("...", ["a dog"])}).compute()
    assert result["captions_without_words"] == 1
    assert max(result["per_image"]["2"].values()) < 1e-9


def test_the_order_of_images_and_references_changes_nothing() -> None:
    shuffled = {key: (caption, references[::-1]) for key, (caption, references) in reversed(CASE.items())}
    forth, back = (by_key(scored(case).compute()["metrics"]) for case in (CASE, shuffled))
    assert forth.keys() == back.keys()
    for name, metric in forth.items():
        assert back[name].value == pytest.approx(metric.value, rel=1e-14)
        assert back[name].interval == pytest.approx(metric.interval, rel=1e-12)


def test_intervals_of_bleu_are_over_corpora_not_means() -> None:
    result = by_key(scored(CASE).compute()["metrics"])
    for metric in result.values():
        low, high = metric.interval
        assert low < metric.value < high
    low, high = result["BLEU-4"].interval
    assert high > 0.28917849329787  # the mean of six images, five of them near 0, never comes so high


def test_invalid_input_is_refused() -> None:
    scores = CaptionScores()
    with pytest.raises(DataError, match="No captions were given to score"):
        scores.compute()
    with pytest.raises(DataError, match="'1' has no reference caption"):
        scores.add("1", "a dog", [])
    scores.add("1", "a dog", ["a cat"])
    scores.add("1", "a dog", ["a cat"])  # a sampler that repeats an image
    with pytest.raises(DataError, match="'1' came twice with different contents"):
        scores.add("1", "a cow", ["a cat"])


def test_random_captions_against_the_tool_itself() -> None:
    """The Python parts of pycocoevalcap need no Java."""
    official = pytest.importorskip("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    draw = random.Random(0)
    words = [f"w{i}" for i in range(12)]

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randint(1, 14)))

    for _ in range(20):
        case = {str(i): (text(), [text() for _ in range(draw.randint(1, 5))]) for i in range(draw.randint(2, 30))}
        case = dict(sorted(case.items()))
        result = scored(case).compute()
        truths, given = ({key: pair[1] for key, pair in case.items()}, {key: [pair[0]] for key, pair in case.items()})
        corpus, images = official.Bleu(4).compute_score(truths, given, 0)
        expected = {f"BLEU-{n + 1}": (corpus[n], images[n]) for n in range(4)}
        expected |= {"ROUGE-L": Rouge().compute_score(truths, given), "CIDEr-D": Cider().compute_score(truths, given)}
        for name, (value, each) in expected.items():
            assert by_key(result["metrics"])[name].value == pytest.approx(float(value), abs=1e-12)
            assert [result["per_image"][key][name] for key in case] == pytest.approx(list(each), abs=1e-12)


@pytest.mark.real_data
def test_the_reference_case_of_coco_caption(real_data: Path) -> None:
    case = json.loads((real_data / "caption_scores/fakecap_val2017_overlap.json").read_text())
    keys = [str(number) for number in case["image_ids"]]
    result = scored({key: (case["hypotheses"][key], case["references"][key]) for key in keys}).compute()
    names = {f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)} | {"ROUGE_L": "ROUGE-L", "CIDEr": "CIDEr-D"}
    for theirs, ours in names.items():
        assert by_key(result["metrics"])[ours].value == pytest.approx(case["scores"][theirs], abs=1e-9)
        each = [result["per_image"][key][ours] for key in keys]
        assert each == pytest.approx(case["per_image"][theirs], abs=1e-9)


def test_scores_of_constant_captions_are_those_of_a_caption_for_every_image() -> None:
    said = [caption for caption, _ in CASE.values()]
    expected = []
    for caption in said:
        each = cider_d({key: Captioned(caption, tuple(texts)) for key, (_, texts) in CASE.items()})
        expected.append(math.fsum(each) / len(each))
    assert cider_d_of_constants(said, [texts for _, texts in CASE.values()]) == expected
    assert len(set(expected)) == len(expected)
