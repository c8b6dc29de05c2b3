"""The blocks of docs/clients.md are short, and all of them are run by tests/e2e/test_clients_doc.py."""

import re
from pathlib import Path

DOCUMENT = (Path(__file__).parents[2] / "docs/clients.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def test_each_client_is_shown_in_five_lines():
    """Beside its imports."""
    longest = [
        block for block in BLOCKS if len([x for x in block.splitlines() if x and not re.match("import |from ", x)]) > 5
    ]
    assert (longest, len(BLOCKS)) == ([], 7)


def test_each_section_has_one_block():
    """The end-to-end test runs the first of a section: there is no second one that it would leave out."""
    sections = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections if section.count("```") not in (0, 2)] == []
    assert sum(section.count("```") == 2 for section in sections) == len(BLOCKS) + 1
