"""The data dictionary in the docs and in the README is what the schemas say now."""

from pathlib import Path

import pytest

from pathopan.classes import BREAST
from pathopan.dictionary import BEGIN, END, data_dictionary, excerpt, put_between
from pathopan.scores import scores_schema
from pathopan.tables import TILES, nuclei_schema, regions_schema

REPOSITORY = Path(__file__).parents[1]
STALE = "out of date: run `make docs`"


def test_the_dictionary_in_the_docs_is_current():
    assert (REPOSITORY / "docs" / "data-dictionary.md").read_text(encoding="utf-8") == data_dictionary(BREAST), STALE


def test_the_excerpt_in_the_readme_is_current():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert put_between(text, excerpt(BREAST)) == text, STALE


def test_every_column_stands_in_it_with_type_unit_and_meaning():
    lines = set(data_dictionary(BREAST).splitlines())
    for schema in (scores_schema(BREAST), regions_schema(BREAST), nuclei_schema(BREAST), TILES):
        for column in schema.columns:
            (line,) = {line for line in lines if line.startswith(f"| `{column.name}` |") and column.meaning in line}
            assert f"| {column.unit} |" in line


def test_a_text_without_marks_is_refused():
    assert put_between(f"a\n{BEGIN}\nold\n{END}\nb", "new\n") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="lacks the marks"):
        put_between("no marks", "new")
