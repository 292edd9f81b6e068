"""Streamed images: what is cut is what torchvision cuts, and a batch is a function of the step alone."""

import gc
import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from ssl_lightning.data.batch import Stored
from ssl_lightning.data.decoding import StreamedImages, cut_out
from ssl_lightning.data.loading import StreamedLoader, in_order
from ssl_lightning.data.sampler import BatchSampler, Round
from ssl_lightning.data.sources import listing
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import explained
from ssl_lightning.runs.run import Run, find_runs
from tests.data.synthetic import write_image_folder
from tests.processes import Signal, ssl_train


def folder_of(root: Path, **settings) -> ImageFolder:
    values = {
        "name": "folder",
        "root": str(root / "data"),
        "cache": str(root / "cache"),
        "image_size": 16,
        "channels": 3,
        "num_classes": None,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "storage": "streamed",
        "workers": 0,
    }
    return ImageFolder(**values | settings)


def write_photographs(root: Path, suffix: str, sizes: list[tuple[int, int]]) -> None:
    """Smooth colour images [height, width], in both splits."""
    for part in ("train", "test"):
        for i, (height, width) in enumerate(sizes):
            noise = np.random.default_rng([i, part == "test"]).integers(0, 256, (6, 8, 3), np.uint8)
            path = root / "data" / part / f"class_{i % 2}" / f"{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photograph(height: int, width: int, seed: int = 4) -> Image.Image:
    """Noise whose amplitude falls with the frequency, as in photographs."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(height, width, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    x = np.fft.irfft2(spectrum / np.maximum(1, frequency)[..., None], s=(height, width), axes=(0, 1))
    return Image.fromarray((127 + 55 * (x - x.mean()) / x.std()).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("height", "width"), [(333, 500), (500, 333), (1001, 1003), (770, 515)])
def test_reduced_decoding_displaces_no_crop(tmp_path, height, width):
    """JPEG decoders give halves, quarters or eighths, whose last column and row may stand for fewer pixels."""
    path = tmp_path / "data" / "train" / "class_0" / "0.jpg"
    path.parent.mkdir(parents=True)
    photograph(height, width).save(path, quality=95)
    images = StreamedImages(listing.image_files(tmp_path / "data", "train", tmp_path / "cache"), 64, 3)
    decoded = Image.open(path).convert("RGB")
    side = min(height, width)
    for top, left, tall, wide in ((0, 0, side, side), (height - 201, width - 203, 201, 203), (17, 31, 257, 259)):
        box = (left, top, left + wide, top + tall)
        exact = np.asarray(decoded.crop(box).resize((64, 64), Image.Resampling.BILINEAR)).astype(float)
        (cut,) = cut_out(str(path), images._open(0), 3, [(top, left, tall, wide)], [64])
        error = np.abs(cut.transpose(1, 2, 0) - exact).mean()
        elsewhere = decoded.crop((box[0] + 4, *box[1:])).resize((64, 64), Image.Resampling.BILINEAR)
        assert error < 4.1
        assert error < np.abs(np.asarray(elsewhere).astype(float) - exact).mean()


SIZES = [(40, 60), (61, 37), (16, 16), (90, 90)]
VIEWS = Augment([View(copies=2, crop_scale=(0.2, 1.0), flip_probability=0.5)])


def test_crops_are_those_of_torchvision(tmp_path):
    write_photographs(tmp_path, "png", SIZES)
    images = folder_of(tmp_path).train().images
    (crops,) = images.crops(torch.tensor([2, 0, 3]), VIEWS, seeded(1))
    assert crops.shape == (2, 3, 3, 16, 16)
    files = [images.files.path(position) for position in (2, 0, 3)]
    opened = [Image.open(file) for file in files]
    height, width = (torch.tensor([getattr(image, side) for image in opened]) for side in ("height", "width"))
    windows, flips = VIEWS.windows(height, width, seeded(1))
    assert flips.any()
    assert not flips.all()
    for k, i in itertools.product(range(2), range(3)):
        window = [int(value) for value in windows[k, :, i]]
        expected = pil_to_tensor(resized_crop(opened[i], *window, [16, 16], InterpolationMode.BILINEAR))
        assert torch.equal(crops[k, i], expected.flip(-1) if flips[k, i] else expected)


def test_windows_and_flips_have_the_distribution_of_views():
    views = Augment([View(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0), flip_probability=0.3)])
    n = 4000
    windows, flips = views.windows(torch.full((n,), 32), torch.full((n,), 32), seeded(0))
    assert flips.float().mean() == pytest.approx(0.3, abs=5 * 0.46 / n**0.5)
    assert torch.equal(windows[0, 2:], torch.full((2, n), 16.0))
    assert set(windows[0, 0].tolist()) == set(range(17))


def test_colours_of_crops_are_those_of_whole_views():
    """Where nothing is cut, both ways are the same to the last bit."""
    images = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8, generator=seeded(0))
    views = Augment(
        [
            View(jitter_probability=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey_probability=0.2),
            View(blur_probability=0.5, solarise_probability=0.5),
        ]
    )
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.2])
    crops = (torch.stack([images, images]),)
    (coloured,), (whole,) = views.colour(crops, mean, std, seeded(3), 16), views(images, mean, std, seeded(3))
    assert torch.equal(coloured, whole)


def test_central_squares_equal_those_that_are_stored(tmp_path):
    write_photographs(tmp_path, "jpg", SIZES)
    streamed, stored = folder_of(tmp_path), folder_of(tmp_path, storage="resident")
    for split in ("train", "test"):
        images = getattr(streamed, split)().images
        expected = getattr(stored, split)().images
        assert torch.equal(images[:], expected)
        assert torch.equal(images[torch.tensor([3, 1])], expected[[3, 1]])
        assert torch.equal(torch.cat(list(in_order(images, range(1, 4), 2))), expected[1:4])
        assert torch.equal(getattr(streamed, split)().labels, getattr(stored, split)().labels)
    assert images.shape == tuple(expected.shape)


def test_a_share_of_the_central_square(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for part in ("train", "test"):
        (tmp_path / "data" / part / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "data" / part / "a" / "0.png")
    images = folder_of(tmp_path, square=0.5).train().images
    np.testing.assert_array_equal(images[:][0].permute(1, 2, 0).numpy(), pixels[8:24, 8:24])


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size(tmp_path, monkeypatch):
    write_photographs(tmp_path, "jpg", [(400, 640)] * 2)
    decoded = []
    real = Image.Image.convert

    def watched(image, *arguments, **options):
        decoded.append(image.size)
        return real(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "convert", watched)
    fast = folder_of(tmp_path, image_size=50).train().images[:1]
    assert decoded == [(80, 50)]  # an eighth
    monkeypatch.setattr(JpegImageFile, "draft", lambda *_: None)
    exact = folder_of(tmp_path, image_size=50).train().images[:1]
    assert decoded[1] == (640, 400)
    assert (fast.float() - exact.float()).abs().mean() < 2
    # A crop that is no larger than the view needs all pixels.
    monkeypatch.undo()
    monkeypatch.setattr(Image.Image, "convert", watched)
    small = Augment([View(crop_scale=(0.02, 0.02))])
    folder_of(tmp_path, image_size=50).train().images.crops(torch.tensor([0]), small, seeded(0))
    assert decoded[2] == (640, 400)


def loader_of(root: Path, workers: int, step=lambda: 0, rank: int = 0, world_size: int = 1) -> StreamedLoader:
    split = folder_of(root, workers=workers).train()
    order = BatchSampler(torch.arange(40), 8, 5, rank, world_size)
    return StreamedLoader(split, order, step, VIEWS)


def assert_same(one: Stored, other: Stored) -> None:
    assert isinstance(one.images, tuple)
    pairs = zip((*one.images, *one[1:]), (*other.images, *other[1:]), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_batch_is_a_function_of_the_step_however_many_workers_decode(tmp_path):
    write_image_folder(tmp_path / "data")
    alone = loader_of(tmp_path, 0)
    expected = [alone.batch(step) for step in range(7)]
    with_workers = loader_of(tmp_path, 2)
    for step in range(7):
        assert_same(with_workers.batch(step), expected[step])
    assert_same(with_workers.batch(3), expected[3])  # a jump back
    assert_same(with_workers.batch(4), expected[4])
    assert_same(loader_of(tmp_path, 2).batch(5), expected[5])  # as after a resume
    assert not torch.equal(expected[0].images[0], expected[5].images[0])
    assert expected[0].images[0].shape == (2, 8, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_decode_what_a_round_holds_and_no_further(tmp_path, workers):
    """However far ahead they are, and wherever one goes on."""
    write_image_folder(tmp_path / "data")
    loader = loader_of(tmp_path, workers)
    n, size = len(loader.sampler.positions), loader.sampler.batch_size
    halves = [(torch.arange(n) % 2 == part).float() for part in (0, 1)]
    first = 0
    for epoch, weights in enumerate([torch.ones(n), *halves]):
        loader.sampler.begin(Round(epoch, first, weights))
        batches = [loader.batch(first + i) for i in range(len(loader))]
        index = torch.cat([batch.index for batch in batches])
        assert len(index) == int(weights.sum()) // size * size
        assert (weights[index] == 1).all()
        again = loader_of(tmp_path, 0)
        again.sampler.begin(Round(epoch, first, weights))
        assert_same(again.batch(first + len(loader) - 1), batches[-1])
        first += len(loader)
    loader.stop()


@pytest.mark.nightly
def test_iteration_goes_on_from_the_step_and_ranks_share_a_batch(tmp_path):
    write_image_folder(tmp_path / "data")
    made = 7
    loader = loader_of(tmp_path, 1, step=lambda: made)
    whole = loader_of(tmp_path, 0)
    for batch in itertools.islice(loader, 3):
        assert_same(batch, whole.batch(made))
        made += 1
    shares = [loader_of(tmp_path, 0, rank=rank, world_size=2).batch(7).index for rank in range(2)]
    assert torch.equal(torch.cat(shares), whole.batch(7).index)


@pytest.mark.nightly
def test_storage_is_chosen_by_a_budget_that_can_be_overridden(tmp_path):
    write_image_folder(tmp_path / "data")  # 40 · 3 · 16² bytes decoded
    gib = 40 * 3 * 16**2 / 2**30
    large, small = (folder_of(tmp_path, storage="auto", resident_gib=gib * share) for share in (1.01, 0.99))
    assert not large.streamed
    assert small.streamed
    assert "decoded once (dataset.storage=streamed" in str(large.notice())
    assert "streamed from their files (dataset.storage=resident" in str(small.notice())
    assert "dataset.storage" not in str(folder_of(tmp_path).notice())
    small_digest, large_digest = small.content_digest("train"), large.content_digest("train")
    assert small_digest == folder_of(tmp_path).content_digest("train") != large_digest
    assert large_digest == folder_of(tmp_path, storage="resident").content_digest("train")
    assert len({folder_of(tmp_path, **other).fingerprint() for other in ({}, {"square": 0.5}, {"image_size": 8})}) == 3
    small.prepare()
    assert not (tmp_path / "cache" / "datasets").exists()
    assert small.fingerprint() != large.fingerprint()
    assert small.fingerprint() == folder_of(tmp_path, workers=3).fingerprint()


def exchanged_in_place(one: Path, other: Path) -> None:
    """As archives and some copies do, which keep times."""
    state = one.stat()
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.nightly
@pytest.mark.reliability(
    "an image of a folder is replaced, of the same size and name",
    lost="nothing: training images make another run, test images another evaluation of the same one",
    read="",
)
def test_files_are_read_again_where_they_may_have_changed(tmp_path, monkeypatch):
    write_image_folder(tmp_path / "data", suffix="bmp")
    monkeypatch.setattr(listing, "SETTLED", 0)
    read = []
    real = listing._content
    monkeypatch.setattr(listing, "_content", lambda path: read.append(path) or real(path))

    def digest() -> str:
        read.clear()
        return folder_of(tmp_path).content_digest("train")

    first = digest()
    assert len(read) == 60  # of both splits
    assert digest() == first
    assert read == []
    here = sorted((tmp_path / "data" / "train" / "class_003").iterdir())
    for change in (  # sizes stay the same
        lambda: here[0].write_bytes(here[1].read_bytes()),
        lambda: here[0].rename(here[0].with_name("new.bmp")),
        lambda: os.utime(here[2], (0, 0)),
        lambda: exchanged_in_place(here[1], here[2]),
    ):
        before = digest()
        change()
        assert (digest() == before) == (change.__code__.co_names[0] == "os")
        assert len(read) == 1
    first = digest()
    for file in (tmp_path / "cache" / "indexes").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    assert digest() == first
    assert len(read) == 60


@pytest.mark.nightly
def test_a_file_that_has_just_been_written_is_not_remembered(tmp_path, monkeypatch):
    write_image_folder(tmp_path / "data", suffix="bmp")
    first = folder_of(tmp_path).content_digest("train")
    one, other = sorted((tmp_path / "data" / "train" / "class_003").iterdir())[:2]
    state = one.stat()
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))  # as where a file system's clock is coarse
    assert folder_of(tmp_path).content_digest("train") != first


def test_a_broken_image_is_named(tmp_path):
    write_image_folder(tmp_path / "data")
    path = tmp_path / "data" / "train" / "class_003" / "broken.png"
    path.write_bytes(next(path.parent.iterdir()).read_bytes()[:60])
    split = folder_of(tmp_path, workers=2).train()
    with pytest.raises(UserError, match=r"^cannot decode the image .*class_003/broken.png .* Replace or remove it.$"):
        list(in_order(split.images))


@pytest.mark.nightly
def test_workers_end_with_their_loader(tmp_path):
    write_image_folder(tmp_path / "data")
    loader = loader_of(tmp_path, 2)
    others = {process.pid for process in multiprocessing.active_children()}
    loader.batch(0)
    workers = [process for process in multiprocessing.active_children() if process.pid not in others]
    assert len(workers) == 2
    loader.stop()
    gc.collect()
    for worker in workers:
        worker.join(30)
        assert not worker.is_alive()
    assert_same(loader.batch(3), loader_of(tmp_path, 0).batch(3))


SMALL = (
    "dataset=image_folder",
    "dataset.root=data",
    "dataset.image_size=16",
    "dataset.storage=streamed",
    "dataset.workers=2",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=8",
    "checkpoint.every_steps=1",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)


def trained(folder: Path, *arguments: str, at: Signal | None = None) -> Run | None:
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        write_image_folder(folder / "data")
    ended = ssl_train(folder, *SMALL, *arguments, at=at)
    assert ended.code == (-signal.SIGKILL if at else 0), ended.output
    (run,) = find_runs([folder / "runs"])
    return run


@pytest.mark.nightly
@pytest.mark.reliability(
    "SIGKILL of a run, at any moment",
    lost="steps since the last checkpoint (`checkpoint.every_minutes`, `every_steps`); the same command ends with the "
    "same weights and metrics, bit for bit on a CPU",
    read="`… resumes`",
)
def test_a_run_killed_inside_an_epoch_ends_like_one_that_was_not(tmp_path):
    whole = trained(tmp_path / "whole")
    step = "ssl_lightning.methods.method.SSLMethod.training_step"
    trained(tmp_path / "killed", at=Signal(step, 8, "after"))
    resumed = trained(tmp_path / "killed")
    assert resumed.id == whole.id
    assert resumed.metrics_file.read_text() == whole.metrics_file.read_text()
    assert resumed.results()["metrics"] == whole.results()["metrics"]
    states = [torch.load(run.checkpoint, weights_only=True)["state_dict"] for run in (whole, resumed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert whole.results()["cost"]["optimizer_steps"] == 15


def test_rotation_is_refused_for_streamed_images(tmp_path):
    write_image_folder(tmp_path / "data")
    ended = ssl_train(tmp_path, *SMALL, "augment=digits")
    assert ended.code == 1
    assert "dataset.storage=resident" in ended.output


@pytest.mark.reliability(
    "a full /dev/shm",
    lost="steps since the last checkpoint",
    read="`The shared memory of worker processes, /dev/shm, is full.`",
)
def test_shared_memory_that_is_full_ends_the_wait_for_workers(tmp_path, monkeypatch):
    def full(tensor):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    write_image_folder(tmp_path / "data")
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # in forked workers
    with pytest.raises(RuntimeError) as caught:
        list(in_order(folder_of(tmp_path, workers=1).train().images))
    assert "/dev/shm, is full" in explained(caught.value)
    assert "dataset.workers=0" in explained(caught.value)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("storage", ["resident", "streamed"])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_pixels_of_sixteen_bits_are_scaled(tmp_path, suffix, storage):
    deep = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(deep).save(folder / f"{i}.{suffix}")

    def images(**settings):
        values = {"storage": storage, "channels": 1, "mean": [0.5], "std": [0.2], **settings}
        return folder_of(tmp_path, **values)

    plain, white, clipped = images(), images(white=4095), images(white=2000)
    for made, value in ((plain, 65_535), (white, 4095), (clipped, 2000)):
        expected = np.rint(np.minimum(deep / value, 1) * 255)
        np.testing.assert_array_equal(made.train().images[:][1, 0].numpy(), expected)
    line = "folder: pictures of 16 bits are scaled, so that {} becomes 255; the largest value of 2 of them is 4,095"
    assert line.format("65,535") in plain.notice()
    assert line.format("4,095") in white.notice()
    assert len({made.content_digest("train") for made in (plain, white, clipped)}) == 3
    assert len({str(made.fingerprint()) for made in (plain, white, clipped)}) == 3
    colour = images(channels=3, mean=[0.5] * 3, std=[0.2] * 3, white=4095).train().images[:]
    assert torch.equal(colour[:, 0], white.train().images[:][:, 0])


def test_pixels_of_more_bits_are_refused(tmp_path):
    write_image_folder(tmp_path / "data")
    assert "16 bits" not in folder_of(tmp_path).notice()
    deep = tmp_path / "data" / "train" / "class_000" / "deep.tif"
    Image.fromarray(np.ones((32, 32), np.float32)).save(deep)
    with pytest.raises(UserError, match=r"deep.tif \(its pixels are of mode F; convert it to 8 or 16 bits a channel\)"):
        folder_of(tmp_path).train().images[:]


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    write_image_folder(tmp_path / "data")
    real = os.scandir

    def broken(path):
        if str(path).endswith("class_003"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(UserError, match=r"cannot read .*class_003: Permission denied"):
        folder_of(tmp_path).train()


@pytest.mark.nightly
def test_what_a_killed_decoder_has_left_is_removed(tmp_path):
    write_image_folder(tmp_path / "data")
    dataset = folder_of(tmp_path, storage="resident")
    folder = dataset._store("train").folder
    folder.mkdir(parents=True)
    left = folder / ".train_images.npy.killed.part"
    left.write_bytes(b"half")
    dataset.prepare()
    assert not left.exists()


SLURM = {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "study", "SLURM_CPUS_ON_NODE": "96"}


@pytest.mark.parametrize(
    ("cores", "processes", "variables", "workers"),
    [
        (96, 1, {}, 96),
        (96, 8, {}, 12),  # started by one process, whose cores they share
        (4, 8, {}, 1),
        (12, 8, SLURM, 12),  # each bound to its own
        (96, 8, SLURM, 12),  # not bound
        (12, 4, {"SLURM_CPUS_ON_NODE": "96"}, 3),  # not started by SLURM, but inside one of its tasks
        (12, 4, {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "study"}, 3),  # it says nothing of cores
    ],
)
def test_processes_share_the_cores_that_they_have_together(tmp_path, monkeypatch, cores, processes, variables, workers):
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    write_image_folder(tmp_path / "data")
    images = folder_of(tmp_path, workers=None).train().images
    images.processes = processes
    assert images.workers == workers


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind processes to CPU cores")
def test_a_process_has_no_more_workers_than_cores_that_it_is_bound_to(tmp_path):
    write_image_folder(tmp_path / "data")
    images = folder_of(tmp_path, workers=None).train().images
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        assert images.workers == 1
    finally:
        os.sched_setaffinity(0, before)
    assert images.workers == len(before)
