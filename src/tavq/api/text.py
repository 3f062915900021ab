"""Text stores: the texts of a data set, split and encoded."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from tavq.api.calls import CAPTIONS, TEXTS, PathLike, Progress, inform, warn, warn_of_faults
from tavq.core.caption_keys import image_key
from tavq.core.devices import select_device
from tavq.core.errors import FileError, UsageError
from tavq.data.folder import FolderDataset, iter_records
from tavq.data.records import Faults, Record
from tavq.data.sharding import ALL_IMAGES, Shard
from tavq.data.shards import find_home
from tavq.data.texts import CaptionKeys
from tavq.interfaces import codebooks
from tavq.ops.collective import is_joined
from tavq.text.building import Bars, build_store, working_folder
from tavq.text.encoders import TextEncoder, load_encoder
from tavq.text.merging import find_shards, merge_stores
from tavq.text.sharing import build_together
from tavq.text.store import MANIFEST, TextStore
from tavq.text.word_graph import build_word_graph
from tavq.tokenizer import TokenizerConfig

MIN_COUNT = 10
"""Words of a word graph occur more often than this."""


def build_text_store(
    data: PathLike,
    *,
    encoder: str = "minilm",
    splitter: str = "pattern",
    out: PathLike | None = None,
    full_text: bool = False,
    word_graph: bool = False,
    min_count: int = MIN_COUNT,
    word_vectors: PathLike | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    projection: bool | None = None,
    float16: bool = False,
    each_caption: bool | None = None,
    device: str | None = None,
    jobs: int | None = None,
    shard: str | None = None,
    merge: bool = False,
    progress: Progress | None = None,
) -> TextStore:
    """Split the texts of a data set into words, phrases and sentences, and encode each distinct unit once.

    A store that already holds these texts by this encoder is kept; work that was stopped is resumed.

    Args:
        data: a folder data set; its long texts are used, or its captions joined where an image has none.
        encoder: `minilm`, a folder with a BERT-family model, a sentence encoder or CLIP's text tower, or a hub name.
        splitter: `pattern` (no downloads) or `corpora` (TextBlob's corpora, where they are installed).
        out: the store's folder; by default DATA/text.
        full_text: also keep the token-level vectors of each full text (for LG-VQ, and TA-VQ without multi-granularity).
        word_graph: also keep adjectives and nouns with their vectors and which modifies which (for VQCT).
        min_count: keep words in the word graph that occur more often than this.
        word_vectors: take the word graph's vectors from this file (GloVe's text format) instead of the encoder.
        dtype: precision of the encoder.
        projection: whether CLIP's vectors of whole texts and of the word graph go through its text projection, as in
            the public code of LG-VQ and VQCT; by default as in the store that is there, else if the encoder has one.
        float16: keep the vectors as float16.
        each_caption: keep each caption of an image apart; training then reads one of them, drawn at random, at each
            step, and evaluation the first. Long texts are not read. By default as in the store that is there, else
            false.
        device: where to encode; by default a GPU where there is one.
        jobs: processes that split texts; by default one per processor. A script that uses several must be guarded by
            `if __name__ == "__main__"`.
        shard: only one part of the images, "i/n", into the store OUT-i-of-n.
        merge: join the parts OUT-1-of-n to OUT-n-of-n into OUT instead of encoding.
        progress: called with (done, total, stage).

    Returns:
        The store.

    Raises:
        UsageError: arguments exclude each other, there is no data set or encoder of that name, or `out` holds
            something else.
        DataError: no image has text.
        FileError: a file is damaged, or another process is building the same store.
    """
    folder, vectors = Path(data), None if word_vectors is None else Path(word_vectors)
    _check_arguments(merge, shard, full_text, word_graph, vectors, float16, each_caption)
    place = Path(out) if out is not None else find_home(folder) / "text"
    place = place.resolve() if place.is_symlink() else place  # a link to another disk says where the store belongs
    part = Shard.parse(shard)
    if not merge:
        place = place.with_name(part.add_suffix(place.name))

    def load() -> TextEncoder:
        return _load(encoder, dtype, device, projection, place)

    def build(loaded: TextEncoder | None, shared: bool) -> TextStore:
        again = word_graph
        if loaded is None:
            store = _merge(place)
        else:
            texts = _Texts(folder, part, _keeps_captions_apart(place, each_caption))
            building = _Building(loaded, splitter, place, float16, jobs or os.cpu_count() or 1, progress, shared)
            try:
                store, again = building.run(texts, full_text, word_graph)
            finally:  # faults may be why there is no text
                warn_of_faults(texts.faults.first, texts.faults.count)
        if again:
            loaded = loaded or load()
            _check_encoder(store, loaded)
            _add_word_graph(store, _Texts(folder, ALL_IMAGES, store.each_caption), loaded, min_count, vectors)
        return store

    if not merge:
        _Texts(folder, part, _keeps_captions_apart(place, each_caption)).check()  # before a model is loaded
    return (
        build(None if merge else load(), False)
        if is_joined()
        else build_together(place, None if merge else load, build)
    )


def _check_arguments(
    merge: bool,
    shard: str | None,
    full_text: bool,
    word_graph: bool,
    word_vectors: Path | None,
    float16: bool,
    each_caption: bool | None,
) -> None:
    """Raise UsageError where an argument would be ignored."""
    if merge and (shard or full_text or float16 or each_caption is not None):
        raise UsageError(
            "--merge joins parts as they were made; remove --shard, --full-text, --float16 and --each-caption."
        )
    if shard and word_graph:
        raise UsageError("A word graph needs all texts; use --word-graph with --merge.")
    if word_vectors is not None and not word_graph:
        raise UsageError("--word-vectors needs --word-graph.")
    if word_vectors is not None and not word_vectors.is_file():
        raise UsageError(f"There is no file {word_vectors}; give word vectors in GloVe's text format.")


class _Texts:
    """The key and the text of each image of a data set, or of a part of it; each call reads from the start.

    With `each_caption` the keys and texts of each caption.
    """

    def __init__(self, folder: Path, shard: Shard, each_caption: bool) -> None:
        self.folder, self.shard, self.each_caption = folder, shard, each_caption
        self.faults = Faults()

    def __call__(self) -> Iterator[tuple[str, str]]:
        self.faults = Faults(fields=CAPTIONS if self.each_caption else TEXTS)
        records = (record for record in iter_records(self.folder, self.faults) if record.file_name in self.shard)
        return (pair for record in records for pair in record.texts(self.each_caption))

    def check(self) -> None:
        """Refuse a folder that is missing, empty or, with `each_caption`, without a caption."""
        if not self.each_caption:
            next(self(), None)
        elif not any(record.captions for record in iter_records(self.folder, descriptions=False)):
            raise UsageError(
                f"--each-caption: {self.folder} has no captions to keep apart, for example no record with the field "
                "`captions`; remove the flag (a long text is one text an image)."
            )


def _keeps_captions_apart(place: Path, asked: bool | None) -> bool:
    """Whether the store at a place is to keep captions apart: as asked, else as the store that is there."""
    if asked is not None:
        return asked
    try:
        return TextStore.open(place, verify=False).each_caption
    except FileError:  # there is none, or it is damaged and will be replaced
        return False


def _load(name: str, dtype: str, device: str | None, projection: bool | None, place: Path) -> TextEncoder:
    """Load the encoder for the store at `place`, which keeps its form unless another one is asked for."""
    loaded = load_encoder(name, select_device(device), getattr(torch, dtype), projection)
    if projection is None and loaded.projection is not None and _holds_unprojected(place, loaded):
        inform(f"The text store {place} has CLIP's vectors before the projection; --projection rebuilds it.")
        loaded.projection = None
    return loaded


def _holds_unprojected(place: Path, encoder: TextEncoder) -> bool:
    """Whether the store at a place was made by this encoder without its projection, as all were before it was read."""
    try:
        maker = TextStore.open(place, verify=False).manifest.encoder
    except FileError:  # there is none, or it is damaged and will be replaced
        return False
    return maker == encoder.record.model_copy(update={"projected": False})


class _Building:
    """How a store is built."""

    def __init__(
        self,
        encoder: TextEncoder,
        splitter: str,
        place: Path,
        float16: bool,
        jobs: int,
        progress: Progress | None,
        shared: bool = False,
    ) -> None:
        self.encoder, self.splitter, self.place = encoder, splitter, place
        self.float16, self.jobs, self.progress, self.shared = float16, jobs, progress, shared

    def run(self, texts: _Texts, full_text: bool, word_graph: bool) -> tuple[TextStore, bool]:
        """Return the store, built or kept, and whether it is to have a word graph."""
        before, why = _existing_store(self.place)
        same_kind = before is not None and before.each_caption == texts.each_caption
        if before is not None and same_kind and before.matches(texts(), self.encoder, self.splitter, full_text):
            inform(f"The text store {self.place} is up to date; it is kept.")
            return before, word_graph
        if before is not None:  # a new store keeps the tables that the old one had
            full_text, word_graph = full_text or before.manifest.full_text, word_graph or before.has_word_graph
            maker = before.manifest.encoder
            other = maker != self.encoder.record
            why = f"it was made by the encoder {maker.description}" if other else "the texts changed"
            if same_kind and before.matches(texts(), self.encoder, self.splitter, full_text=False):
                why = "it holds no token-level text, which is added"
            if not (other or same_kind):
                why = f"captions are {'kept apart' if texts.each_caption else 'joined'} now"
        if why:
            inform(f"Rebuilding the text store {self.place}: {why}.")
        if working_folder(self.place).exists():
            inform(f"Resuming the work in {working_folder(self.place)}.")
        may_be_empty = texts.shard.of > 1
        store = build_store(
            texts(), self.encoder, self.splitter, self.place, full_text, self.float16, self.jobs, _bars(self.progress),
            empty=may_be_empty, each_caption=texts.each_caption, reuse=before, shared=self.shared,
        )  # fmt: skip
        return store, word_graph


def _bars(progress: Progress | None) -> Bars:
    """Return what opens a stage of the work; its title becomes the note of the progress."""

    @contextmanager
    def stage(title: str, total: int | None) -> Iterator[Any]:
        def advance(done: int, now_total: int | None = None) -> None:
            if progress is not None:
                progress(done, now_total or total, title)

        yield advance

    return stage


def _existing_store(place: Path) -> tuple[TextStore | None, str]:
    """Return the store at a place, or None and why what is there cannot be used."""
    try:
        return TextStore.open(place), ""
    except FileError as error:  # none there, or a damaged one, which a new one replaces
        return None, str(error).rstrip(".") if (place / MANIFEST).exists() else ""


def _merge(out: Path) -> TextStore:
    parts = find_shards(out)
    inform(f"Merging {len(parts)} parts.")
    return merge_stores(parts, out)


def _check_encoder(store: TextStore, encoder: TextEncoder) -> None:
    if store.manifest.encoder != encoder.record:
        maker = store.manifest.encoder
        form = " --projection" if maker.projected else " --no-projection"
        flag = form if maker.projected != encoder.record.projected else ""
        raise UsageError(
            f"The text store {store.folder} was made by the encoder {maker.name!r} in {maker.precision}; its word "
            f"graph needs the same: --encoder {maker.name} --dtype {maker.precision}{flag}"
        )


def _add_word_graph(
    store: TextStore, texts: _Texts, encoder: TextEncoder, min_count: int, word_vectors: Path | None
) -> None:
    summary = build_word_graph((text for _, text in texts()), encoder, store.folder, min_count, word_vectors)
    inform(
        f"The word graph of {summary.adjectives:,} adjectives, {summary.nouns:,} nouns and {summary.edges:,} edges "
        f"is in {store.folder}."
    )


def ensure_store(dataset: FolderDataset, models: Sequence[TokenizerConfig], progress: Progress | None = None) -> None:
    """Build the default text store of a data set, or add to it what it lacks, with all that `models` read.

    Raises:
        UsageError: there are no captions, or the encoder that made the store is not found.
    """
    full_text = any(model.reads_full_text for model in models)
    word_graph = any(codebooks[model.codebook.name].reads_text for model in models)
    if (dataset.home / "text").exists():
        _extend_store(dataset, full_text, word_graph, progress)
        return
    if not any(record.text for record in dataset):
        raise UsageError(f"{dataset.folder} has no captions, and this recipe reads text; use another.")
    command = f"tavq text {dataset.folder}{' --full-text' * full_text}{' --word-graph' * word_graph}"
    inform(f"{dataset.folder} has no text store yet; building it as with: {command}")
    build_text_store(dataset.folder, full_text=full_text, word_graph=word_graph, progress=progress)


def _extend_store(dataset: FolderDataset, full_text: bool, word_graph: bool, progress: Progress | None) -> None:
    """Add tables to the default text store of a data set, by the encoder that made it.

    Vectors of words, phrases and sentences stay the same bits, so that earlier runs on the store can be resumed.
    """
    place = (dataset.home / "text").resolve()
    try:
        store = TextStore.open(place)
    except FileError:  # said where the store is opened for training
        return
    manifest = store.manifest
    full_text = full_text and not manifest.full_text
    word_graph = word_graph and not store.has_word_graph
    if not full_text and not word_graph:
        return
    flags = f"{' --full-text' * full_text}{' --word-graph' * word_graph}"
    command = f"tavq text {dataset.folder} --encoder {manifest.encoder.name}{flags}"
    inform(f"The text store {place} lacks what this recipe reads; adding it as with: {command}")
    encoder = _load_maker(store, command)
    texts = _Texts(dataset.folder, ALL_IMAGES, store.each_caption)
    if full_text:
        building = _Building(encoder, manifest.splitter.name, place, manifest.float16, os.cpu_count() or 1, progress)
        store, word_graph = building.run(texts, full_text, word_graph)
    if word_graph:
        _add_word_graph(store, texts, encoder, MIN_COUNT, None)


def _load_maker(store: TextStore, command: str) -> TextEncoder:
    """The encoder that made a store; UsageError if its name leads to none or to another one."""
    maker = store.manifest.encoder
    try:
        encoder = _load(maker.name, maker.precision, None, None, store.folder)
    except (UsageError, FileError) as error:
        raise UsageError(
            f"The text store {store.folder} lacks what this recipe reads, and its encoder {maker.name!r} is not found "
            f"by that name ({str(error).rstrip('.')}); add it with the encoder's folder: {command}"
        ) from error
    if encoder.record != maker:
        raise UsageError(
            f"The text store {store.folder} lacks what this recipe reads, and was made by another encoder than the one "
            f"that is called {maker.name!r} now; rebuild it with: {command}"
        )
    return encoder


def warn_of_changed_text(store: TextStore, dataset: FolderDataset) -> None:
    """Log how many images the store has no text for, and which have another text now than when it was built."""
    _report_missing_text(store, dataset)
    texts = (pair for record in dataset for pair in record.texts(store.each_caption))
    changed = list(dict.fromkeys(image_key(key) for key in store.find_changed(texts)))
    if not changed:
        return
    first = ", ".join(changed[:3])
    more = ", …" if len(changed) > 3 else ""
    warn(
        f"The text of {len(changed):,} images ({first}{more}) changed since {store.folder} was built; training uses "
        f"the old text. Rebuild it with: tavq text {dataset.folder} --encoder {store.manifest.encoder.name}"
    )


def _report_missing_text(store: TextStore, dataset: FolderDataset) -> None:
    """Log how many images are read without text, and warn of those whose text the store lacks."""
    keys = CaptionKeys(dataset, store)
    missing = [record for index, record in enumerate(dataset) if keys.first(index) not in store]
    if not missing:
        return
    inform(f"{len(missing):,} of {len(dataset):,} images have no text in {store.folder}; they are used without text.")
    unusable = {key for key, _ in store.faults()}
    lacking = [record.file_name for record in missing if _has_text(record, store) and record.file_name not in unusable]
    if lacking:
        warn(
            f"The text store {store.folder} lacks the text of {len(lacking):,} images ({lacking[0]} first). Rebuild it "
            f"with: tavq text {dataset.folder} --encoder {store.manifest.encoder.name}"
        )


def _has_text(record: Record, store: TextStore) -> bool:
    """Whether an image has a text of the kind that a store holds."""
    return any(text for _, text in record.texts(store.each_caption))
