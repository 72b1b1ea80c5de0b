"""What each column and score means, in a line: for reports and the data dictionary."""

from __future__ import annotations

from pathopan.classes import Taxonomy
from pathopan.scores import scores_schema
from pathopan.tables import nuclei_schema, regions_schema


def definitions(taxonomy: Taxonomy) -> dict[str, str]:
    """Give the meaning and the unit of every column of the nuclei, regions and scores tables."""
    schemas = (nuclei_schema(taxonomy), regions_schema(taxonomy), scores_schema(taxonomy))
    columns = [column for schema in schemas for column in schema.columns]
    return {c.name: f"{c.meaning} [{c.unit}]" if c.unit else c.meaning for c in columns}
