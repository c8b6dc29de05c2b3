"""Numbers, money, dates, times and units as words, in English, Chinese and Japanese; other languages are untouched.

    text -> runs of one language (`languages`) -> english | east_asian -> words; numbers are wetext's (`grammars`)

Pure functions on strings that `text.normalise` returned. Knows no request, no model and no markdown.
"""

from serve_app.normalisation.languages import Languages, TextLanguages
from serve_app.normalisation.writing import normalisers, written_out, written_out_parts

__all__ = ["Languages", "TextLanguages", "normalisers", "written_out", "written_out_parts"]
