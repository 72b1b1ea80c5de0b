"""Who executes the network: torch (CUDA or CPU) or OpenVINO (CPU), behind one small protocol.

A batch is run one tile at a time: a tile of two megapixels fills a device, and so the result cannot depend on the batch
size. Two tiles are in flight, so that one computes while the other is fed and fetched.

In float32 the runtimes agree to 2e-3 in class probabilities and 5e-3 in shape maps, and call another region class on
fewer than 0.1 % of pixels. bfloat16, which is chosen where the hardware has it, rounds every layer to 8 bits of
mantissa. int8 is another network, made of the first and measured against it (`pathopan.training.quantise`): it is run
where it is asked for.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pathopan.errors import IncompatibleBundle, RuntimeUnavailable
from pathopan.inference.memory import give_back
from pathopan.inference.telemetry import without_telemetry
from pathopan.network.bundle import Bundle
from pathopan.network.lean import lean_net
from pathopan.network.model import InferenceNet
from pathopan.network.precision import fast_precision
from pathopan.network.quantised import Quantised


class TileMaps(NamedTuple):
    """What the network says of one read window, or of its middle: without the context that every pixel there had."""

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

    def release(self) -> None:
        """Give back memory that only :meth:`run` needs, which may be called again; nothing may be running."""


class TorchRuntime:
    """torch on CUDA or CPU. On CUDA each of two threads has a stream, pinned memory both ways, and copies overlap."""

    name = "torch"

    def __init__(self, net: nn.Module, bundle: Bundle, *, device: str, precision: str, crop: int = 0) -> None:
        self.device = device.partition(":")[0]
        self.precision = fast_precision(device) if precision == "auto" else precision
        self.streams = 1 if self.device == "cpu" else 2
        self._place = torch.device(device)
        wrapped = InferenceNet(lean_net(net, crop), bundle.mean, bundle.std).eval()
        self._net = wrapped.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._local = threading.local()

    def run(self, image_BHW3: npt.NDArray[np.uint8]) -> list[TileMaps]:
        """Look at a batch of read windows."""
        look = self._forward if self.device == "cpu" else self._forward_cuda
        return [TileMaps(*(part[0] for part in look(image[None]))) for image in torch.from_numpy(image_BHW3)]

    def release(self) -> None:
        """Keep all: on a CPU torch frees what it computes with itself, and a GPU's memory serves the next slide."""

    def _forward(self, image_1HW3: torch.Tensor) -> list[npt.NDArray[Any]]:
        region, nucleus, shape = self._compute(image_1HW3)
        return [region.cpu().numpy(), nucleus.float().cpu().numpy(), shape.float().cpu().numpy()]

    def _forward_cuda(self, image_1HW3: torch.Tensor) -> list[npt.NDArray[Any]]:
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._place)
        stream: torch.cuda.Stream = self._local.stream
        with torch.cuda.stream(stream):
            region, nucleus, shape = self._compute(image_1HW3.pin_memory().to(self._place, non_blocking=True))
            found = [region, nucleus.float(), shape.float()]
            pinned = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in found]
            for here, there in zip(pinned, found, strict=True):
                here.copy_(there, non_blocking=True)
        stream.synchronize()
        return [part.numpy() for part in pinned]

    def _compute(self, image_1HW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        half = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device, dtype=torch.bfloat16, enabled=half):
            region, nucleus, shape = self._net(image_1HW3)
        return region, nucleus, shape


class OpenVinoRuntime:
    """OpenVINO on a CPU, with two requests in flight so that one computes while the other is fed."""

    name = "openvino"
    device = "cpu"

    def __init__(
        self, net: nn.Module, bundle: Bundle, *, precision: str, crop: int = 0, quantised: Quantised | None = None
    ) -> None:
        side = bundle.step + 2 * bundle.halo
        if quantised is None:
            model = convert_to_openvino(net, bundle, shape=(1, side, side, 3), crop=crop)
        else:
            model = _read_quantised(quantised, bundle, crop)
            model.reshape([1, side, side, 3] if crop else [1, -1, -1, 3])
        import openvino

        self.streams = 2
        settings = {"NUM_STREAMS": str(self.streams), "PERFORMANCE_HINT": "THROUGHPUT"}
        if precision in _HINTS:
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
        self._model = openvino.Core().compile_model(model, "CPU", settings)
        found = str(self._model.get_property("INFERENCE_PRECISION_HINT"))
        computed = "bfloat16" if "bfloat16" in found or "bf16" in found else "float32"
        self.precision = computed if quantised is None else "int8"
        self._local = threading.local()
        del model
        give_back()  # the conversion's memory, 0.3 GiB

    def run(self, image_BHW3: npt.NDArray[np.uint8]) -> list[TileMaps]:
        """Look at a batch of read windows."""
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        return [self._forward(image[None]) for image in image_BHW3]

    def release(self) -> None:
        """Give back the activations of both streams: 0.9 GiB in float32 at 1,600 px a side."""
        self._model.release_memory()
        give_back()

    def _forward(self, image_1HW3: npt.NDArray[np.uint8]) -> TileMaps:
        outputs = self._local.request.infer({0: image_1HW3})
        region, nucleus, shape = (outputs[index][0] for index in range(3))
        return TileMaps(region, nucleus, shape)


_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def convert_to_openvino(
    net: nn.Module, bundle: Bundle, *, shape: tuple[int, ...], crop: int = 0, add_up: bool = True
) -> Any:
    """Turn a network into OpenVINO's form, for read windows of a shape (1, H, W, 3); -1 is any size.

    With ``crop``, it answers for all but so many pixels at each side; ``add_up`` is told in `lean_net`.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    """
    with without_telemetry():
        import openvino

    small = 64 + 2 * -(-crop // 32) * 32  # tracing is quicker on a small one; no shape is kept
    example = torch.zeros((1, small, small, 3), dtype=torch.uint8)
    with without_telemetry(), warnings.catch_warnings():  # torch announces what comes after tracing
        warnings.simplefilter("ignore")
        lean = InferenceNet(lean_net(net, crop, add_up=add_up), bundle.mean, bundle.std).eval()
        with torch.no_grad():  # frozen, it is converted in half the time
            frozen = torch.jit.freeze(torch.jit.trace(lean, example, check_trace=False))
        return openvino.convert_model(frozen, input=[(shape, np.uint8)])


def _read_quantised(quantised: Quantised, bundle: Bundle, crop: int) -> Any:
    """Read a network in 8 bits, which answers for all but the rim that it was made without, or for all if asked to.

    Raises
    ------
    IncompatibleBundle
        If this OpenVINO cannot read it, or it was made for tiles with another rim.
    ImportError
        If OpenVINO is not installed.
    """
    with without_telemetry():
        import openvino

    try:
        model = openvino.Core().read_model(quantised.model, quantised.weights)
    except RuntimeError as error:
        msg = f"the bundle's network in 8 bits cannot be read by OpenVINO {openvino.__version__}: {error}"
        raise IncompatibleBundle(msg) from error
    if crop not in (0, quantised.crop):
        msg = (
            f"the network in 8 bits of bundle {bundle.name!r} leaves out {quantised.crop} pixels at each side, and "
            f"tiles with {bundle.halo} pixels of halo ask for {crop}; make it anew: pathopan quantise"
        )
        raise IncompatibleBundle(msg)
    if not crop:
        _keep_all(model)
    return model


def _keep_all(model: Any) -> None:
    """Take the steps that leave a rim out, which are all that cut height and width, out of a network of OpenVINO's."""
    for step in model.get_ordered_ops():
        if step.get_type_name() == "Slice" and step.input_value(4).get_node().get_data().tolist() == [2, 3]:
            step.output(0).replace(step.input_value(0))
    model.validate_nodes_and_infer_types()


def check_device(device: str, runtime: str = "auto", precision: str = "auto") -> None:
    """Look whether a device and a runtime for it are there; see :func:`open_runtime`.

    Raises
    ------
    RuntimeUnavailable
        If one is not, or it does not compute in that precision.
    """
    kind, _, number = device.partition(":")
    if precision == "int8" and (runtime == "torch" or resolve_device(device, runtime).startswith("cuda")):
        msg = (
            f"precision int8 is OpenVINO's on a CPU, and device {device!r} with runtime {runtime!r} is not that; "
            "use --device cpu, or another inference.precision"
        )
        raise RuntimeUnavailable(msg)
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


def resolve_device(device: str, runtime: str = "auto") -> str:
    """Say what ``auto`` stands for on this machine: ``cuda`` where torch sees a GPU and may use it, else ``cpu``."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() and runtime != "openvino" else "cpu"


def open_runtime(
    net: nn.Module,
    bundle: Bundle,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    crop: int = 0,
    quantised: Quantised | None = None,
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
        ``auto`` (bfloat16 where the hardware has it), ``float32``, ``bfloat16`` or, by OpenVINO, ``int8``.
    crop : int
        Pixels at each side of a read window that maps are not wanted of.
    quantised : Quantised, optional
        The bundle's network in 8 bits (:func:`pathopan.network.quantised.find_quantised`), for ``int8``.

    Raises
    ------
    RuntimeUnavailable
        If the device or the runtime asked for is not there.
    """
    check_device(device, runtime, precision)
    device = resolve_device(device, runtime)
    if precision == "int8" and quantised is None:
        msg = f"precision int8 was asked for without the network in 8 bits of bundle {bundle.name!r}"
        raise RuntimeUnavailable(msg)
    if runtime == "torch" or device.startswith("cuda"):
        return TorchRuntime(net, bundle, device=device, precision=precision, crop=crop)
    quantised = quantised if precision == "int8" else None
    try:
        return OpenVinoRuntime(net, bundle, precision=precision, crop=crop, quantised=quantised)
    except ImportError as error:
        if runtime == "auto" and quantised is None:
            return TorchRuntime(net, bundle, device=device, precision=precision, crop=crop)
        msg = "runtime 'openvino' was asked for and is not installed: pip install openvino"
        raise RuntimeUnavailable(msg) from error
