"""TextBlob's own splits, if its corpora are installed, and the error if they are not."""

from pathlib import Path

import nltk
import pytest

from tavq.core.errors import UsageError
from tavq.text.granularity import split
from tavq.text.splitters.corpora import CorporaSplitter


def test_missing_corpora_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "brown").mkdir()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(UsageError, match="is not installed: punkt_tab, averaged_perceptron_tagger_eng ") as caught:
        CorporaSplitter().split("A red car.")
    assert "python -m textblob.download_corpora" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # NLTK's corpus readers
def test_textblob_with_its_corpora(corpora: None) -> None:
    units = split("A young man in a red shirt rides two horses. It isn't an image of 3 dogs!", "corpora")
    assert units.sentences == ("A young man in a red shirt rides two horses.", "It isn't an image of 3 dogs!")
    assert {"young man", "red shirt"} <= {*units.phrases}
    assert {"young", "man", "red", "shirt", "two", "horses", "3", "dogs"} <= {*units.words}
    assert not {"image", "a", "it", "in"} & {*units.words}
    for hostile in ("", "\0", "😀", "\ud800 a", "(" * 1000, "a." * 5000):
        split(hostile, "corpora")
