"""An encoder as an ONNX graph."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.errors import UserError
from ssl_lightning.files import replacing
from ssl_lightning.models.encoder import Encoder

FILE = "model.onnx"
TOLERANCE = 1e-4
"""Of a representation's values, as a share of the largest, or absolute below 1."""


class _Graph(nn.Module):
    """`Encoder.forward` of float images, without the choices that it makes by their type and size."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.backbone, self.mean, self.std = encoder.backbone, encoder.mean, encoder.std

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone((images - self.mean) / self.std)


def write_onnx(encoder: Encoder, side: int, file: Path) -> None:
    """The whole encoder, normalisation included: `images`, float32 [n, c, side, side] in [0, 1], to `representations`,
    float32 [n, d], for any n. What was written is compared with the encoder before it gets its name.

    Raises:
        UserError: packages are missing, or the graph does something else than the encoder.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  what torch's exporter writes with
    except ImportError as error:
        raise UserError(f"format=onnx needs {error.name}: pip install 'ssl-lightning[onnx]'") from None
    images = torch.rand(3, len(encoder.mean), side, side, generator=torch.Generator().manual_seed(0))
    with replacing(file) as temporary, torch.no_grad():
        with _quiet():
            torch.onnx.export(
                _Graph(encoder).eval(),
                (images[:2],),
                str(temporary),
                dynamo=True,
                input_names=["images"],
                output_names=["representations"],
                dynamic_shapes={"images": {0: torch.export.Dim("n")}},
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"images": images.numpy()})
        _compare(torch.from_numpy(found), encoder(images))


def _compare(found: Float[Tensor, "n d"], wanted: Float[Tensor, "n d"]) -> None:
    difference = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1)
    if not difference <= TOLERANCE:
        raise UserError(
            f"The exported graph differs from the encoder by {difference:.1e}, more than {TOLERANCE:g}: nothing was "
            "written. Choose format=safetensors, and report the backbone."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own parts."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
