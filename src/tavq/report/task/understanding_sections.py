"""The part of a page that shows what a task says of images."""

from tavq.report.html.images import img
from tavq.report.html.markup import Markup, tag
from tavq.report.task.understanding_view import Answer, Read, ReadingView
from tavq.report.tokenizer.sections import note, section


def said(view: ReadingView) -> Markup | None:
    """Images, what the task said of each, and what is true."""
    if not view.read:
        return None
    held = "that training never saw" if view.split != "train" else "of the training split (there is no other)"
    about = f"Images {held}, evenly spread over the split “{view.split}” and not picked by hand."
    return section("said", "What it says", note(about), tag("div", *map(_card, view.read), class_="rows"))


def _card(read: Read) -> Markup:
    columns = [
        tag("figure", img(image, name or read.key), *([tag("figcaption", name)] if name else []))
        for name, image in read.images
    ]
    lines = tag("ul", *map(_line, read.told), class_="told")
    widths = [image.shape[1] for _, image in read.images]
    kind = "reading" + (" wide" if len(columns) > 1 else "") + (" looks" if len(set(widths)) > 1 else "")
    return tag("div", tag("div", *columns, class_="row"), lines, class_=kind)


def _line(told: Answer) -> Markup:
    mark = (
        None
        if told.right is None
        else tag("span", "✓ " if told.right else "✗ ", class_="right" if told.right else "wrong")
    )
    true = tag("span", f"true: {told.true}", class_="true") if told.true and not told.right else None
    asked = tag("span", told.asked, class_="asked") if told.asked else None
    return tag("li", asked, tag("b", mark, told.said), true)
