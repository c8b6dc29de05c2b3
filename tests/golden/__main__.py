"""Writes the golden file anew: `python -m tests.golden`. Read every line of the difference: it is what people hear."""

import json

from tests.support.golden import GOLDEN, golden_texts, spoken_of, units_of


def main() -> None:
    texts = [golden | {"spoken": spoken_of(golden), "units": units_of(golden)} for golden in golden_texts()]
    GOLDEN.write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
