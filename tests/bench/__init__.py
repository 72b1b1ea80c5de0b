"""The bench: what the engine needs in time and memory, as ratios within one run. ``make bench``.

Figures rest on large slides that are mosaics of real H&E patches; they are built once and kept outside the repository.
"""
