"""`tavq import-checkpoint`, `export` and `push`: tokenizers of other projects, both ways, and the hub."""

from pathlib import Path
from typing import Any, Literal

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Seed, Workers
from tavq.cli.devices import with_device
from tavq.core.errors import UsageError


def import_checkpoint(
    kind: str,
    source: Path,
    /,
    *,
    out: Path,
    size: Count | None = None,
    licence: str | None = None,
    origin: str | None = None,
    file: str | None = None,
) -> None:
    """Import another project's tokenizer as a model folder, which every other command takes.

    Nothing in the file is run: only safetensors, and checkpoints of tensors alone, are read.

    Example: tavq import-checkpoint llamagen vq_ds16_c2i.pt --out vq16 --size 256 --licence MIT

    Args:
        kind: taming, ibq, llamagen, janus, chameleon, maskgit, open-magvit2 or diffusers; auto recognises all but ibq
            by their tensors.
        source: A file of weights (safetensors, or torch's), the folder of a diffusers VQModel, or a name on the
            Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION. There HF_TOKEN opens private repositories, and
            HF_HUB_OFFLINE=1 reads the cache alone.
        out: The model folder to write; new or empty.
        size: Side of the images that it was trained on, which other commands then use by default.
        licence: Of the weights, for the model card.
        origin: Where the weights come from, such as a URL, for the model card; by default the name of the file, or the
            commit on the hub.
        file: The file of weights in a repository of the hub; by default the one of a usual name.
    """
    folder = api.import_checkpoint(kind, source, out=out, size=size, licence=licence, origin=origin, file=file)
    console.say(f"The tokenizer is in {folder}; its README.md says what it is and how to train it further.")


@with_device
def export(
    model: str,
    /,
    *,
    to: str,
    out: Path,
    data: Path | None = None,
    split: str | None = None,
    size: Count | None = None,
    tokens: Path | None = None,
    form: Literal["text", "ids"] | None = None,
    order: Literal["image-text", "text-image", "both"] | None = None,
    row_tokens: bool | None = None,
    shard_size: Count | None = None,
    resume: bool = False,
    workers: Workers | None = None,
    language_model: str | None = None,
    text: Path | None = None,
    seed: Seed | None = None,
) -> None:
    """Export a tokenizer: as another project's checkpoint, as ONNX networks, or for language models.

    Example: tavq export run --to onnx --out onnx

    Args:
        model: A model folder, a run folder or a hub name.
        to: taming, ibq, llamagen, janus, chameleon, maskgit, open-magvit2 or diffusers: the checkpoint of that
            project. onnx: an encoder (images to indices) and a decoder (indices to images) for images of any size;
            needs pip install 'tavq[onnx]'. tokens: shards of image tokens beside captions, which the package datasets
            reads. vocabulary: a language model and its tokenizer, extended by the tokens of images.
        out: What to write: for diffusers, onnx, tokens and vocabulary a folder, else a safetensors file.
        data: (tokens) A folder data set.
        split: (tokens) Only this split of the data set.
        size: (tokens) Side of the images; by default the size that the model was trained at.
        tokens: (tokens) What `tavq encode` wrote for these images, so that nothing is encoded again.
        form: (tokens) text, the default: a prompt of image tokens and a caption in each line. ids: an image in each
            line, with its captions.
        order: (tokens) Of a prompt: image-text (the default), text-image or both.
        row_tokens: (tokens) Write a token after each row of an image; on by default.
        shard_size: (tokens) Images of a shard; 1000 by default.
        resume: (tokens) Continue an export that was stopped.
        workers: (tokens) Background processes that read images, as in `tavq encode`.
        language_model: (vocabulary) The folder of a Hugging Face causal language model, or a hub name.
        text: (vocabulary) The text store that the tokenizer was aligned with: image tokens then begin near to words.
        seed: (vocabulary) Of rows that begin at random; 0 by default.
    """
    for_tokens: dict[str, Any] = {
        "data": data, "split": split, "size": size, "tokens": tokens, "form": form, "order": order,
        "row_tokens": row_tokens, "shard_size": shard_size, "resume": resume or None,
        "workers": workers,
    }  # fmt: skip
    for_vocabulary: dict[str, Any] = {"language_model": language_model, "text": text, "seed": seed}
    used = {"tokens": for_tokens, "vocabulary": for_vocabulary}.get(to, {})
    if to in api.list_export_targets():
        _refuse_options(
            to, {name: value for name, value in {**for_tokens, **for_vocabulary}.items() if name not in used}
        )
    options = {name: value for name, value in used.items() if value is not None}
    if to == "tokens":
        _export_tokens(model, out, options)
    elif to == "vocabulary":
        _export_vocabulary(model, out, options)
    else:
        console.say(f"The tokenizer is in {api.export_model(model, to=to, out=out)}.")


def _export_tokens(model: str, out: Path, options: dict[str, Any]) -> None:
    if "data" not in options:
        raise UsageError("--to tokens needs --data, the folder data set whose images become tokens.")
    with console.bar("Encoding") as bar:
        written = api.export_tokens(model, options.pop("data"), out=out, progress=bar, **options)
    console.say(f"The tokens are in {written}; its README.md says how to load them.")


def _export_vocabulary(model: str, out: Path, options: dict[str, Any]) -> None:
    if "language_model" not in options:
        raise UsageError("--to vocabulary needs --language-model, the folder of a causal language model.")
    written = api.export_vocabulary(model, options.pop("language_model"), out=out, **options)
    console.say(f"The language model is in {written}; its README.md has the ids of the image tokens.")


def _refuse_options(to: str, unused: dict[str, Any]) -> None:
    given = [name.replace("_", "-") for name, value in unused.items() if value is not None]
    if given:
        raise UsageError(f"--to {to} does not use --{given[0]}; leave it out.")


def push(
    model: str,
    name: str,
    /,
    *,
    licence: str | None = None,
    branch: str | None = None,
    private: bool = False,
    message: str = "Upload a model of tavq",
) -> None:
    """Upload a model folder to the Hugging Face hub.

    The access token is read from HF_TOKEN in the environment. Every command that takes a hub name can pin a revision:
    OWNER/NAME@REVISION.

    Example: tavq push run me/tokenizer --licence apache-2.0

    Args:
        model: A model folder or a run folder, of a tokenizer or a task.
        name: OWNER/NAME on the hub; created if it is missing.
        licence: Of the weights, as the hub names it; by default what the import of the model recorded.
        branch: Commit to this branch; by default to the main one.
        private: Make a new repository private, and accept no public one.
        message: Of the commit.
    """
    commit = api.push_model(model, name, licence=licence, branch=branch, private=private, message=message)
    console.say(f"The model is on the hub; pin it as {name}@{commit}.")
