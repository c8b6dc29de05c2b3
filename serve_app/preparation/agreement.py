"""Whether a text is what a transcriber heard. Pure."""

from difflib import SequenceMatcher

__all__ = ["agree"]

RUN = 3
"""Letters in a row that count as heard; pairs of letters occur in any two texts."""
SHARE = 0.6
"""Of the text that must have been heard: Whisper tiny.en spells names and rare words in its own way."""
GAP = 24
"""Letters in a row, about four words, that one side may have alone."""


def agree(text: str, heard: str, *, whole: bool) -> bool:
    """Whether most of `text` was heard in its order, with no long stretch that one of them has alone.

    Letters and digits count, in lower case. Without `whole`, `heard` may go on after the text has ended.
    """
    sides = ["".join(filter(str.isalnum, side.lower())) for side in (text, heard)]
    if not all(sides):
        return False
    matcher = SequenceMatcher(None, sides[0], sides[1], autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size >= RUN]
    if not blocks or sum(block.size for block in blocks) < SHARE * len(sides[0]):
        return False
    for starts, length, to_its_end in (
        ([(block.a, block.size) for block in blocks], len(sides[0]), True),
        ([(block.b, block.size) for block in blocks], len(sides[1]), whole),
    ):
        ends = [0, *(start + size for start, size in starts)]
        following = [*(start for start, _ in starts), length if to_its_end else ends[-1]]
        if max(start - end for end, start in zip(ends, following, strict=True)) > GAP:
            return False
    return True
