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
    rows = _look(model, image)
    for word in model.task.words.strange("question", question):
        console.say(f"The model does not know the word {word!r}.")
    [answers] = model.task.answer(rows, [question])
    shown = [{"answer": answer, "probability": share} for answer, share in answers[:count]]
    console.table(f"{question}", ["answer", "probability"], [[row["answer"], row["probability"]] for row in shown])
    console.write_json(json, {"image": str(image), "question": question, "answers": shown})


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
