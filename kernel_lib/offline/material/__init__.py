"""Made-up material for demo, rehearsal and tests: data that can be learned, a tiny backbone.

essays      FB3: essays whose scores can be read from them; an encoder in DeBERTa-v3's shape
sentences   the words and sentences that spelling is made of
spelling    CSC: sentences with wrong characters; an encoder in the shape of the Chinese BERTs
entities    NER: sentences with tagged names; their encoder is that of the essays

All of it is ours, made of word lists: nothing of a competition's data is in it.
"""

from kernel_lib.offline.material.entities import (
    write_entity_competition as write_entity_competition,
)
from kernel_lib.offline.material.essays import TARGETS as TARGETS
from kernel_lib.offline.material.essays import write_backbone as write_backbone
from kernel_lib.offline.material.essays import write_competition as write_competition
from kernel_lib.offline.material.spelling import write_spelling_backbone as write_spelling_backbone
from kernel_lib.offline.material.spelling import (
    write_spelling_competition as write_spelling_competition,
)
