"""The words that decide where a tag made from news text is not enough for a caption."""


def listed(words: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(words.split())


QUANTIFIERS = listed("several many few some both all various multiple numerous")
"""Determiners and adjectives of number; the lexicon knows numerals."""

SCAFFOLD = listed(
    "image images photo photos photograph photographs picture pictures pic pics snapshot snapshots caption captions "
    "photography scene depiction shot shots view views"
)
"""Words that speak of the picture as an object: machine captions open with them whatever the picture shows."""

UNSEEN = listed(
    "other others same such own next able aware likely possible more most less least much lots kind kinds type "
    "types sort sorts thing things something anything everything nothing someone way ways addition fact rest sense "
    "example case overall main whilst i.e e.g etc front foreground background viewer appearance presence atmosphere "
    "additional certain general particular specific whole due available visible unclear evident apparent"
)
"""Nouns and adjectives by their tag that name nothing with a look of its own."""

ACTIONS = listed(
    "rides jumps leaps lands surfs skis skates climbs walks runs plays sits stands swims looks smiles poses dances "
    "dives parachutes flips slides rests lies crawls splashes floats flies sails rows hikes jogs skateboards"
)
"""Third persons that the lexicon, made from news, knows as plural nouns or not at all."""

BASES = listed("run jump leap walk sit stand play climb swim look smile pose dance ride race surf ski skate")
"""The same in the plural, tagged as nouns after another noun ("two dogs run along the grass")."""

FUNCTION = listed(
    "a an the this that these those there here i you he she it we they me him her us them his its our their my your "
    "who whom whose which what where when why how is are was were be been being am has have had having do does did "
    "doing can could may might must shall should will would not no nor n't n’t and or but if while whilst as than of "
    "in on at by for with from to into onto over under up down off out about above across after against along among "
    "around before behind below beneath beside besides between beyond during except inside near outside through "
    "throughout toward towards upon within without amid atop alongside very too also just only even then so yet "
    "together apart away back forth each every any either neither another someone somebody everyone seems appears "
    "features includes contains depicts captures using"
)
"""Never part of a noun phrase, whatever tag the rules find."""

COLOURISH = listed("light dark matte silver gold orange cream olive lime navy rose")
"""Nouns that shade the colour after them: "light brown"."""
