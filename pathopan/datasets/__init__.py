"""Other people's ground truth as one type, :class:`~pathopan.datasets.sample.Sample`.

>>> from pathopan.datasets import read_dataset
>>> samples = read_dataset("bcss", "path/to/BCSS")                     # doctest: +SKIP

Each reader is a generator ``read(root, ...)`` that maps the set's labels through the taxonomy, and says in the sample
what the set did not annotate. Licence and citation travel with every sample.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets import (
    bcss,
    brca_m2c,
    consep,
    dsb2018,
    lizard,
    monuseg,
    nucls,
    pannuke,
    panoptils,
    qupath,
    tiger,
)
from pathopan.datasets.sample import Sample, Source
from pathopan.errors import DatasetError

Reader = Callable[..., Iterator[Sample]]

READERS: Mapping[str, Reader] = {
    "bcss": bcss.read,
    "brca_m2c": brca_m2c.read,
    "conic": lizard.read_conic,
    "consep": consep.read,
    "dsb2018": dsb2018.read,
    "lizard": lizard.read,
    "monusac": monuseg.read_monusac,
    "monuseg": monuseg.read,
    "nucls": nucls.read,
    "pannuke": pannuke.read,
    "panoptils": panoptils.read,
    "qupath": qupath.read,
    "tiger": tiger.read,
}
"""Name -> reader."""

__all__ = ["READERS", "Sample", "Source", "read_dataset"]


def read_dataset(name: str, root: Path | str, *, taxonomy: Taxonomy = BREAST, **options: Any) -> Iterator[Sample]:
    """Yield the samples of a data set, by its name.

    Parameters
    ----------
    name : str
        Of a reader, see ``READERS``.
    root : Path or str
        The data set's folder.
    taxonomy : Taxonomy
        The classes that its labels are mapped to.
    **options
        Of that reader; those that are ``None`` are left at their defaults.

    Raises
    ------
    DatasetError
        If no reader has that name, or it has no such option, and whatever the reader raises.
    """
    if name not in READERS:
        near = difflib.get_close_matches(name, READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        msg = f"no reader for data set {name!r}{hint} Known: {', '.join(READERS)}"
        raise DatasetError(msg)
    reader, given = READERS[name], {key: value for key, value in options.items() if value is not None}
    _, *known = inspect.signature(reader).parameters
    if unknown := sorted(set(given) - set(known)):
        has = ", ".join(option for option in known if option != "taxonomy") or "none"
        msg = f"the reader of {name} has no option {', '.join(unknown)}; it has {has}"
        raise DatasetError(msg)
    return reader(Path(root), **given, **({"taxonomy": taxonomy} if "taxonomy" in known else {}))
