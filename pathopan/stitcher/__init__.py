"""Many tiles to one slide."""
