"""wetext's grammars, weighted transducers from written to spoken form: one per language, read when first asked for.

Knows no rule of ours. What a grammar gets wrong is kept from it by `english` and `east_asian`.
"""

import re
from functools import lru_cache
from threading import Lock
from typing import Literal

__all__ = ["GrammarLanguage", "spoken"]

GrammarLanguage = Literal["en", "zh", "ja"]

_lock = Lock()
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?|[0-9]")


@lru_cache(maxsize=8192)
def spoken(language: GrammarLanguage, written: str) -> str:
    """What the grammar of `language` makes of `written`, which has no quotation mark, backslash or line end.

    Where the grammar has no reading for the whole ("+1 5"), its numbers alone are read, one by one. One call at a time:
    nothing says that the transducers may be shared, and a call takes about a millisecond.
    """
    try:
        return _read(language, written)
    except (AssertionError, IndexError, RuntimeError):  # how it says that it has no path
        if _NUMBER.fullmatch(written):
            return written
        return _NUMBER.sub(lambda number: spoken(language, number[0]), written)


def _read(language: GrammarLanguage, written: str) -> str:
    with _lock:
        # Half a second for the grammars of all languages: whoever only looks at voices must not wait for it.
        from wetext import Normalizer

        return str(Normalizer(lang=language, operator="tn").normalize(written))
