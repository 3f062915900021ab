"""Whole pages of real runs: one file that loads nothing, with everything in it that was found."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tavq.core.errors import FileError, TavqError, UsageError
from tavq.report.page import write_comparison, write_report
from tavq.report.run import read_run, read_runs

Make = Callable[..., Path]


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
    assert linked == ["figures", "curves", "pictures", "progress", "codebook", "codes"]
    assert set(linked) <= {found.get("id") for found in page.of("h2")}


def test_every_card_shows_patches_words_and_phrases(runs: Any) -> None:
    words, phrases = ('<li class="of">words</li>', '<li class="of">phrases</li>')
    aligned, plain = (Page(write_report(run)).cards() for run in (runs.aligned, runs.plain))
    assert aligned
    assert all(card.count("<img") >= 2 for card in aligned + plain)
    assert all(words in card and phrases in card for card in aligned)
    # without an aligner only counting is left, and a code that every picture has as much of goes with no word
    assert all((words in card and phrases in card) or "Found with it: no unit" in card for card in plain)
    assert any(words in card for card in plain)


def test_parameters_are_counted_though_a_loaded_model_is_frozen(runs: Any) -> None:
    counted = json.loads((runs.plain / "provenance.json").read_text())["parameters"]
    text = Page(write_report(runs.plain)).text
    assert f"{sum(counted.values()):,}" in text
    assert f"encoder {counted['encoder']:,}" in text


def test_the_report_of_a_run_without_text_or_figures(runs: Any) -> None:
    page = Page(write_report(runs.other))
    check_self_contained(page)
    assert "This run was not evaluated yet" in page.text
    assert "Found with it" not in page.text
    assert "Nearest in" not in page.text
    assert page.cards()


def test_names_that_are_markup_stay_text(runs: Any) -> None:
    page = Page(write_report(runs.plain))  # the run is called "plain <run>", a picture <b>"&.png
    assert "run" not in {tag for tag, _ in page.tags}
    assert 'images/<b>"&.png' in {found.get("title") for found in page.of("figcaption")}
    assert 'images/<b>"&.png' in page.text
    assert len([tag for tag, found in page.tags if tag == "b" and not found]) == page.source.count("</b>")


def test_other_data_is_told_and_missing_data_leaves_the_rest(runs: Any, tmp_path: Path) -> None:
    page = Page(write_report(runs.other, data=runs.data))
    assert "come from other data than the run was trained on" in page.text
    with pytest.raises(UsageError, match="There is no folder"):
        write_report(runs.other, data=tmp_path / "nowhere")
    with pytest.raises(FileError, match="no text store"):
        write_report(runs.other, text=tmp_path)


def test_at_most_limit_pictures_are_read_held_out_ones_first(runs: Any) -> None:
    assert "on 3 pictures (2 test, 1 val)" in Page(write_report(runs.plain, limit=3)).text


# --- comparisons ----------------------------------------------------------------------------------------------------


def test_a_comparison_of_a_fair_pair(runs: Any, tmp_path: Path) -> None:
    page = Page(write_comparison([runs.plain, runs.aligned], tmp_path / "both.html"))
    check_self_contained(page)
    for word in ("plain <run>", "aligned", "model.align.name", "ta", "PSNR", "+2.50 dB"):
        assert word in page.text, word
    assert "aligned is ahead on 1 of 3 figures: PSNR 22.50 dB against 20.00 dB (+2.50 dB)." in page.text
    assert not page.of("p", "warning")
    assert len(page.cards()) == 16
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


def test_names_of_runs_are_told_apart(folder_run: Make, tmp_path: Path) -> None:
    one = folder_run()
    two = tmp_path / "second" / "run"
    two.parent.mkdir()
    one.rename(two)
    assert [run.name for run in read_runs([folder_run(), two])] == [f"{tmp_path.name}/run", "second/run"]
    with pytest.raises(UsageError, match="two or more"):
        read_runs([one])
    with pytest.raises(UsageError, match="named twice"):
        read_runs([one, one / "."])


# --- reading a run --------------------------------------------------------------------------------------------------


def test_a_run_is_read_as_it_was_logged(folder_run: Make) -> None:
    log = '{"step": 1, "loss": 2.0}\n{"alarm": "collapse", "step": 1}\n{"step": 2, "loss": null, "x": 1}\n'
    run = read_run(folder_run(log=log, config='{"step": 2, "seed": 5}', provenance='{"data": "d"}'))
    assert run.curve("loss") == ([1.0], [2.0])
    assert (len(run.lines), len(run.alarms), run.evaluation) == (2, 1, None)
    assert run.provenance == {"data": "d"}


def test_no_run_and_half_a_run(folder_run: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no run folder .*give the folder"):
        read_run(tmp_path / "nowhere")
    for missing, place in (("config", "model/config.json"), ("log", "log.jsonl")):
        folder = folder_run(**{missing: None})
        (folder / place).unlink(missing_ok=True)
        with pytest.raises(UsageError, match=f"not a finished run: it has no {re.escape(place)}"):
            read_run(folder)


@pytest.mark.parametrize("broken", ["{", "[1]", '{"psnr": NaN', "\0"])
def test_a_damaged_file_is_one_clear_error(folder_run: Make, broken: str) -> None:
    with pytest.raises(FileError, match=r"evaluation\.json") as caught:
        read_run(folder_run(evaluation=broken))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", ["{}", '{"size": "big"}'])
def test_a_model_that_does_not_say_its_size_is_refused(folder_run: Make, config: str) -> None:
    with pytest.raises(TavqError, match=r"config\.json"):
        _ = read_run(folder_run(config=config)).size


def test_figures_of_a_wrong_type_are_left_out(folder_run: Make) -> None:
    run = read_run(folder_run(evaluation='{"psnr": "high", "ssim": true, "usage": 0.5, "code_text_cosine": null}'))
    from tavq.report.measures import measures_of

    assert [measure.key for measure in measures_of([run.evaluation or {}])] == ["usage"]
