"""The model card: ``MODEL_CARD.md`` beside a bundle's ``bundle.json``, made of what the bundle says of itself.

``Bundle.card`` is a mapping for people. All keys are optional; what is missing is left out of the card, or named there
as not measured where a reader must know. Any other key of a table's rows becomes a column.

===================  =================================================================================================
``data``             list of ``{name, licence, citation, organ, images, nuclei}``: what the weights were learned from
``encoder_weights``  where the encoder's first weights came from, and their licence
``regions``          how region labels came about
``started_from``     ``{name, sha256}`` of the bundle that was trained on
``folds``            one mapping, or a list with one a data set: ``{dataset, protocol, images, patients, quality,
                     by_fold}``. ``quality`` maps ``"metric class"``, such as ``"class_f1 til"``, to ``{value, low,
                     high}`` (95 % bootstrap over patients); ``by_fold`` is a list of ``{fold, images, patients,
                     quality}`` with plain numbers. :func:`folds_entry` makes one of a cross-validation's results.
                     ``network`` names another network whose figures they are
``held_out``         ``{groups, images, quality}`` of a network that was measured on patients set aside instead
``calibration``      ``{temperature, slope, intercept, folds, picture}``: :func:`calibration_entry` makes it
``thresholds``       text: on which images the decoding's thresholds were set (``threshold`` in older bundles)
``speed``            mapping, or list of mappings: ``{machine, runtime, precision, ms_per_tile, tile_px, ...}``
``int8``             ``{tool, images, measured_on, quality, weights, sha256, crop}`` of the network in 8 bits:
                     ``quality`` is a list of ``{figure, float32, int8}``, ``images`` those that ranges were taken
                     from, ``crop`` the pixels at each side of a tile that it leaves out
``tradeoff``         list of rows: encoder or width, test-time augmentation, accuracy, time
``ablations``        list of rows: ``{what, ...figures}``
``tried``            list of text, or of ``{what, result}``: what did not help
``failures``         list of ``{picture, caption}``; pictures are small files in the bundle's folder
``recipe``           mapping: the training run. ``command, commit, machine, precision, minutes``, ``cost`` (text)
``limits``           list of text
===================  =================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathopan.errors import BundleError
from pathopan.files import atomic_path
from pathopan.metrics import EvaluationResult, pool
from pathopan.metrics.calibrate import Calibration
from pathopan.network.bundle import Bundle, find_bundle, read_bundle
from pathopan.network.quantised import quantised_entry

CARD = "MODEL_CARD.md"

HEADLINES: tuple[tuple[str, str], ...] = (
    ("detection_f1", "all"),
    *(("class_f1", name) for name in ("til", "tumor", "stromal", "mean")),
    *(("hovernet_fc", name) for name in ("til", "tumor", "stromal")),
    *((name, "all") for name in ("pq", "sq", "rq", "pq_image_mean", "aji", "dice", "dice_image_mean")),
    ("class_pq", "mean"),
    ("mpq_image_mean", "all"),
    *(
        (f"{prefix}region_dice", name)
        for prefix in ("", "derived_")
        for name in ("tumor", "stroma", "tils", "stroma+tils")
    ),
    *((f"{prefix}panoptic_pq", "mean") for prefix in ("", "derived_")),
)
"""Figures of a card, where an evaluation has them."""

PUBLISHED: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "BRCA-M2C": (
        "MCSpatNet (Abousamra et al., ICCV 2021), from its own published predictions on its 30 test images, scored by "
        "the protocol used here",
        {
            "detection_f1 all": 0.855,
            "class_f1 til": 0.651,
            "class_f1 tumor": 0.796,
            "class_f1 stromal": 0.549,
            "class_f1 mean": 0.665,
        },
    ),
    "CoNSeP": (
        "HoVer-Net (Graham et al., Medical Image Analysis 58, 2019), as published, on the 14 test tiles",
        {
            "detection_f1 all": 0.756,
            "hovernet_fc tumor": 0.636,
            "hovernet_fc til": 0.631,
            "hovernet_fc stromal": 0.566,
            "pq_image_mean all": 0.548,
            "dice_image_mean all": 0.853,
        },
    ),
}
"""Figures of others, by data set: who, and figure -> value. Their test images are not the folds' images."""

INTENDED = (
    "Segments tissue regions and nuclei in H&E slides of breast carcinoma, and counts tumor-infiltrating lymphocytes "
    "in each region, **for research**. Not for diagnosis, and not for decisions about the treatment of a patient. "
    "Other organs, other stains, frozen sections and cytology are outside of what it was measured on: look at the "
    "overlays, and measure with `pathopan evaluate` on your own annotations, before you believe a number."
)


READING = (
    "Intervals are 95 % percentile bootstrap over patients. `class_f1` and `detection_f1`: predicted centres one to "
    "one to labelled points within 3 um, counts pooled over images, 2 TP / (2 TP + FP + FN). `hovernet_fc`: "
    "classification F1 as HoVer-Net defines it. `pq_image_mean`, `dice_image_mean`, `aji`: means over images. "
    "`class_pq mean` is mPQ+ (CoNIC), `mpq_image_mean` mPQ (PanNuke). `sq` is the mean IoU of matched nuclei. What "
    "starts with `derived_` is against region labels that were computed from nuclei.\n"
)


def write_model_card(bundle_folder: str | Path) -> Path:
    """Write ``MODEL_CARD.md`` beside ``bundle.json``, from nothing but what that says.

    Parameters
    ----------
    bundle_folder : str or Path
        Name or folder of a bundle.

    Returns
    -------
    Path
        Of the card.

    Raises
    ------
    BundleError
        If there is no such bundle, or its card is not as the schema in this module says.
    """
    folder = find_bundle(bundle_folder)
    bundle = read_bundle(folder)
    try:
        text = "\n".join(_sections(bundle, folder)).rstrip("\n") + "\n"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{folder / 'bundle.json'}: its card does not follow the schema of pathopan.training.card: {error!r}"
        raise BundleError(msg) from error
    path = folder / CARD
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def folds_entry(dataset: str, results: Sequence[EvaluationResult], *, protocol: str) -> dict[str, Any]:
    """Make the card's entry of a cross-validation.

    Parameters
    ----------
    dataset : str
        Name of the source, as ``Source.name`` has it.
    results : sequence of EvaluationResult
        One a fold, in order: its network on the images that it was not trained on.
    protocol : str
        What was held out, how nuclei were matched, and so on, in a sentence.
    """
    pooled = pool(results)
    return {
        "dataset": dataset,
        "protocol": protocol,
        "images": len(pooled.images),
        "patients": int(pooled.images["group"].nunique()),
        "quality": {
            name: {key: _short(row[key]) for key in ("value", "low", "high")} for name, row in _headlines(pooled)
        },
        "by_fold": [
            {
                "fold": index,
                "images": len(found.images),
                "patients": int(found.images["group"].nunique()),
                "quality": {name: _short(row["value"]) for name, row in _headlines(found)},
            }
            for index, found in enumerate(results)
        ],
    }


def calibration_entry(found: Calibration, *, picture: str | None = None) -> dict[str, Any]:
    """Make the card's entry of a calibration; ``picture`` is the file of its curves in the bundle's folder."""
    return {
        "temperature": _short(found.temperature.temperature),
        "slope": _short(found.platt.slope),
        "intercept": _short(found.platt.intercept),
        "folds": [
            {str(key): value if isinstance(value, str) else _short(value) for key, value in row.items()}
            for row in found.folds.to_dict("records")
        ],
        **({"picture": picture} if picture else {}),
    }


def _headlines(found: EvaluationResult) -> Iterator[tuple[str, dict[str, float]]]:
    rows = {(row["metric"], row["class"]): row for row in found.summary.to_dict("records")}
    for metric, cls in HEADLINES:
        if (metric, cls) in rows and not math.isnan(rows[metric, cls]["value"]):
            yield f"{metric} {cls}", rows[metric, cls]


def _short(value: float) -> float | int | None:
    """Shorten a figure; one that does not exist is ``None``, since JSON has no NaN."""
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else round(float(value), 4)


def _sections(bundle: Bundle, folder: Path) -> Iterator[str]:
    card = bundle.card
    yield f"# {bundle.name}\n\nA bundle of pathopan, generated from `bundle.json`. For research use only.\n"
    yield from _network(bundle)
    yield f"## Intended use\n\n{INTENDED}\n"
    if card.get("limits"):
        yield "## Limits\n\n" + _bullets(card["limits"])
    yield from _data(card)
    yield from _quality(card)
    yield from _calibration(card.get("calibration"), folder)
    speed = card.get("speed")
    yield "## Speed\n\n" + (_table([speed] if isinstance(speed, Mapping) else speed) if speed else "Not measured.\n")
    yield from _eight_bits(quantised_entry(bundle))
    for key, title in (("tradeoff", "Speed against accuracy"), ("ablations", "Ablations")):
        if card.get(key):
            yield f"## {title}\n\n" + _table(card[key])
    if card.get("tried"):
        yield "## Tried, and not kept\n\n" + _bullets(_text_of(entry) for entry in card["tried"])
    yield from _training(card)
    if card.get("failures"):
        yield "## Known failures\n"
        yield from (_picture(entry, folder) for entry in card["failures"])


def _network(bundle: Bundle) -> Iterator[str]:
    yield "## Network\n"
    arguments = ", ".join(f"{key} {value}" for key, value in bundle.arguments.items())
    rows = {
        "architecture": bundle.architecture + (f" ({arguments})" if arguments else ""),
        "regions": ", ".join(kind.name for kind in bundle.taxonomy.regions),
        "nuclei": ", ".join(kind.name for kind in bundle.taxonomy.nuclei),
        "resolution": f"{bundle.mpp} um per pixel",
        "tile": f"{bundle.step} px, read with a halo of {bundle.halo} px",
        "licence of the weights": bundle.licence or "not stated",
        "sha256 of the weights": f"`{bundle.sha256}`",
    }
    yield _table([{"what": key, "value": value} for key, value in rows.items()])


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Data\n"
    yield _table(card["data"]) if card.get("data") else "Not stated.\n"
    if card.get("started_from"):
        share = card.get("recipe", {}).get("start_share")
        kept = f"; {share:.0%} of each weight that ships is still theirs" if share else ""
        yield f"Training went on from the weights of {card['started_from']['name']}{kept}.\n"
    for key in ("encoder_weights", "regions"):
        if card.get(key):
            yield f"{key.replace('_', ' ').capitalize()}: {card[key]}.\n"


def _quality(card: Mapping[str, Any]) -> Iterator[str]:
    folds = card.get("folds") or []
    entries = [folds] if isinstance(folds, Mapping) else list(folds)
    held_out = card.get("held_out", {})
    if held_out.get("quality"):
        aside = f"{held_out['images']} images of patients that were never trained on: {', '.join(held_out['groups'])}"
        entries.append({"dataset": "held out", "protocol": aside, "quality": held_out["quality"]})
    yield "## Quality\n"
    if not entries:
        yield "Not measured.\n"
        return
    yield READING
    for entry in entries:
        yield from _measured(entry)
    for key in ("thresholds", "threshold"):
        if card.get(key):
            yield f"Thresholds: {card[key]}.\n"


def _measured(entry: Mapping[str, Any]) -> Iterator[str]:
    name = entry.get("dataset", "cross-validation")
    yield f"### {name}\n"
    size = [f"{entry[key]} {key}" for key in ("images", "patients") if key in entry]
    yield ". ".join(part for part in (str(entry.get("protocol", "")).rstrip("."), ", ".join(size)) if part) + ".\n"
    who, theirs = PUBLISHED.get(name, ("", {}))
    by_fold = entry.get("by_fold", [])
    rows = []
    for figure, value in entry["quality"].items():
        row: dict[str, Any] = {"figure": figure, entry.get("network", "this network"): value}
        if theirs:
            row["published"] = theirs.get(figure)
        rows.append(row | {f"fold {fold['fold']}": fold["quality"].get(figure) for fold in by_fold})
    yield _table(rows)
    if theirs:
        yield f"Published: {who}. These are other images than the folds': compare with care.\n"


def _calibration(entry: Mapping[str, Any] | None, folder: Path) -> Iterator[str]:
    yield "## Calibration\n"
    if not entry:
        yield "Not measured.\n"
        return
    yield (
        "Expected calibration error (ECE, 15 bins; Guo et al. 2017) of the likeliest class of matched nuclei, and of "
        "the probability that a detection is a nucleus. Each fold was corrected by a fit on the other folds.\n"
    )
    if entry.get("temperature") is not None:
        line = [f"temperature {_cell(entry['temperature'])} of the class probabilities"]
        if entry.get("slope") is not None:
            line.append(f"slope {_cell(entry['slope'])} and intercept {_cell(entry['intercept'])} of the detections")
        yield f"In the bundle: {', '.join(line)}, fitted on the folds' held-out nuclei.\n"
    if entry.get("folds"):
        yield _table(entry["folds"])
    if entry.get("picture"):
        yield _picture({"picture": entry["picture"], "caption": "Reliability before and after, all folds."}, folder)


def _eight_bits(entry: Mapping[str, Any] | None) -> Iterator[str]:
    if not entry:
        return
    yield "## In 8 bits\n"
    yield (
        f"`--set inference.precision=int8` runs it: weights and activations rounded after training by {entry['tool']}, "
        f"with ranges from {entry['images']} images that the network was trained on. Measured on "
        f"{entry['measured_on']}, on the machine that rounded it; a CPU without 8-bit dot products (AVX2 alone), whose "
        "sums saturate, loses more than others:\n"
    )
    yield _table(entry["quality"])


def _training(card: Mapping[str, Any]) -> Iterator[str]:
    keys = ("command", "commit", "machine", "precision", "minutes", "cost")
    rows = [{"what": key, "value": f"`{card[key]}`" if key == "command" else card[key]} for key in keys if key in card]
    recipe = card.get("recipe")
    if rows or recipe:
        yield "## Training\n"
    if rows:
        yield _table(rows)
    if recipe:
        yield "Recipe:\n"
        yield _table([{"setting": key, "value": _cell(value, digits=6)} for key, value in recipe.items()])


def _picture(entry: Mapping[str, Any], folder: Path) -> str:
    """Show a picture if it is there; its caption stands in any case."""
    name, caption = entry.get("picture"), str(entry["caption"])
    shown = f"![{caption}]({name})\n\n" if name and (folder / name).is_file() else ""
    return f"{shown}{caption}\n"


def _bullets(entries: Iterable[str]) -> str:
    return "".join(f"- {entry}\n" for entry in entries)


def _text_of(entry: str | Mapping[str, Any]) -> str:
    if isinstance(entry, str):
        return entry
    rest = ", ".join(f"{key} {_cell(value)}" for key, value in entry.items() if key not in ("what", "result"))
    return ": ".join(str(part) for part in (entry.get("what"), entry.get("result"), rest) if part)


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Lay out rows as a Markdown table; its columns are those of any row, in order."""
    listed = list(rows)
    columns = list(dict.fromkeys(str(key) for row in listed for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(name)) for name in columns] for row in listed)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any, *, digits: int = 4) -> str:
    """Write a value as it reads best: an interval in brackets, nothing as a dash."""
    if isinstance(value, Mapping) and set(value) == {"value", "low", "high"}:
        low, high = value["low"], value["high"]
        interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        return "-" if value["value"] is None else f"{value['value']:.3f}{interval}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(inner, digits=digits)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(inner, digits=digits) for inner in value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    text = f"{value:.{digits}g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
