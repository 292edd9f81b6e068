"""The way from a run to files for other programs, top to bottom."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.errors import UserError
from ssl_lightning.export import onnx, preprocessing, weights
from ssl_lightning.export.card import card as card_of
from ssl_lightning.export.folder import CARD, digest_of_card, former, whole
from ssl_lightning.export.onnx import write_onnx
from ssl_lightning.export.preprocessing import preprocessing as preprocessing_of
from ssl_lightning.export.weights import lines_for_timm, lines_for_torchvision, lines_for_us, loading, write_weights
from ssl_lightning.files import write_json, write_text
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.runs.loading import config_of, folder_of, load_encoder
from ssl_lightning.runs.run import Run

ONNX_LINES = (
    "import onnxruntime",
    f'session = onnxruntime.InferenceSession("{onnx.FILE}")',
    '(representations,) = session.run(None, {"images": images})  # float32 [n, c, s, s] in [0, 1] -> [n, d]',
)


def export(run_folder: str, format: str, to: Path, trusted: Sequence[str] = ()) -> Path:
    """Writes weights, preprocessing.json, and README.md into the folder `to`, and says so. Returns it.

    Raises:
        UserError: the run has no results, its backbone has no place in the format, or the folder holds something else.
    """
    names = write_export(Run(folder_of(Path(run_folder))), format, to, trusted)
    print(f"{to}: {', '.join(names)}", flush=True)
    return to


def write_export(run: Run, format: str, to: Path, trusted: Collection[str] | None = ()) -> tuple[str, ...]:
    """As `export`, without a word. Returns the names of the files."""
    encoder, config = load_encoder(run.folder, trusted), config_of(run.folder, trusted)
    if not run.results_file.exists():
        raise UserError(f"{run.folder} has no results.json, of which the model card is made. Let its ssl-train finish.")
    results = run.results()
    _check_backbone(encoder)
    lines = _lines(format, encoder, config)  # what cannot be exported is said before anything is written
    former(to, preprocessing.FILE, preprocessing.MADE_BY, "to")
    file = onnx.FILE if format == "onnx" else weights.FILE
    described = preprocessing_of(encoder, config["dataset"], normalises=format == "onnx")
    text = card_of(
        results, run.id, run.described()[0], _data(config), [file, preprocessing.FILE], lines, _in_words(described)
    )
    described |= {"format": format, "weights": file, "load": lines, "card": digest_of_card(text)}

    with whole(to) as folder:
        if format == "onnx":
            write_onnx(encoder, described["image_size"], folder / file)
        else:
            write_weights(encoder.backbone.state_dict(), folder / file, {"format": "pt", "run": run.id})
        write_json(folder / preprocessing.FILE, described)
        write_text(folder / CARD, text)
    for other in {onnx.FILE, weights.FILE} - {file}:  # of a former export
        (to / other).unlink(missing_ok=True)
    return file, preprocessing.FILE, CARD


def _lines(format: str, encoder: Encoder, config: Mapping[str, Any]) -> list[str]:
    if format == "onnx":
        return [*ONNX_LINES]
    if format == "torchvision":
        return loading(lines_for_torchvision(encoder.backbone))
    if format == "timm":
        return loading(lines_for_timm(encoder.backbone))
    method = config["method"]
    while isinstance(method, Mapping) and "backbone" not in method and "base" in method:  # GeSSL around another
        method = method["base"]
    return loading(lines_for_us(method.get("backbone")))


def _check_backbone(encoder: Encoder) -> None:
    """A method of the user's own may do more in its `forward` than call its backbone."""
    side = encoder.image_size or 32
    images = torch.rand(2, len(encoder.mean), side, side, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(encoder(images), encoder.backbone((images - encoder.mean) / encoder.std), atol=1e-5):
        raise UserError(
            f"{type(encoder.network).__name__}.forward does more than call its backbone, which alone can be exported. "
            "Put what it does into the backbone."
        )


def _data(config: Mapping[str, Any]) -> str:
    dataset = config["dataset"]
    return f"{dataset['name']}, {dataset['channels']}×{dataset['image_size']}×{dataset['image_size']} pixels"


def _in_words(described: Mapping[str, Any]) -> str:
    kind = {1: "grey", 3: "RGB"}.get(described["channels"], f"{described['channels']} channels")
    square = described["steps"][1]["central_square"]
    part = "" if square == 1 else f" of {square:g} × the shorter side"
    after = "" if described["network_normalises"] else f", then (x − {described['mean']}) / {described['std']}"
    side = described["image_size"]
    return f"{kind}, the central square{part} resampled to {side}×{side} with antialias, values in [0, 1]{after}."
