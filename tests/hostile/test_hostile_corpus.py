"""A few of each damage at every entry point: refused well or processed, never anything else."""

import sys

import hostile_table
import pytest
from corpus import SMALL


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_comes_is_refused_well_or_processed(tmp_path):
    tmp_path.chmod(0o755)
    entries = {"slide", "mask", "geojson", "manifest", "config", "calibration", "recipe", "bundle", "results"}
    tried = list(hostile_table.try_all(hostile_table.build(tmp_path, SMALL, entries)))
    sys.stdout.write("\n".join(hostile_table.table(tried)))
    assert {one.case.entry for one in tried} == entries
    assert [(one.case, one.end, one.text) for one in tried if not one.well] == []
