"""A few of each damage at every entry point: refused well or processed, never anything else."""

import sys
import tempfile
from pathlib import Path

import hostile_table
import pytest
from corpus import SMALL


@pytest.fixture
def open_to_all():
    """A folder that any user can reach; pytest's own are closed, and then nothing in them could be told apart."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_comes_is_refused_well_or_processed(open_to_all):
    entries = {"slide", "mask", "geojson", "manifest", "config", "calibration", "recipe", "bundle", "results"}
    tried = list(hostile_table.try_all(hostile_table.build(open_to_all, SMALL, entries)))
    sys.stdout.write("\n".join(hostile_table.table(tried)))
    assert {one.case.entry for one in tried} == entries
    assert [(one.case, one.end, one.text) for one in tried if not one.well] == []
