"""The keys of single captions, for text sources that keep the captions of an image apart."""


def caption_key(key: str, number: int) -> str:
    """The key of caption `number`, from 0, of the image `key`.

    The first has the image's own key, so that a look-up of the image finds it. Names of images hold no line break.
    """
    return key if number == 0 else f"{key}\n{number}"


def image_key(key: str) -> str:
    """The key of the image that a caption belongs to."""
    return key.partition("\n")[0]


def describe_key(key: str) -> str:
    """A key for messages: `a.png`, or `a.png, caption 2`."""
    name, _, number = key.partition("\n")
    return f"{name}, caption {int(number) + 1}" if number else name
