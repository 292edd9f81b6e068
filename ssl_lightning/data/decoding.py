"""From files to pixels: whole images once, or crops of them again and again."""

import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ssl_lightning.data.sizes import by_size, views_of
from ssl_lightning.data.sources.listing import ImageFiles
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.processes import owns_cores

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
"""Of Pillow's, which opens no other: some of them start programs."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation."""
WHITE = 65_535
"""The value of 16 bits that becomes 255, unless somebody says otherwise."""
AHEAD = 1024  # images decoded before they are asked for
SHOWN = 20  # of images that cannot be decoded
ADVICE = " Replace or remove it."


class _Opened(NamedTuple):
    """A file whose header has been read, what turns it upright, and which value of 16 bits becomes 255."""

    image: Image.Image
    turn: Image.Transpose | None
    white: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        swapped = self.turn in (TURNS[5], TURNS[6], TURNS[7], TURNS[8])
        return (height, width) if swapped else (width, height)


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with transparent pixels, whose colours nobody was meant to see, on a white ground."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return image
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)


def deepest(path: str) -> int | None:
    """The largest value of a picture of 16 bits; None of any other, and of what is none."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return int(np.asarray(image).max()) if _of_16_bits(image) else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # reported by who reads it
        return None


def _of_16_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _in_8_bits(image: Image.Image, white: int) -> Image.Image:
    """A picture of 16 bits, which is grey, with `white` scaled to 255."""
    if _of_16_bits(image):
        values = np.multiply(np.asarray(image), 255 / white, dtype=np.float64)
        return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))
    if image.mode.startswith(("I", "F")):  # Pillow would cut these off at 255
        raise ValueError(f"its pixels are of mode {image.mode}; convert it to 8 or 16 bits a channel")
    return image


class StreamedImages:
    """The images of many files, decoded when they are asked for. Stands where a tensor [n, c, s, s] would be too large.

    Args:
        files: of one split.
        size: side in pixels of what is read.
        channels: 1 for grey, 3 for colour; an image of the other kind is converted.
        square: side of the central square that is read, as a share of the image's shorter side.
        workers: processes that decode; None: as many as this process has cores, its share where `processes` have them
            together.
        white: the value of pictures of 16 bits that becomes 255.

    Attributes:
        processes: of this machine that read images at the same time.
    """

    def __init__(
        self,
        files: ImageFiles,
        size: int,
        channels: int,
        square: float = 1.0,
        workers: int | None = None,
        white: int = WHITE,
    ) -> None:
        self.files = files
        self.size = size
        self.channels = channels
        self.square = square
        self._workers = workers
        self.white = white
        self.processes = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.files), self.channels, self.size, self.size

    @property
    def workers(self) -> int:
        if self._workers is not None:
            return self._workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores if owns_cores(cores) else cores // self.processes)

    def __len__(self) -> int:
        return len(self.files)

    def joined(self, other: "StreamedImages") -> "StreamedImages":
        """The images of both."""
        return self._of(self.files.joined(other.files))

    def select(self, positions: Int[Tensor, " m"]) -> "StreamedImages":
        """Some of the images, in this order."""
        return self._of(self.files.select(positions.numpy()))

    def _of(self, files: ImageFiles) -> "StreamedImages":
        return StreamedImages(files, self.size, self.channels, self.square, self._workers, self.white)

    def __getitem__(self, positions: "slice | range | np.ndarray | Tensor") -> UInt8[Tensor, "m c s s"]:
        """Central squares, in order."""
        if isinstance(positions, slice):
            positions = range(*positions.indices(len(self)))
        squares = [self.central(int(position)) for position in positions]
        return torch.from_numpy(np.stack(squares)) if squares else torch.empty((0, *self.shape[1:]), dtype=torch.uint8)

    def all(self) -> Iterator[UInt8[np.ndarray, "c s s"]]:
        """Central squares of all images, by threads that are at most `AHEAD` images ahead.

        Raises:
            UserError: some cannot be decoded; names them, once all have been tried.
        """
        broken: list[UserError] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), AHEAD):
                for square in pool.map(self._central_or_error, range(start, min(start + AHEAD, len(self)))):
                    if isinstance(square, UserError):
                        broken.append(square)
                    elif not broken:
                        yield square
        if len(broken) > 1:
            shown = "\n".join(f"  {str(error).removesuffix(ADVICE)}" for error in broken[:SHOWN])
            more = f"\n  and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else ""
            raise UserError(
                f"{len(broken):,} of {len(self):,} images cannot be decoded:\n{shown}{more}\n{ADVICE.strip()}"
            )
        if broken:
            raise broken[0]

    def _central_or_error(self, position: int) -> "UInt8[np.ndarray, 'c s s'] | UserError":
        try:
            return self.central(position)
        except UserError as error:
            return error

    def central(self, position: int) -> UInt8[np.ndarray, "c s s"]:
        """The central square of one image, its side resampled to `size` with antialias if it differs."""
        return _central(self.files.path(position), self._open(position), self.size, self.channels, self.square)

    def crops(
        self,
        positions: Int[Tensor, " m"],
        augment: Augment,
        generator: torch.Generator,
        mirrored: Bool[Tensor, "v m"] | None = None,
        size: int | None = None,
    ) -> tuple[UInt8[Tensor, "_v m c _s _s"], ...]:
        """A random crop of each image for each view, mirrored or not, a tensor for each size of view, largest first;
        colours are left to `Augment.colour`.

        Args:
            mirrored: see `Augment.windows`.
            size: side in pixels of the views that have none of their own; by default that of the images.
        """
        images = [self._open(int(position)) for position in positions]
        width, height = torch.tensor([image.size for image in images]).T
        windows, flips = augment.windows(height, width, generator, mirrored)
        sizes = augment.sizes(size or self.size)
        shape = len(images), self.channels
        made = by_size(sizes, lambda number, size: torch.empty(number, *shape, size, size, dtype=torch.uint8))
        crops = views_of(made, sizes)
        images.reverse()
        for i, position in enumerate(positions.tolist()):
            image, name = images.pop(), self.files.path(position)  # whose pixels are freed with it
            cuts = cut_out(name, image, self.channels, windows[:, :, i].tolist(), sizes)
            for crop, cut in zip(crops, cuts, strict=True):
                np.copyto(crop[i].numpy(), cut)
        for crop, flip in zip(crops, flips, strict=True):
            crop.copy_(torch.where(flip[:, None, None, None], crop.flip(-1), crop))
        return made

    def _open(self, position: int) -> "_Opened":
        """The file's bytes, of which the header has been read."""
        path = self.files.path(position)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise _undecodable(path, error) from error
        return _opened(content, path, self.white)


def central_square(content: bytes, name: str, size: int, channels: int, share: float) -> UInt8[np.ndarray, "c s s"]:
    """Of an image file's content, its side resampled to `size` with antialias if it differs.

    Args:
        name: for messages.
        share: side of the square, as a share of the image's shorter side.

    Raises:
        UserError: it cannot be decoded.
    """
    return _central(name, _opened(content, name), size, channels, share)


def square_of(image: Image.Image, size: int, channels: int, share: float) -> UInt8[np.ndarray, "c s s"]:
    """The same of an image in memory."""
    return _central("in memory", _Opened(image, None, WHITE), size, channels, share)


def _central(name: str, image: "_Opened", size: int, channels: int, share: float) -> UInt8[np.ndarray, "c s s"]:
    width, height = image.size
    side = max(1, round(min(width, height) * share))
    window = ((height - side) // 2, (width - side) // 2, side, side)
    return cut_out(name, image, channels, [window], [size])[0]


def _opened(content: bytes, name: str, white: int = WHITE) -> "_Opened":
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        return _Opened(image, TURNS.get(image.getexif().get(ORIENTATION, 1)), white)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _undecodable(name, error) from error


def cut_out(
    name: str, opened: "_Opened", channels: int, windows: Sequence[Sequence[float]], sizes: Sequence[int]
) -> list[UInt8[np.ndarray, "c _s _s"]]:
    """Windows (top, left, height, width) of an opened image, each resampled to its size with antialias."""
    image, turn, white = opened
    width, height = image.size
    mode = "L" if channels == 1 else "RGB"
    shrink = min(min(window[2:]) / size for window, size in zip(windows, sizes, strict=True))
    try:
        image = _in_8_bits(image, white)
        if shrink >= 2:  # JPEG decoders give 1/2, 1/4 or 1/8 of the pixels for less work
            image.draft(mode, (math.ceil(width / shrink), math.ceil(height / shrink)))
        by = round(width / image.width)  # whose last column and row may stand for fewer pixels
        image = _on_white(image).convert(mode)
        image = image if turn is None else image.transpose(turn)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's plugins raise
        raise _undecodable(name, error) from error
    views = []
    for (top, left, tall, wide), size in zip(windows, sizes, strict=True):
        box = (left / by, top / by, (left + wide) / by, (top + tall) / by)
        if by == 1:  # whole pixels: none from outside of the window contributes
            whole = (round(left), round(top), round(left + wide), round(top + tall))
            view = image.crop(whole).resize((size, size), Image.Resampling.BILINEAR)
        else:
            inside = (*box[:2], min(box[2], image.width), min(box[3], image.height))
            view = image.resize((size, size), Image.Resampling.BILINEAR, box=inside)
        views.append(np.asarray(view).reshape(size, size, channels).transpose(2, 0, 1))
    return views


def _undecodable(path: str, error: Exception) -> UserError:
    reason = f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
    return UserError(f"cannot decode the image {path} ({reason}).{ADVICE}")
