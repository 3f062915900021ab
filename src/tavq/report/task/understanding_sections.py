"""The part of a page that shows what an understanding task answers."""

from tavq.report.html.images import img
from tavq.report.html.markup import Markup, tag
from tavq.report.task.understanding_view import UnderstandingView
from tavq.report.tokenizer.gallery import describe_choice
from tavq.report.tokenizer.sections import note, section
from tavq.tasks.samples import Answer, AnsweredImage


def render_answers(view: UnderstandingView) -> Markup | None:
    """Images, what the task answered about each, and what is true."""
    if not view.answered:
        return None
    about = f"{describe_choice(view.split)}, not picked by hand."
    return section("answers", "Answers", note(about), tag("div", *map(_render_card, view.answered), class_="rows"))


def _render_card(answered: AnsweredImage) -> Markup:
    columns = [
        tag("figure", img(image, name or answered.key), *([tag("figcaption", name)] if name else []))
        for name, image in answered.images
    ]
    lines = tag("ul", *map(_render_line, answered.answers), class_="answers")
    widths = {image.shape[1] for _, image in answered.images}
    wide = " wide" if len(columns) > 1 else ""
    uneven = " uneven" if len(widths) > 1 else ""
    return tag("div", tag("div", *columns, class_="row"), lines, class_=f"answered{wide}{uneven}")


def _render_line(answer: Answer) -> Markup:
    mark = None
    if answer.correct is not None:
        sign, class_ = ("✓ ", "right") if answer.correct else ("✗ ", "wrong")
        mark = tag("span", sign, class_=class_)
    truth = tag("span", f"true: {answer.truth}", class_="true") if answer.truth and not answer.correct else None
    question = tag("span", answer.question, class_="question") if answer.question else None
    return tag("li", question, tag("b", mark, answer.answer), truth)
