"""Who executes the network: torch (CUDA or CPU) or OpenVINO (CPU), behind one small protocol.

On a CPU a batch is run one tile at a time, with a fixed number of threads: batching gains nothing there, and so the
result cannot depend on the batch size.
"""

from __future__ import annotations

import threading
import warnings
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pathopan.errors import RuntimeUnavailable
from pathopan.network.bundle import Bundle
from pathopan.network.model import InferenceNet


class TileMaps(NamedTuple):
    """What the network says of one read window."""

    region: npt.NDArray[np.uint8]  # (H, W) region channel, 0-based
    nucleus: npt.NDArray[np.float32]  # (N, H, W) probability of each class, given a nucleus
    shape: npt.NDArray[np.float32]  # (4, H, W) centre and foreground probability, offset x and y


class Runtime(Protocol):
    """Executes a network; safe to call from ``streams`` threads at once."""

    name: str
    device: str
    precision: str
    streams: int

    def run(self, image_BHW3: npt.NDArray[np.uint8]) -> list[TileMaps]:
        """Look at a batch of read windows."""


class TorchRuntime:
    """torch on CUDA or CPU."""

    name = "torch"

    def __init__(self, net: nn.Module, bundle: Bundle, *, device: str, precision: str) -> None:
        self.device = device.partition(":")[0]
        self.precision = _torch_precision(self.device, precision)
        self.streams = 1
        self._place = device
        self._net = InferenceNet(net, bundle.mean, bundle.std).eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, image_BHW3: npt.NDArray[np.uint8]) -> list[TileMaps]:
        """Look at a batch of read windows."""
        images = torch.from_numpy(image_BHW3)
        if self.device == "cpu":
            return [maps for image in images for maps in self._forward(image[None])]
        return self._forward(images)

    def _forward(self, image_BHW3: torch.Tensor) -> list[TileMaps]:
        image_BHW3 = image_BHW3.to(self._place, non_blocking=True)
        with (
            torch.inference_mode(),
            torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            region, nucleus, shape = self._net(image_BHW3)
        parts = (region.cpu().numpy(), nucleus.float().cpu().numpy(), shape.float().cpu().numpy())
        return [TileMaps(*maps) for maps in zip(*parts, strict=True)]


def _torch_precision(device: str, precision: str) -> str:
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


class OpenVinoRuntime:
    """OpenVINO on a CPU, with two requests in flight so that one computes while the other is fed."""

    name = "openvino"
    device = "cpu"

    def __init__(self, net: nn.Module, bundle: Bundle, *, precision: str) -> None:
        import openvino

        side = bundle.step + 2 * bundle.halo
        example = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)  # tracing is quicker on a small one; no shape is kept
        with warnings.catch_warnings():  # torch announces what comes after tracing, and openvino traces
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(
                InferenceNet(net, bundle.mean, bundle.std).eval(), example_input=example, input=[(1, side, side, 3)]
            )
        self.streams = 2
        settings = {"NUM_STREAMS": str(self.streams), "PERFORMANCE_HINT": "THROUGHPUT"}
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[precision]
        self._model = openvino.Core().compile_model(converted, "CPU", settings)
        found = str(self._model.get_property("INFERENCE_PRECISION_HINT"))
        self.precision = "bfloat16" if "bfloat16" in found or "bf16" in found else "float32"
        self._local = threading.local()

    def run(self, image_BHW3: npt.NDArray[np.uint8]) -> list[TileMaps]:
        """Look at a batch of read windows."""
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        return [self._forward(image[None]) for image in image_BHW3]

    def _forward(self, image_1HW3: npt.NDArray[np.uint8]) -> TileMaps:
        outputs = self._local.request.infer({0: image_1HW3})
        region, nucleus, shape = (outputs[index][0] for index in range(3))
        return TileMaps(region, nucleus, shape)


def open_runtime(
    net: nn.Module, bundle: Bundle, *, device: str = "auto", runtime: str = "auto", precision: str = "auto"
) -> Runtime:
    """Choose who executes the network.

    Parameters
    ----------
    net : Module
        In evaluation mode.
    bundle : Bundle
        Its tile size and normalisation.
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, or one of several such as ``cuda:1``.
    runtime : str
        ``auto`` (torch on CUDA; on a CPU OpenVINO where installed), ``torch`` or ``openvino``.
    precision : str
        ``auto`` (bfloat16 where the hardware has it), ``float32`` or ``bfloat16``.

    Raises
    ------
    RuntimeUnavailable
        If the device or the runtime asked for is not there.
    """
    kind, _, number = device.partition(":")
    if kind == "cuda" and runtime == "openvino":
        msg = "runtime 'openvino' runs on a CPU only; use --device cpu, or --set inference.runtime=torch"
        raise RuntimeUnavailable(msg)
    if kind == "cuda" and not torch.cuda.is_available():
        msg = (
            f"device {device!r} was asked for, but torch sees none; use --device cpu, or install a CUDA build of torch"
        )
        raise RuntimeUnavailable(msg)
    if number and int(number) >= torch.cuda.device_count():
        msg = f"device {device!r} was asked for, but torch sees {torch.cuda.device_count()}; they count from 0"
        raise RuntimeUnavailable(msg)
    if device == "auto":
        kind = device = "cuda" if torch.cuda.is_available() and runtime != "openvino" else "cpu"
    if runtime == "torch" or kind == "cuda":
        return TorchRuntime(net, bundle, device=device, precision=precision)
    try:
        return OpenVinoRuntime(net, bundle, precision=precision)
    except ImportError as error:
        if runtime == "auto":
            return TorchRuntime(net, bundle, device=device, precision=precision)
        msg = "runtime 'openvino' was asked for and is not installed: pip install openvino"
        raise RuntimeUnavailable(msg) from error
