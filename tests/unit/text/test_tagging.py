"""The contextual rules as lookup tables, compared with TextBlob's own loop over them."""

import json
from pathlib import Path

from textblob.en import lexicon

from tavq.text.splitters.pattern import sentence_spans
from tavq.text.tagging import compile_rules, load_tagger

TEXTS = [row[0] for row in json.loads((Path(__file__).parent / "labelled_captions.json").read_text("utf-8"))]


def test_contextual_tags_equal_textblobs() -> None:
    tagger = load_tagger()
    changed = 0
    for text in TEXTS:
        for spans in sentence_spans(text):
            words = [text[start:end] for start, end in spans]
            before = [tagger.tag_word(word) for word in words]
            expected = [tag for _, tag in lexicon.context.apply([[*pair] for pair in zip(words, before, strict=True)])]
            assert tagger.apply_rules(words, before) == expected
            changed += expected != before
    assert changed > 5  # the rules do something on these texts


def test_every_kind_of_rule_of_the_lexicon_is_known() -> None:
    assert len(lexicon.context) > 200
    looked_up = [rules.all for rules in compile_rules(lexicon.context).values()]
    tables = [table for single, double in looked_up for *_, table in (*single, *double)]
    assert len({position for table in tables for position, _ in table.values()}) > 0.9 * len(lexicon.context)


def test_the_last_rule_that_matches_the_old_tag_wins() -> None:
    rules = [["NN", "VB", "PREVTAG", "TO"], ["NN", "JJ", "NEXTTAG", "NN"], ["VB", "RB", "CURWD", "x"]]
    tagger = load_tagger()
    tagger_rules, tagger.rules = tagger.rules, compile_rules(rules)
    try:
        assert tagger.apply_rules(["to", "x", "y"], ["TO", "NN", "NN"]) == ["TO", "JJ", "NN"]
        assert tagger.apply_rules(["to", "x", "."], ["TO", "NN", "."]) == ["TO", "VB", "."]
    finally:
        tagger.rules = tagger_rules


def test_unknown_words() -> None:
    tagger = load_tagger()
    assert tagger.tag_word("zorblatt") == "NN"
    assert tagger.tag_word("Zorblatt") == "NNP"
    assert tagger.tag_word("10:30") == "CD"
    assert tagger.tag_word("purple-spotted") == "JJ"
    assert tagger.tag_word("Young", first=True) == "JJ"  # a family name elsewhere
