"""What the documents refer to exists."""

import re
from pathlib import Path

import pytest
import yaml

from serve_app import errors, keys
from serve_app.settings import BuildArgs

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
ANCHORED = re.compile(r"\]\((?!https?://)([^)#]*)#([^)]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path):
    """A reader who follows a link finds a file."""
    assert [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_heading_leads_to_one(document: Path):
    """An anchor is the heading's words, as GitHub makes it of them."""
    for path, anchor in ANCHORED.findall(document.read_text()):
        headings = re.findall(r"^#+ (.*)", (document.parent / path if path else document).read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings], path


def test_every_file_that_the_architecture_names_exists():
    """The table of ARCHITECTURE.md is the tree as it is."""
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    named = [name for cell in table for name in re.findall(r"`([^`]+)`", cell)]
    missing = [name for name in named if not any((ROOT / at / name).exists() for at in ("", "serve_app"))]
    assert (missing, len(named) > 20) == ([], True)


def test_the_configured_models_of_the_docs_are_valid():
    """The example of docs/configuration.md is accepted as it stands."""
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL).group(1)
    args = BuildArgs.model_validate(yaml.safe_load(example))
    assert [model.name for model in args.models] == ["preview", "f5"]


def test_every_error_code_is_documented():
    """A client finds every code that it can meet in docs/api.md."""
    documented = (ROOT / "docs/api.md").read_text()
    codes = {getattr(errors, name).code for name in errors.__all__}
    internal = {"config_error", "model_load_failed", "storage_error"}  # end a deployment, or are bases
    assert sorted(code for code in codes - internal if f"`{code}`" not in documented) == []


def test_what_a_module_exports_exists():
    """__all__ is the list of what other modules may import."""
    for module in (errors, keys):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
