"""The data dictionary: every column of every table with its type, unit and meaning, made from the schemas.

``python -m pathopan.dictionary docs/data-dictionary.md README.md`` writes it into the first file, and the columns that
most people read between two marks of the second. A test says that both are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pathopan.classes import BREAST, Taxonomy
from pathopan.scores import scores_schema
from pathopan.scores.columns import HEADLINE
from pathopan.tables import TILES, Column, Schema, nuclei_schema, regions_schema

BEGIN, END = "<!-- data dictionary: made by make docs -->", "<!-- data dictionary ends -->"

_TYPES = {"int": "integer", "float": "number", "str": "text", "bool": "true or false", "geometry": "geometry"}

_INTRODUCTION = """\
# Data dictionary

Made from the schemas in the code by `make docs`; for the classes of another bundle, `pathopan dictionary RESULTS`.

* **Empty is not 0.** A ratio whose denominator is 0 or too small is empty; `score.json` and the column `reason` say
  why.
* **Units stand in the names**: `_um`, `_um2`, `_mm2`, `_per_mm2`, `_percent`. Fractions lie in 0 to 1.
* **Places**: `x_um, y_um` and `geometry` start at the upper left corner of the slide as QuPath shows it; geometry is in
  level-0 pixels (GeoParquet 1.1 without a coordinate system), so `geometry * mpp` is in micrometres.
* A nucleus belongs to the region and to the compartment that hold its centroid.
* CSV files hold the same columns without `geometry`; a text that a spreadsheet would run as a formula is preceded by an
  apostrophe.
"""

_SHOWN_OF_SCORES = (
    "stil_percent",
    "stil_density_per_mm2",
    "stil_area_fraction",
    "stil_n_til",
    "stil_area_mm2",
    "itil_per_mm2",
    "itil_per_100_tumor_cells",
    "phenotype",
)


def data_dictionary(taxonomy: Taxonomy) -> str:
    """Write the data dictionary of a taxonomy as Markdown."""
    tables = (
        ("`scores.csv`, `scores.parquet`: a row per slide", scores_schema(taxonomy)),
        ("`regions.parquet`: a row per connected region", regions_schema(taxonomy)),
        ("`nuclei.parquet`: a row per nucleus", nuclei_schema(taxonomy)),
        ("`tiles.parquet`: a row per tile", TILES),
    )
    parts = [_INTRODUCTION]
    for title, schema in tables:
        parts.append(f"## {title}\n\n{len(schema.columns)} columns.{_remark(schema)}\n\n{_table(schema.columns)}")
    return "\n".join(parts)


def excerpt(taxonomy: Taxonomy) -> str:
    """Write the columns that most people read: the headline scores and a region's row."""
    headline = [column for name in _SHOWN_OF_SCORES for column in HEADLINE if column.name == name]
    return (
        f"Headline columns of `scores.csv`:\n\n{_table(headline)}\n"
        f"A row of `regions.parquet`:\n\n{_table(regions_schema(taxonomy).columns)}"
    )


def _remark(schema: Schema) -> str:
    if schema.name == "regions":
        return " The run's own `regions.parquet` has `slide_id` before them."
    return ""


def _table(columns: Iterable[Column]) -> str:
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *_rows(columns), ""])


def _rows(columns: Iterable[Column]) -> Iterator[str]:
    for column in columns:
        meaning = column.meaning.replace("|", "\\|")
        yield f"| `{column.name}` | {_TYPES[column.kind]} | {column.unit} | {meaning} |"


def put_between(text: str, new: str) -> str:
    """Replace what stands between the two marks.

    Raises
    ------
    ValueError
        If a mark is missing.
    """
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        msg = f"the text lacks the marks {BEGIN!r} and {END!r}"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n{new}{END}{after}"


def main(dictionary: Path, readme: Path) -> None:
    """Write both files."""
    dictionary.write_text(data_dictionary(BREAST), encoding="utf-8")
    readme.write_text(put_between(readme.read_text(encoding="utf-8"), excerpt(BREAST)), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
