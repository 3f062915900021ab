"""The pages: what they show of real runs, and that they load nothing and trust no text."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core.errors import TavqError, UsageError
from tavq.report import gallery
from tavq.report.association import Associated
from tavq.report.meaning import CodeCard, Near, Patch
from tavq.report.page import write_comparison, write_report
from tavq.report.sections import shown


def text_of(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page)


@pytest.fixture(scope="module")
def aligned_page(runs: Any) -> str:
    return write_report(runs.aligned).read_text()


def test_loads_nothing_and_says_so(aligned_page: str) -> None:
    assert "Content-Security-Policy" in aligned_page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", aligned_page)
    assert aligned_page.count("data:image/") > 10


def test_names_are_never_markup(runs: Any) -> None:
    page = write_report(runs.plain).read_text()
    assert "plain &lt;run&gt;" in page
    assert "<run>" not in page
    assert "<b>&quot;" not in page


def test_tells_sizes_and_settings_as_they_are(aligned_page: str) -> None:
    words = text_of(aligned_page)
    counts = [int(found.replace(",", "")) for found in re.findall(r"(?:encoder|decoder|aligner) ([\d,]+)", words)]
    assert len(counts) >= 3
    assert min(counts) > 100
    assert re.search(r"train\.seed\s+0\b", words)
    assert re.search(r"model\.net\.blocks\s+1\b", words)
    assert re.search(r"train\.l2\s+0\.0\b", words)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1, "1"),
        (0.0, "0.0"),
        ({}, "{}"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_setting_is_shown_as_written(value: object, text: str) -> None:
    assert shown(value) == text


def test_codes_have_words_phrases_and_patches(aligned_page: str) -> None:
    words = text_of(aligned_page)
    assert "What the codes mean" in words
    assert re.search(r"\b(red|blue)\b", words)
    assert "wall" in words
    assert "code-text cosine" in words.lower()


def test_a_run_without_text_has_a_page_too(runs: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.plain, run)
    page = write_report(run, text=None).read_text()
    assert "What the codes mean" in text_of(page)


def test_a_comparison_names_both_and_warns_of_other_data(runs: Any, tmp_path: Path) -> None:
    fair = write_comparison([runs.plain, runs.aligned], tmp_path / "fair.html").read_text()
    unfair = write_comparison([runs.plain, runs.other], tmp_path / "unfair.html").read_text()
    assert "plain &lt;run&gt;" in fair
    assert "aligned" in fair
    assert "22.5" in fair
    assert 'class="warning"' not in fair
    warning = " ".join(re.findall(r'class="warning"[^>]*>(.*?)</', unfair, re.S)).lower()
    assert "seed" in warning
    assert "data" in warning
    assert "steps" in warning
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", fair)


def test_a_comparison_marks_the_better_and_subtracts_the_first(runs: Any, tmp_path: Path) -> None:
    page = write_comparison([runs.plain, runs.aligned], tmp_path / "a.html").read_text()
    [row] = re.findall(r"<tr><th[^>]*>PSNR ↑</th>(.*?)</tr>", page)
    assert re.findall(r'<td class="([^"]*)">([^<]*)</td>', row) == [
        ("number", "20.00 dB"),
        ("number best", "22.50 dB"),
        ("number", "+2.50 dB"),
    ]
    assert "aligned is ahead on 1 of" in text_of(page)
    assert "Each run is one seed" in text_of(page)


def test_says_whether_training_saw_the_pictures(aligned_page: str) -> None:
    assert "that training never saw" in aligned_page
    assert "of the training split" not in aligned_page


def test_hostile_units_and_keys_stay_text() -> None:
    script = "</li><script>alert(1)</script>\"'"
    tile = np.zeros((2, 2, 3), np.uint8)
    found = {"words": [Associated(script, 2.0, 5)], "phrases": [], "sentences": []}
    near = {"sentences": [Near(script, 0.5)]}
    page = gallery.code_card(CodeCard(1, 2, 0.5, tile, (Patch(script, tile),), found, near))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6  # text and title of both units, alt and title of the patch


def test_a_run_whose_data_is_gone_has_curves_and_says_how_to_see_more(runs: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.plain, run)
    told = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps({**told, "data_folder": str(tmp_path / "gone")}))
    page = write_report(run).read_text()
    assert "give it with --data" in page
    assert "What the codes mean" not in page
    assert "<polyline" in page
    with pytest.raises(UsageError, match="There is no folder"):
        write_report(run, data=tmp_path / "gone")


def test_other_data_than_trained_on_is_told(runs: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.plain, run)
    other = tmp_path / "other"
    shutil.copytree(runs.data, other)
    lines = (other / "metadata.jsonl").read_text()
    (other / "metadata.jsonl").write_text(lines.replace("floor", "ceiling"))
    assert "other data than the run was trained on" in write_report(run, data=other).read_text()
    assert "other data than the run was trained on" not in write_report(run).read_text()


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TavqError) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
