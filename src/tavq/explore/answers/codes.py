"""Answers about codes: a list, a page, a map, and two of them compared."""

from typing import Literal

from tavq.explore.answers.base import Answer, Granularity, Interval, Level, Missing


class UnitLink(Answer):
    """A unit of text: a word, phrase or sentence."""

    granularity: Granularity
    unit: int | None
    """Its id in addresses; None for a unit in too few images."""
    text: str


class Association(UnitLink):
    """How a unit of text goes with a code, over the images with text.

    A code is *prominent* in an image that uses it more often than the average image does. The five numbers of images
    `images`, `with_code`, `with_unit` and `both` give the rest: precision = both / with_code, recall = both /
    with_unit, base rate = with_unit / images.
    """

    lift: float
    """P(code | unit) / P(code), shrunk towards 1 for rare units."""
    interval: Interval
    """Of the lift, over images."""
    certain: bool
    """Significant among all units of the granularity (family-wise 5 %)."""
    precision: float
    """Fraction of the images in which the code is prominent whose text has the unit; the label is wrong in the rest."""
    precision_interval: Interval
    base_rate: float
    """Fraction of all images whose text has the unit."""
    recall: float
    """Fraction of the unit's images in which the code is prominent."""
    images: int
    with_code: int
    with_unit: int
    both: int


class AlignedUnit(UnitLink):
    """A unit near a code in the aligned space."""

    cosine: float
    lift: float
    """Its lift by the statistics."""
    statistical_rank: int
    """Its rank by lift among all units, from 0."""


class CodeLink(Answer):
    """A code, with what a list shows of it."""

    level: Level
    code: int
    part: int
    name: str | None
    """The word of the entry, in codebooks whose entries stand for words."""
    label: str | None
    """The word that its held-out score tests: the certain word with the highest lift on the images that are not kept
    apart. Of a code in too few images for that, the one over all images; None without one."""
    tile: str | None
    """Address of the code decoded alone; None where the decoder does not read its entries."""


class CodeRow(CodeLink):
    """A code in a list."""

    count: int
    """Positions that have it."""
    fraction: float
    """Of all positions of its part."""
    images: int
    """Images that have it."""
    dead: bool
    entropy: float | None
    """Of the words of the images in which it is prominent, in bits; small where few words fill them."""
    specificity: float | None
    """Kullback-Leibler divergence of these words from those of all images, in bits; 0 says nothing."""
    certainty: float | None
    """Lift of its label over all images; None without a label."""
    precision: float | None
    """Fraction of the images in which the code is prominent whose text has its label; None without a label."""
    position_bias: float
    """0 where it occurs at every position equally often, 1 where at a single one."""
    held_out_lift: float | None
    """Lift of its label on images kept apart; None where it has no label or too few images."""


class CodeList(Answer):
    """A part of the sorted and filtered codes of a level."""

    total: int
    """Codes that pass the filters."""
    offset: int
    codes: list[CodeRow]
    missing: list[Missing]


class Neighbour(CodeLink):
    """A code near another one."""

    distance: float
    """Smaller is nearer; the measure is that of the list."""


class Patch(Answer):
    """A position of an image."""

    image: str
    """The image's id in addresses."""
    key: str
    """Its file name."""
    row: int
    column: int
    height: int
    width: int
    """Cells of the patch; 1 x 1 for a position."""
    url: str
    """Address of the patch with its surroundings."""
    score: float | None = None


class Context(Patch):
    """A code where it is, in a real image."""

    decoded: str | None
    """Address of the reconstruction around it."""
    without: str | None
    """Address of the same after the code was removed: replaced by the code most frequent around it."""


class Cooccurrence(CodeLink):
    """A code that is prominent in the same images."""

    lift: float
    both: int
    """Images in which both codes are prominent."""


class Surrounding(CodeLink):
    """A code that is found at one offset from another code more often than everywhere."""

    share: float
    """Fraction of the positions at this offset that have it."""
    lift: float
    """This fraction over that of all positions."""


class HeldOutLabel(UnitLink):
    """The label of the code, which was chosen on the images that are not kept apart, measured on those that are."""

    lift: float
    interval: Interval
    precision: float
    base_rate: float
    images: int
    """Images kept apart in which the code is prominent."""
    shuffled: float | None
    """Mean lift, on the same images, of labels of other codes; None where no other code has one."""
    confirmed: bool
    """The interval lies above 1."""


class CodePage(CodeRow):
    """Everything about a code but its lists of examples."""

    units: dict[Granularity, list[Association]]
    """Strongest first; certain ones, or up to three uncertain ones where none is certain."""
    against: list[Association]
    """Certain words that images in which the code is prominent have less often than others (lift below 1)."""
    aligned: dict[Granularity, list[AlignedUnit]]
    """Nearest units in the aligned space; empty without alignment."""
    held_out: HeldOutLabel | None
    neighbours: dict[Literal["codebook", "decoded", "words"], list[Neighbour]]
    """Nearest first, by codebook distance, by difference of the decoded tiles (mean absolute, 0 to 255), and by
    1 - cosine of the words' associations; a sense that cannot be computed is absent."""
    mean_context: str | None
    """Address of the code decoded among the mean of the entries that surround it."""
    contexts: list[Context]
    examples: list[Patch]
    """Positions whose feature is nearest to the entry, at most one of an image."""
    position_map: list[list[int]]
    """How often the code is at each position [h][w]."""
    cooccurrences: list[Cooccurrence]
    surroundings: list[list[Surrounding | None]]
    """The code that belongs most to each offset, from two rows above and two columns to the left to two below and to
    the right; None in the middle, and where no code is found more often than everywhere."""
    missing: list[Missing]


class PatchList(Answer):
    """A part of the positions of a code, or of the patches that a search found."""

    total: int
    offset: int
    patches: list[Patch]
    missing: list[Missing]


class Atlas(Answer):
    """Sheets of tiles: tile i of a page is in row i // columns."""

    tile: int
    """Side of a tile in pixels."""
    columns: int
    tiles: int
    """Tiles of a page."""
    pages: list[str]
    """Addresses of the sheets; codes are in order of index."""


class CodeMap(Answer):
    """All entries of one part of a level in two dimensions; neighbours are better read from a code's page."""

    method: Literal["pca", "umap"]
    codes: list[int]
    x: list[float]
    y: list[float]
    """From 0 to 1."""
    counts: list[int]
    explained: float | None
    """Fraction of the variance that the two dimensions hold, of PCA."""
    atlas: Atlas | None
    missing: list[Missing]


class CodePair(Answer):
    """Two codes compared, of one model or of two."""

    first: CodePage
    second: CodePage
    models: tuple[str, str]
    images_both: int
    """Images in which both codes are prominent."""
    images_either: int
    """Images in which at least one of the codes is prominent."""
    overlap: float
    """Positions that both cover, over those that either covers, on the finer of the two grids."""
    words: float | None
    """Cosine of their associations with words."""
