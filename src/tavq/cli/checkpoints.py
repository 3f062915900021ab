"""`tavq import-checkpoint` and `export`: tokenizers of other projects, both ways."""

from pathlib import Path

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count


def import_checkpoint(
    kind: str,
    source: Path,
    /,
    *,
    out: Path,
    size: Count | None = None,
    licence: str | None = None,
    origin: str | None = None,
) -> None:
    """Import another project's tokenizer as a model folder, which every other command takes.

    Nothing in the file is run: only safetensors, and checkpoints of tensors alone, are read.

    Example: tavq import-checkpoint llamagen vq_ds16_c2i.pt --out vq16 --size 256 --licence MIT

    Args:
        kind: taming, ibq, llamagen, maskgit, open-magvit2 or diffusers; auto recognises all but ibq by their tensors.
        source: A file of weights (safetensors, or torch's), or the folder of a diffusers VQModel.
        out: The model folder to write; new or empty.
        size: Side of the images that it was trained on, which other commands then use by default.
        licence: Of the weights, for the model card.
        origin: Where the weights come from, such as a URL, for the model card; by default the name of the file.
    """
    folder = api.import_checkpoint(kind, source, out=out, size=size, licence=licence, origin=origin)
    console.say(f"The tokenizer is in {folder}; its README.md says what it is and how to train it further.")


def export(model: str, /, *, to: str, out: Path) -> None:
    """Export a tokenizer: as another project's checkpoint, or as ONNX networks.

    Example: tavq export run --to onnx --out onnx

    Args:
        model: A model folder, a run folder or a hub name.
        to: taming, ibq, llamagen, maskgit, open-magvit2 or diffusers: the checkpoint of that project. onnx: an encoder
            (images to indices) and a decoder (indices to images) for images of any size; needs
            pip install 'tavq[onnx]'.
        out: What to write: for diffusers and onnx a folder, else a safetensors file.
    """
    written = api.export_model(model, to=to, out=out)
    console.say(f"The tokenizer is in {written}.")
