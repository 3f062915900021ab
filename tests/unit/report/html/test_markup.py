"""Foreign text never becomes markup, in no place of a page."""

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from tavq.report.html.markup import Markup, document, render, tag

SCRIPT = "\"'><script>alert(1)</script>&"


class Reader(HTMLParser):
    """What a browser would see: the tags, their attributes and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_children_and_attributes_are_escaped() -> None:
    found = seen(tag("p", SCRIPT, [SCRIPT, None], title=SCRIPT, class_="a", data_x=1, id=None))
    assert found.tags == ["p"]
    assert found.attributes == [{"title": SCRIPT, "class": "a", "data-x": "1"}]
    assert "".join(found.text) == SCRIPT * 2


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_as_text(text: str) -> None:
    found = seen(tag("p", tag("b", text), title=text))
    assert found.tags == ["p", "b"]
    assert ("".join(found.text), found.attributes[0]["title"]) == (text, text)


def test_markup_is_written_as_it_is_and_void_tags_stay_open() -> None:
    assert render(Markup("<b>x</b>")) == "<b>x</b>"
    assert tag("p", tag("img", alt="a")) == '<p><img alt="a"></p>'
    assert render(None) == ""
    assert render([1, "a<"]) == "1a&lt;"


def test_a_string_made_of_markup_is_no_markup() -> None:
    assert render(f"{Markup('<b>')}") == "&lt;b&gt;"


def test_a_document_has_a_policy_that_names_its_style() -> None:
    page = document(SCRIPT, "p { color: red; }", tag("p", SCRIPT))
    found = seen(page)
    assert "script" not in found.tags
    [policy] = [a["content"] or "" for a in found.attributes if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy
    # the digest is what `printf 'p { color: red; }' | openssl dgst -sha256 -binary | base64` prints
    assert "sha256-pckGv9YvNcB5xy+Y4fbqhyo+ib850wyiuWeNbZvLi00=" in policy
