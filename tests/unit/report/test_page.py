"""Whole pages of real runs: one file that loads nothing, with everything in it that was found."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core.errors import FileError, UsageError
from tavq.inspection.entries import NearbyUnit
from tavq.metrics.association import AssociatedUnit
from tavq.report.page import write_comparison, write_report
from tavq.report.tokenizer import gallery
from tavq.report.tokenizer.code_cards import CodeCard, Patch


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def of(self, name: str, class_: str | None = None) -> list[dict[str, str | None]]:
        return [found for tag, found in self.tags if tag == name and class_ in (None, found.get("class"))]

    def cards(self) -> list[str]:
        return self.source.split("<article")[1:]


def check_self_contained(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith("data:image/" if tag == "img" else "#"), (tag, value)
    assert "url(" not in page.source
    assert "@import" not in page.source
    policies = [found for found in page.of("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")


def test_the_report_of_an_aligned_run(runs: Any) -> None:
    listened: list[tuple[int, int | None]] = []

    class Listener:
        def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
            listened.append((done, total))

    path = write_report(runs.aligned, progress=Listener())
    assert path == runs.aligned / "report.html"
    page = Page(path)
    check_self_contained(page)
    for word in ("aligned", "PSNR", "22.50 dB", "wall", "floor", "Nearest in the aligned space", "learned", "step 3"):
        assert word in page.text, word
    assert "0.2500" in page.text  # own text minus others'
    assert listened[-1] == (20, 20)
    linked = [(found["href"] or "")[1:] for found in page.of("a")]
    assert linked == ["metrics", "curves", "speed", "images", "progress", "codebook", "codes", "words"]
    assert set(linked) <= {found.get("id") for found in page.of("h2")}


def test_a_page_shows_the_codes_that_words_find(runs: Any) -> None:
    page = Page(write_report(runs.aligned))
    assert "Codes that a word finds" in page.text
    assert "level “low”" in page.text
    cells = re.findall(r'<span class="found">.*?</span>', (runs.aligned / "report.html").read_text())
    assert len(cells) >= 5
    assert all("<img" in cell and "×" in cell for cell in cells)
    assert "Codes that a word finds" not in Page(write_report(runs.plain)).text
    both = Page(write_comparison([runs.plain, runs.aligned], runs.plain.parent / "words.html")).text
    assert both.count("Codes that a word finds") == 1


def test_every_card_shows_patches_words_and_phrases(runs: Any) -> None:
    words, phrases = ('<li class="of">words</li>', '<li class="of">phrases</li>')
    aligned, plain = (Page(write_report(run)).cards() for run in (runs.aligned, runs.plain))
    assert aligned
    assert all(card.count("<img") >= 2 for card in aligned + plain)
    assert all(words in card and phrases in card for card in aligned)
    # without an aligner only co-occurrence is left; a code that is equally frequent in all images has no unit
    assert all((words in card and phrases in card) or "Co-occurs with no unit" in card for card in plain)
    assert any(words in card for card in plain)


def test_parameters_are_counted_though_a_loaded_model_is_frozen(runs: Any) -> None:
    counted = json.loads((runs.plain / "provenance.json").read_text())["parameters"]
    text = Page(write_report(runs.plain)).text
    assert f"{sum(counted.values()):,}" in text
    assert f"encoder {counted['encoder']:,}" in text


def test_the_report_of_a_run_without_text_or_metrics(runs: Any) -> None:
    page = Page(write_report(runs.other))
    check_self_contained(page)
    assert "This run has not been evaluated yet" in page.text
    assert "Co-occurs with" not in page.text
    assert "Nearest in" not in page.text
    assert page.cards()


def test_names_that_are_markup_stay_text(runs: Any) -> None:
    page = Page(write_report(runs.plain))  # the run is called "plain <run>", an image <b>"&.png
    assert "run" not in {tag for tag, _ in page.tags}
    assert 'images/<b>"&.png' in {found.get("title") for found in page.of("figcaption")}
    assert 'images/<b>"&.png' in page.text
    assert len([tag for tag, found in page.tags if tag == "b" and not found]) == page.source.count("</b>")


def test_other_data_is_reported_and_missing_data_is_refused(runs: Any, tmp_path: Path) -> None:
    page = Page(write_report(runs.other, data=runs.data))
    assert "come from a different data set than the run was trained on" in page.text
    with pytest.raises(UsageError, match="nowhere does not exist"):
        write_report(runs.other, data=tmp_path / "nowhere")
    with pytest.raises(FileError, match="is not a text store"):
        write_report(runs.other, text=tmp_path)


def test_a_run_whose_data_is_gone_has_curves_and_says_how_to_see_more(runs: Any, tmp_path: Path) -> None:
    run = shutil.copytree(runs.plain, tmp_path / "run")
    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps({**provenance, "data_folder": str(tmp_path / "gone")}))
    page = Page(write_report(run))
    assert "give it with --data" in page.text
    assert "What the codes mean" not in page.text
    assert page.of("polyline")


@pytest.mark.parametrize("sha256", ["own", "none", "wrong"])
def test_images_of_a_folder_that_a_run_only_names_are_not_shown(runs: Any, tmp_path: Path, sha256: str) -> None:
    run = shutil.copytree(runs.plain, tmp_path / "run")
    shutil.rmtree(run / "samples")
    provenance = json.loads((run / "provenance.json").read_text()) | {"data_folder": str(runs.other_data)}
    if sha256 == "none":
        del provenance["data_sha256"]
    elif sha256 == "wrong":
        provenance["data_sha256"] = "0" * 64
    (run / "provenance.json").write_text(json.dumps(provenance))
    for page in (Page(write_report(run)), Page(write_comparison([run, runs.plain], tmp_path / "page.html"))):
        assert "data:image" not in page.source
        assert "give it with --data" in page.text
    assert "data:image" in Page(write_report(run, data=runs.other_data)).source


@pytest.mark.parametrize("link", ["file", "folder"])
def test_images_that_a_run_links_to_are_not_shown(runs: Any, tmp_path: Path, link: str) -> None:
    run = shutil.copytree(runs.plain, tmp_path / "run")
    (run / "provenance.json").unlink()
    private = Path(shutil.move(run / "samples", tmp_path / "private"))
    if link == "folder":
        (run / "samples").symlink_to(private)
    else:
        (run / "samples").mkdir()
        for path in private.iterdir():
            (run / "samples" / path.name).symlink_to(path)
    assert list(private.iterdir())
    assert "data:image" not in Page(write_report(run)).source


def test_says_whether_training_saw_the_images(runs: Any, tmp_path: Path) -> None:
    assert "Held-out images, evenly spaced over" in Page(write_report(runs.plain)).text
    data = shutil.copytree(runs.data, tmp_path / "data")
    lines = [line for line in (data / "metadata.jsonl").read_text().splitlines() if '"train"' in line]
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    assert "Images of the training split" in Page(write_report(runs.plain, data=data)).text


def test_hostile_units_and_keys_stay_text() -> None:
    script = "</li><script>alert(1)</script>\"'"
    tile = np.zeros((2, 2, 3), np.uint8)
    found = {"words": [AssociatedUnit(script, 2.0, 5)], "phrases": [], "sentences": []}
    page = gallery.render_card(
        CodeCard(1, script, 2, 0.5, tile, (Patch(script, tile),), found, {"sentences": [NearbyUnit(script, 0.5)]})
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 7  # the word, text and title of both units, alt and title of the patch


def test_at_most_limit_images_are_read_held_out_ones_first(runs: Any) -> None:
    assert "on 3 images (2 test, 1 val)" in Page(write_report(runs.plain, limit=3)).text


# --- comparisons ----------------------------------------------------------------------------------------------------


def test_a_comparison_of_a_fair_pair(runs: Any, tmp_path: Path) -> None:
    page = Page(write_comparison([runs.plain, runs.aligned], tmp_path / "both.html"))
    check_self_contained(page)
    for word in ("plain <run>", "aligned", "model.align.name", "ta", "PSNR", "+2.50 dB"):
        assert word in page.text, word
    assert "aligned is ahead on 1 of 3 metrics: PSNR 22.50 dB vs 20.00 dB (+2.50 dB)." in page.text
    assert not page.of("p", "warning")
    assert len(page.cards()) == 16
    [row] = re.findall(r"<tr><th[^>]*>PSNR ↑</th>(.*?)</tr>", page.source)
    cells = re.findall(r'<td class="([^"]*)">([^<]*)</td>', row)
    assert cells == [("number", "20.00 dB"), ("number best", "22.50 dB"), ("number", "+2.50 dB")]
    assert len(page.of("td", "number best")) == 1


def test_runs_that_differ_in_more_than_the_method_are_warned_of(runs: Any, tmp_path: Path) -> None:
    page = Page(write_comparison([runs.aligned, runs.other], tmp_path / "both.html"))
    for warning in (
        "were trained on different data",
        "have different seeds (aligned: 0, other: 1)",
        "were trained for different numbers of steps (aligned: 3, other: 2)",
        "Not evaluated yet: other",
    ):
        assert warning in page.text
    assert "is ahead" not in page.text


def test_a_comparison_shows_warnings_of_evaluations_once(runs: Any, tmp_path: Path) -> None:
    copies = [shutil.copytree(run, tmp_path / str(n)) for n, run in enumerate((runs.plain, runs.aligned))]
    for run in copies:
        evaluation = json.loads((run / "evaluation.json").read_text())
        evaluation["metrics"]["psnr"]["warning"] = "too few"
        (run / "evaluation.json").write_text(json.dumps(evaluation))
    page = Page(write_comparison(copies, tmp_path / "both.html"))
    assert page.text.count("too few") == 1
