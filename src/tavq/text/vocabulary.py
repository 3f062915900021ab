"""Word lists for captions, where the tags of a tagger trained on news text are not enough."""


def to_set(words: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(words.split())


QUANTIFIERS = to_set("several many few some both all various multiple numerous")
"""Determiners and adjectives of number; the lexicon knows numerals."""

SCAFFOLD = to_set(
    "image images photo photos photograph photographs picture pictures pic pics snapshot snapshots caption captions "
    "photography scene depiction shot shots view views"
)
"""Words for the image itself: machine captions open with them whatever the image shows."""

UNSEEN = to_set(
    "other others same such own next able aware likely possible present more most less least much lots kind kinds type "
    "types sort sorts thing things something anything everything nothing someone way ways manner addition fact rest "
    "example case overall main whilst i.e e.g etc foreground background viewer viewers appearance presence additional "
    "certain general particular specific whole due available visible unclear evident apparent further devoid "
    "reminiscent composition perspective viewpoint focus subject subjects context moment moments time times occasion "
    "opportunity possibility purpose purposes importance significance attention interest intrigue quality nature's "
    "sense touch feel feeling feelings mood ambiance ambience atmosphere vibe impression effect aesthetic aesthetics "
    "appeal beauty elegance charm warmth comfort joy happiness excitement enjoyment fun love pride fear tranquility "
    "serenity calmness harmony sophistication grandeur majesty whimsy realism authenticity simplicity anticipation "
    "curiosity wonder nostalgia mystery essence functionality creativity freshness liveliness vibrancy dynamism "
    "emotion emotions relaxation leisure experience experiences ability skill skills idea thought reason result"
)
"""Nouns and adjectives that name nothing visible: placeholders, remarks on the image itself, feelings, judgements."""

ACTIONS = to_set(
    "rides jumps leaps lands surfs skis skates climbs walks runs plays sits stands swims looks smiles poses dances "
    "dives parachutes flips slides rests lies crawls splashes floats flies sails rows hikes jogs skateboards watches "
    "stretches consists swings peeks points drives attempts contrasts protrudes soars talks chews races stares fishes "
    "perches ascends balances moves paddles bounds follows bends trots sprints blows wades laughs trails parasails "
    "gleams unfolds peers kayaks chases crashes reclines nestles sags bites pounces cries frolics squats windsurfs "
    "glistens filters juts curves winds transitions speeds kneels crouches leans hangs sways hovers drifts drips "
    "spills looms emerges descends extends flows glides glows shines sparkles shimmers gathers gazes glances "
    "grins kisses wanders strolls marches gallops grazes swoops twists spins tumbles trudges waits works charges"
)
"""Verbs in the third person that the lexicon, made from news, has as plural nouns or not at all."""

SHOWS = to_set("features displays boasts exhibits showcases contrasts holds wears depicts houses lists commands")
"""Verbs in the third person that machine captions use for "has"."""

BASES = to_set(
    "run jump leap walk sit stand play climb swim look smile pose dance ride race surf ski skate wait watch float fly "
    "rest lean hang gather talk work fish march graze perch"
)
"""Plural verbs that the rules tag as nouns after another noun ("two dogs run along the grass")."""

OPENERS = to_set("; : — while as who which that where whose when whilst")
"""Words and signs after which a new clause begins."""

PRONOMINAL = to_set("all both each these those they some others")
"""Words followed by a verb, never by a singular noun: "they all seem"."""

STAYING = to_set("high low close far fast straight near deep ahead right")
"""Adjectives of the lexicon that stay adverbs if the rules tag them so ("high above the city")."""

FUNCTION = to_set(
    "a an the this that these those there here i you he she it we they me him her us them his its our their my your "
    "who whom whose which what where when why how is are was were be been being am has have had having do does did "
    "doing could may might must shall should will would not no nor n't n’t and or but if while whilst as than of "
    "in on at by for with from to into onto over under up down off out about above across after against along among "
    "around before behind below beneath beside besides between beyond during except inside near outside through "
    "throughout toward towards upon within without amid atop alongside very too also just only even then so yet "
    "together apart away forth each every any either neither another someone somebody everyone nobody seems appears "
    "features includes contains depicts captures using appear seem add consist consists create creates provide "
    "provides include contain depict capture become becomes remain remains allow allows lie uphill downhill upstairs "
    "downstairs outdoors indoors upside agape approx ca vs likely mostly possibly probably clearly usually apparently "
    "presumably perhaps maybe however"
)
"""Words that are never part of a noun phrase, whatever their tag."""

COLOURS = to_set("red green blue yellow black white brown gray grey purple pink violet beige tan turquoise maroon")
"""Colours, which the rules tag as nouns if no noun follows; they describe a look, not a thing."""

COLOURISH = to_set("light dark matte silver gold orange cream olive lime navy rose")
"""Nouns that shade the colour after them: "light brown"."""

HEADS = to_set("light cream lime olive rose")
"""Those of them that name a thing if no colour follows: "a traffic light"."""
