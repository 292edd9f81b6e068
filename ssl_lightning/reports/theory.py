"""Pictures of the experiments of `ssl_lightning.theory`, after those of DirectCLR's paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lightning.reports.figures import MARKERS, own_style, panels, save
from ssl_lightning.theory.experiments import ALIVE

if TYPE_CHECKING:
    from ssl_lightning.theory.experiments import Aligned, Augmented, Spectra

NAMED = 10
"""More lines than that have no names but the first and the last of them."""


@own_style()
def over_noise(found: "Augmented", noisy: int, path: Path) -> Path:
    """Spectra of the layer, a line a strength, and each singular value over the strength."""
    figure, (spectra, over) = panels(2)
    values = found.singular_values.numpy()
    index = range(1, values.shape[1] + 1)
    for strength, row, colour in zip(found.noise, values, _shades(len(values)), strict=True):
        spectra.plot(index, row, color=colour, marker=".", linewidth=1, label=f"{strength:g}")
    spectra.legend(fontsize="x-small", title="noise", title_fontsize="x-small")
    spectra.set(xlabel="k", ylabel="singular value σₖ", ylim=(0, None))
    clean = values.shape[1] - noisy
    for label, shade, columns in (
        (f"σ₁ to σ{_low(clean)}", "C0", range(clean)),
        (f"σ{_low(clean + 1)} to σ{_low(values.shape[1])}", "C1", range(clean, values.shape[1])),
    ):
        for column in columns:
            name = label if column == columns[0] else None
            over.plot(found.noise, values[:, column], color=shade, linewidth=1, marker=".", label=name)
    over.legend(fontsize="x-small")
    over.set(xlabel=f"standard deviation of the noise on {noisy} dimensions", ylabel="singular value", ylim=(0, None))
    return save(figure, path, "Strong augmentation: singular values of one linear layer after training")


@own_style()
def spectra_by_depth(found: "Spectra", path: Path) -> Path:
    """Of the whole encoder, relative to the largest value, a line a depth."""
    figure, (axis,) = panels(1)
    rows = zip(found.layers, found.singular_values.numpy(), found.effective_rank, strict=True)
    for i, (depth, row, rank) in enumerate(rows):
        label = f"{depth} layer{'s' * (depth != 1)}: effective rank {rank:.1f}"
        marker = MARKERS[i % len(MARKERS)]
        axis.plot(
            range(1, len(row) + 1), row / max(row[0], 1e-300), label=label, marker=marker, markersize=4, linewidth=1
        )
    axis.legend(fontsize="x-small")
    axis.set(xlabel="k", ylabel="singular value σₖ / σ₁", yscale="log")
    return save(figure, path, "Implicit regularisation: spectra after training")


@own_style()
def alignment_over_time(found: "Aligned", path: Path) -> Path:
    """|V₂ᵀU₁|: its diagonal over training, a line a direction, and all of it at the end."""
    figure, (over, end) = panels(2)
    diagonal, size = found.diagonal.numpy(), len(found.matrix)
    for k, colour in reversed([*enumerate(_shades(found.alive))]):
        named = found.alive <= NAMED or k in (0, found.alive - 1)
        over.plot(found.steps, diagonal[:, k], color=colour, label=f"k = {k + 1}" if named else None, zorder=3)
    for k in range(found.alive, size):
        name = f"σₖ < {ALIVE:g} σ₁ at the end" if k == found.alive else None
        over.plot(found.steps, diagonal[:, k], color="lightgrey", linewidth=0.8, label=name)
    over.legend(
        *_in_order(*over.get_legend_handles_labels()), fontsize="x-small", loc="upper right", bbox_to_anchor=(1, 0.88)
    )
    over.set(xlabel="step of training", ylabel="|V₂ᵀU₁| at (k, k)", ylim=(0, 1.02))
    extent = (0.5, size + 0.5, size + 0.5, 0.5)
    image = end.imshow(found.matrix.numpy(), vmin=0, vmax=1, cmap="viridis", extent=extent)
    end.grid(visible=False)
    end.locator_params(integer=True)
    end.set(xlabel="singular vector of the first layer", ylabel="of the second layer")
    figure.colorbar(image, ax=end, label=f"|V₂ᵀU₁| after {found.steps[-1]:,} steps")
    return save(figure, path, "Two layers: their singular vectors align, as far as a direction grows")


def _shades(number: int) -> Sequence[tuple[float, ...]]:
    """Colours in an order, from dark to bright."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * i / max(1, number - 1)) for i in range(number)]


def _in_order(handles: list, labels: list[str]) -> tuple[list, list[str]]:
    """The first direction first; what is left behind last."""
    pairs = sorted(zip(handles, labels, strict=True), key=lambda pair: (pair[1][0] != "k", len(pair[1]), pair[1]))
    return [handle for handle, _ in pairs], [label for _, label in pairs]


def _low(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
