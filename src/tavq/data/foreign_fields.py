"""The fields of another project's record, and the line of metadata that they make."""

from collections.abc import Mapping, Sequence
from typing import Any

from tavq.data.characters import replace_unprintable


def find_captions(fields: Mapping[str, Any]) -> list[Any]:
    """The captions of another project's record, under any of their usual names; they may still be anything but text.

    In a list, `{"raw": "A dog."}` counts as its text, as in Karpathy's files.
    """
    for name in ("captions", "caption", "sentences", "text"):
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return [value]
        if isinstance(value, list) and value:
            return [each.get("raw") if isinstance(each, dict) else each for each in value]
    return []


def make_line(
    name: str, split: str, fields: Mapping[str, Any], lines: Sequence[str] = (), segmentation: str = ""
) -> dict[str, Any]:
    """The line of metadata with what `read_record` reads of another project's fields; it may still hold anything.

    Args:
        name: the path of the image.
        split: of the image.
        fields: long_text, objects, questions and captions are used.
        lines: the captions if the fields have no text.
        segmentation: its path, or "".
    """
    line: dict[str, Any] = {"file_name": name, "split": split}
    line |= {field: fields[field] for field in ("long_text", "objects", "questions") if fields.get(field)}
    if "long_text" in line:
        line["long_text"] = replace_unprintable(line["long_text"])
    captions = find_captions(fields) or ([] if "long_text" in line else list(lines))
    captions = [replace_unprintable(caption) for caption in captions]
    line |= {"captions": captions} if captions else {}
    return line | ({"segmentation": segmentation} if segmentation else {})
