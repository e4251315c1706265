"""The shipped tokenizer: whole words of the picture world and of everyday questions, then fallbacks.

Real questions must work on the tiny model too, and no word may become "unknown". So common letter
pairs and single characters stand behind the words: a rare word costs more pieces, never its meaning.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from collections.abc import Iterable

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = """
a about above across after all also an and animal animals any are around at away baby back bag ball banana base
bat bathroom be beach bear bed behind being below bench beside between bicycle big bike bird birds blanket board
boat body book boots bottle bottom bowl box boy boys bread bridge bus building buildings by cake camera can car
cars cat cats catch cell chair chairs child children clean clock close closed clothes clothing clouds cloudy
coat cold color colors colored computer could couch counter country couple cow cows cup cut dark day desk did
different dirty dish do does dog dogs doing done door down drink driving each ear eat eating elephant elephants
empty end eyes face facing fall family far fence field floor flower flowers fly flying food foot for fork from
front fruit full game getting giraffe girl glass glasses going good grass ground group guy hair hand hands
hanging happy has hat have having he head helmet her high hill him his hit hold holding home horse horses hot
house how hydrant in inside is it its jacket jumping just keyboard kid kind kite kites kitchen kitten knife lady
lamp land laptop laying leaves left leg legs letter letters light lights like line logo long look looking made
make making man many match material meal meat men metal middle mirror more most motion motorcycle mountain
mountains mouth moving name near neck new next night number object objects ocean of off old on one only open or
orange other out outside over oven own pants paper parked park part people person phone photo picture pictured
piece pillow pizza plane plant plants plate plates play player players playing pole pot pole present purse
racket railing rain raining ready real red refrigerator restaurant ride riding right river road rock rocks roof
room rug running sand sandwich scene season seat see seen served shadow shape she sheep shirt shirts shoes short
shorts show shower shown side sidewalk sign signs sink sitting size skateboard skateboarder skateboarding ski
skiing skis skier sky sleeping small smiling snow snowboard so soccer some someone something spoon sport stand
standing station stop stopped store stove street striped stripes suit suitcase summer sun sunglasses sunny
sunset surf surfboard surfer swinging table tail taken taking tall team teddy television tennis than that the
their them there they thing things this three through tie tile time to toilet tomato top towel tower town toy
toys traffic trail train trains trash tree trees truck trunk tub turned tv two type umbrella umbrellas under up
used using van vase vegetable vegetables vehicle vehicles visible walking wall walls was watch watching water
waves way wear wearing weather wet what wheel wheels when where which white who whose why wild will wind window
windows wine winter with woman women wood wooden word words working wrist wrong year yes you young zebra zebras
"""
_PAIRS = """
ac ad al am an ap ar as at ay ba be bi bl bo br bu ca ce ch ck co ct de di do ea ec ed ee el em en er es et fa
fe fi fo fr ge gh gr ha he hi ho ic id ie ig il im in io ir is it ke ki la le li ll lo ly ma me mi mo mp nd ne
ng ni no nt of ol om on oo op or ot ou ow pa pe ph pi pl po pr qu ra re ri ro rs sa se sh si so sp ss st su ta
te th ti to tr tu ty ul un ur us ut ve vi wa we wh wi wo
"""


def make_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """WordPiece tokenizer in BERT's format over the words of `texts`, everyday words and fallbacks."""
    lower = normalizers.BertNormalizer(lowercase=True)
    split = pre_tokenizers.BertPreTokenizer()
    words = {piece for text in texts for piece, _ in split.pre_tokenize_str(lower.normalize_str(text))}
    pairs = _PAIRS.split()
    letters = string.ascii_lowercase + string.digits + string.punctuation
    tails = [f"##{piece}" for piece in (*letters, *pairs, "ing", "er", "ion", "ers", "ed", "es")]
    pieces = dict.fromkeys((*SPECIAL, *letters, *pairs, *tails, *sorted({*words, *_WORDS.split()})))
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = lower
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece()
    special = [(name, SPECIAL.index(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*special)
    return tokenizer
