"""Train a joint network: setup, loop, save. Read it top to bottom.

Everything random is a pure function of the recipe's seed and the step, and a checkpoint holds the weights, their moving
average, the optimiser and the step: a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import csv
import functools
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.sample import Sample
from pathopan.errors import ConfigError
from pathopan.files import atomic_path
from pathopan.network.bundle import Bundle
from pathopan.network.losses import Batch, total_loss
from pathopan.network.precision import BFLOAT16, fast_autocast, fast_precision
from pathopan.training.batches import CropRules, CropStream
from pathopan.training.optimiser import build_optimiser
from pathopan.training.outlines import outline_points
from pathopan.training.recipe import CHECKPOINT_EVERY, Recipe

OUTLINES = "outlines.safetensors"
"""In a run's folder: the outlines of points by the network that it had become."""

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    samples: Sequence[Sample],
    folder: Path,
    *,
    device: str = "auto",
    workers: int = 1,
    taxonomy: Taxonomy = BREAST,
    start_from: nn.Module | None = None,
) -> tuple[Bundle, nn.Module]:
    """Run a recipe, or go on where an earlier run in the folder was stopped.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    samples : sequence of Sample
        Of all data sets; groups in ``recipe.hold_out`` are left out.
    folder : Path
        For ``curve.csv`` and ``checkpoint.safetensors``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    workers : int
        Processes that make batches; 0 makes them in line, with the same result.
    taxonomy : Taxonomy
        Classes and the order of the channels.
    start_from : Module, optional
        Fine-tune this network instead of starting from the recipe's encoder weights.

    Returns
    -------
    bundle : Bundle
        Description, without measured quality; its card tells the precision that the network was computed in.
    net : Module
        The moving average of the weights, in evaluation mode.

    Raises
    ------
    ConfigError
        If the folder holds a run of another recipe, or no sample is left to train on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    kept = [sample for sample in samples if sample.group not in recipe.hold_out]
    torch.manual_seed(recipe.seed)
    bundle = describe(recipe, taxonomy)
    net = (start_from or bundle.build(weights=recipe.encoder_weights)).to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
    )
    optimiser = build_optimiser(recipe.optimiser, net, weight_decay=recipe.weight_decay)
    first = _resume(folder, recipe, net=net, average=average, optimiser=optimiser)
    before = training_effort(folder)
    precision = _precision(place, before.precision)
    if place.type == "cpu":
        use_float32_depthwise(net)
    rates = nucleus_weights(kept, taxonomy).to(place)
    net.train()
    started = time.monotonic()
    spans = _spans(recipe, kept, lambda pointed: _outlined(pointed, average.module, bundle, folder), start=first)
    stream = (item for span, drawn in spans for item in _batches(recipe, drawn, taxonomy, span=span, workers=workers))
    for step, batch in stream:
        terms = _step(net, batch, optimiser, recipe=recipe, step=step, weight_N=rates)
        average.update_parameters(net)
        _record(folder, step, terms)
        if (step + 1) % 20 == 0:
            left = (time.monotonic() - started) / (step + 1 - first) * (recipe.steps - step - 1)
            log.info("step %d/%d loss %.3f, %.0f min left", step + 1, recipe.steps, terms["loss"], left / 60)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == recipe.steps:
            minutes = before.minutes + (time.monotonic() - started) / 60
            progress = {"step": str(step + 1), "minutes": f"{minutes:.2f}", "precision": precision}
            _save(folder, recipe, net=net, average=average, optimiser=optimiser, progress=progress)
    card = {"precision": training_effort(folder).precision}
    return replace(bundle, card=card), average.module.eval().float().cpu()


def _precision(place: torch.device, before: str) -> str:
    """Name the precision of a run, and warn where it goes on in another than it began in."""
    here = fast_precision(place.type)
    if not before or before == here:
        return here
    log.warning(
        "this run was trained in %s so far and goes on in %s, the fast one here: the curve may differ", before, here
    )
    return before if here in before else f"{before} and {here}"


def describe(recipe: Recipe, taxonomy: Taxonomy) -> Bundle:
    """Give the bundle that a recipe leads to, before anything is trained."""
    rules = CropRules(mpp=recipe.mpp)
    return Bundle(
        name=recipe.name,
        taxonomy=taxonomy,
        architecture=recipe.architecture,
        arguments=recipe.arguments,
        mpp=recipe.mpp,
        step=recipe.step_px,
        halo=recipe.halo_px,
        mean=rules.mean,
        std=rules.std,
        decode=recipe.decode,
    )


def learning_rate(step: int, recipe: Recipe) -> float:
    """One cycle: rise over the first tenth, then fall along a cosine to a hundredth (Smith & Topin 2018)."""
    done = step / max(1, recipe.steps)
    if done < 0.1:
        return recipe.learning_rate * (0.05 + 0.95 * done / 0.1)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9)))


def nucleus_weights(samples: Sequence[Sample], taxonomy: Taxonomy) -> Tensor:
    """Weigh classes by the inverse square root of their number, with mean 1."""
    counts = torch.ones(len(taxonomy.nuclei))
    for sample in samples:
        for channel, kind in enumerate(taxonomy.nuclei):
            counts[channel] += int((sample.nuclei["class_id"] == kind.id).sum())
    weights = counts.clamp(min=counts.max() / 100).rsqrt()
    return weights / weights.mean()


def _spans(
    recipe: Recipe,
    samples: Sequence[Sample],
    outlined: Callable[[Sequence[Sample]], Sequence[Sample]],
    *,
    start: int,
) -> Iterator[tuple[range, Sequence[Sample]]]:
    """Yield steps and the samples to draw from: as they are read, then with outlines where there were points."""
    turn = recipe.outline_step or recipe.steps
    if start < turn:
        yield range(start, turn), samples
    if turn < recipe.steps:
        yield range(max(start, turn), recipe.steps), outlined(samples)


def _outlined(samples: Sequence[Sample], average: nn.Module, bundle: Bundle, folder: Path) -> list[Sample]:
    """Outline points by the moving average of the weights."""
    was_training = average.training
    found = outline_points(samples, average.eval(), bundle, path=folder / OUTLINES)
    average.train(was_training)
    return found


def _batches(
    recipe: Recipe, samples: Sequence[Sample], taxonomy: Taxonomy, *, span: range, workers: int
) -> Iterator[tuple[int, Batch]]:
    rules = CropRules(
        mpp=recipe.mpp,
        side=recipe.crop_px,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        artefact_share=recipe.artefact_share,
        stain_strength=recipe.stain_strength,
        density=(recipe.density[0], recipe.density[1]),
        stain_hue=recipe.stain_hue,
    )
    zooms = {name: (low, high) for name, (low, high) in recipe.zooms.items()}
    stream = CropStream(samples, recipe.shares, scales=zooms, taxonomy=taxonomy, rules=rules, start=span.start)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
    return zip(span, loader, strict=False)


def use_float32_depthwise(net: nn.Module) -> None:
    """Keep depthwise convolutions of a network out of bfloat16 autocast, for training on a CPU.

    oneDNN's backward pass of a depthwise convolution took 3 to 9 times as long in bfloat16 as in float32 (measured on
    AVX512-BF16 with torch 2.13); everything else is faster in bfloat16. The weights are float32 either way.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = functools.partial(_in_float32, module.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.autocast(image.device.type, enabled=False):
        return forward(image.float()).to(image.dtype)


def _step(
    net: nn.Module,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    *,
    recipe: Recipe,
    step: int,
    weight_N: Tensor,
) -> dict[str, float]:
    """Go one step down and return the loss and its terms."""
    torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout and stochastic depth are of the step, not of the start
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, recipe)
    place = weight_N.device
    batch = Batch(*(tensor.to(place, non_blocking=True) for tensor in batch))
    image = batch.image_B3HW.contiguous(memory_format=torch.channels_last)
    with fast_autocast(place):
        logits, free = net.forward_unconstrained(image)  # type: ignore[operator]
    loss, terms = total_loss(logits, free, batch, weights=recipe.losses, nucleus_weight_N=weight_N)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), recipe.gradient_clip)
    optimiser.step()
    return {"loss": float(loss.detach()), **terms}


def _record(folder: Path, step: int, terms: dict[str, float]) -> None:
    path = folder / "curve.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if fresh:
            writer.writerow(["step", *terms])
        writer.writerow([step, *(f"{value:.5f}" for value in terms.values())])


def _save(
    folder: Path,
    recipe: Recipe,
    *,
    net: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: dict[str, str],
) -> None:
    """Write weights, moving average and optimiser as safetensors: a checkpoint holds no code either."""
    tensors = {f"net.{key}": value for key, value in net.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    recipe_text = json.dumps(recipe.to_dict(), sort_keys=True)
    with atomic_path(folder / "checkpoint.safetensors") as temporary:
        save_file(
            {key: value.detach().clone().contiguous() for key, value in tensors.items()},
            temporary,
            metadata={**progress, "recipe": recipe_text},
        )


class Effort(NamedTuple):
    """What training up to a checkpoint took, over all its restarts."""

    minutes: float
    precision: str  # that the network was computed in; both, joined by " and ", where a run moved to another machine


def training_effort(folder: Path) -> Effort:
    """Read from a run's checkpoint what training up to it took; nothing where there is none."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return Effort(0.0, "")
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    precision = metadata.get("precision", BFLOAT16)  # before it was noted there was no other
    return Effort(float(metadata.get("minutes", 0)), precision)


def _resume(
    folder: Path, recipe: Recipe, *, net: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Load the folder's checkpoint if there is one, cut the curve back to it, and return the step to go on with."""
    path = folder / "checkpoint.safetensors"
    curve = folder / "curve.csv"
    if not path.exists():
        curve.unlink(missing_ok=True)
        (folder / OUTLINES).unlink(missing_ok=True)
        return 0
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
        if not recipe.learns_as(json.loads(metadata["recipe"])):
            msg = f"{folder} holds a run of another recipe; choose another folder, or delete {path.name} to start anew"
            raise ConfigError(msg)
        groups: dict[str, dict[str, Tensor]] = {"net": {}, "average": {}, "optimiser": {}}
        for key in stored.keys():  # noqa: SIM118 (not a dict)
            room, _, name = key.partition(".")
            groups[room][name] = stored.get_tensor(key)
    net.load_state_dict(groups["net"])
    average.load_state_dict(groups["average"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in groups["optimiser"].items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    step = int(metadata["step"])
    if curve.exists():
        lines = curve.read_text(encoding="utf-8").splitlines(keepends=True)
        curve.write_text("".join(lines[: step + 1]), encoding="utf-8")
    return step
