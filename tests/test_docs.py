"""The pages say what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

from sqlflow_dagster.language.parser import parse

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def built():
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("name", ["connectors.md", "profiles.md", "cli.md"])
def test_a_reference_page_is_what_the_code_says(name):
    assert (DOCS / name).read_text("utf-8") == built()[name], "run: python docs/build.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_pipeline_on_a_page_parses(page):
    for block in re.findall(r"```sql\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        assert parse(block, page.name).statements
