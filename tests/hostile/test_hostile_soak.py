"""The soak, small: twenty slides of which two are bad, killed twice."""

import pytest
import soak


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cohort_that_is_killed_and_resumed_ends_as_it_must(tmp_path):
    lines = soak.run(soak.Soak(slides=20, kills=2), tmp_path)
    assert lines[-1] == "left behind: 0 temporary files, 0 locks, 0 processes"
