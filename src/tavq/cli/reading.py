"""`tavq ask` and its like: what a trained task says of a picture."""

from pathlib import Path
from typing import Any

from cyclopts import App

from tavq.cli import console
from tavq.cli.console import Count

SHOWN = 5


def add_to(app: App) -> None:
    """Adds the commands."""
    app.command(ask)
    app.command(ground)
    app.command(fill)


def ask(run: str, image: Path, question: str, /, *, count: Count = SHOWN, json: Path | None = None) -> None:
    """Answers a question about a picture.

    Example: tavq ask answerer scenes/images/000005.png "what is the color of the barn"

    Args:
        run: A model of the task vqa: its model folder, run folder or hub name.
        image: The picture; its centre square is read.
        question: In the words of the training questions.
        count: How many answers to show, the likeliest first.
        json: Write them to this file too.
    """
    model = _loaded(run, "ask")
    _tell_strange(model.task.words.strange("question", question))
    [answers] = model.task.answer(_look(model, image), [question])
    shown = [{"answer": answer, "probability": share} for answer, share in answers[:count]]
    console.table(f"{question}", ["answer", "probability"], [[row["answer"], row["probability"]] for row in shown])
    console.write_json(json, {"image": str(image), "question": question, "answers": shown})


def ground(run: str, image: Path, phrase: str, /, *, out: Path | None = None, json: Path | None = None) -> None:
    """Finds what a phrase speaks of in a picture: its box, and where in the picture the phrase looks.

    Example: tavq ground finder scenes/images/000005.png "the red barn" --out found.png

    Args:
        run: A model of the task grounding: its model folder, run folder or hub name.
        image: The picture; its centre square is read.
        phrase: In the words of the training phrases.
        out: The picture to write, with the box and, beside it, the heat map; by default RUN/grounded.png.
        json: Write the box in pixels of the picture, and the heat map, to this file too.
    """
    from tavq.cli.tasks import beside
    from tavq.data.boxes import in_picture
    from tavq.data.pictures import load_picture, save_png
    from tavq.report.grounded import grounded_picture

    model = _loaded(run, "ground")
    place = out or beside(run, "grounded.png")
    _tell_strange(model.task.phrases.strange(phrase))
    [found] = model.task.ground(_look(model, image), [phrase])
    picture = load_picture(image)
    box = in_picture(found.box, *picture.shape[:2])
    heat = None if found.heat is None else found.heat.cpu().numpy()
    save_png(place, grounded_picture(picture, box, heat))
    console.table(phrase, ["left", "top", "width", "height"], [[round(edge, 1) for edge in box]])
    console.say(f"The box and where the phrase looks are in {place}.")
    shares = None if heat is None else heat.tolist()
    console.write_json(json, {"image": str(image), "phrase": phrase, "box": list(box), "heat": shares})


def fill(run: str, image: Path, caption: str, /, *, count: Count = SHOWN, json: Path | None = None) -> None:
    """Says which words are missing in a caption of a picture; ___ stands for each.

    Example: tavq fill filler scenes/images/000005.png "a ___ barn beside a lake"

    Args:
        run: A model of the task masked-words: its model folder, run folder or hub name.
        image: The picture; its centre square is read.
        caption: In the words of the training captions, with ___ in place of the missing ones.
        count: How many words to show for each, the likeliest first.
        json: Write them to this file too.
    """
    model = _loaded(run, "fill")
    _tell_strange(model.task.strange(caption))
    [gaps] = model.task.fill(_look(model, image), [caption])
    shown = [[{"word": word, "probability": share} for word, share in words[:count]] for words in gaps]
    rows = [[gap, row["word"], row["probability"]] for gap, words in enumerate(shown, 1) for row in words]
    console.table(caption, ["gap", "word", "probability"], rows)
    console.write_json(json, {"image": str(image), "caption": caption, "gaps": shown})


def _tell_strange(words: list[str]) -> None:
    for word in words:
        console.say(f"The model does not know the word {word!r}.")


def _loaded(run: str, command: str) -> Any:
    from tavq.core.devices import default_device
    from tavq.tasks.folder import load_task

    return load_task(run, command).to(default_device())


def _look(model: Any, image: Path) -> Any:
    """What the task sees of one picture."""
    from tavq.core.devices import default_device
    from tavq.data.pictures import load_picture
    from tavq.data.transforms import prepare, to_float
    from tavq.tasks.reading import look

    square = to_float(prepare(load_picture(image), int(model.facts["size"])))[None].to(default_device())
    return look(model.tokenizer, model.config.layout, model.config.task.picture, square)
