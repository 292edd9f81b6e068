"""What a nuisance plants among training images: counted as a loop counts, drawn from a seed, and never evaluated."""

import copy
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_lightning.data.nuisance import Duplicates, LongTail, Noise, Nuisance, private, stretched
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.splits import splits_of
from tests.data.synthetic import in_memory, write_image_folder
from tests.processes import context

ALL = [LongTail(ratio=10.0), Duplicates(share=0.3), Noise(share=0.3)]
IDS = [one.name for one in ALL]


def digits(nuisance: Nuisance | None = None) -> Digits:
    return Digits(nuisance=nuisance)


# How many


def kept(wanted: float, there: int) -> int:
    return min(there, max(1, int(wanted + 1e-6)))


@pytest.mark.parametrize("seed", range(20))
def test_a_long_tail_has_the_counts_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 12))
    labels = rng.integers(0, classes, int(rng.integers(1, 400)))
    ratio = float(rng.choice([1, 2, 10, 100, 1e6]))
    nuisance = LongTail(ratio=ratio, seed=seed)
    plan = nuisance.plan(labels)
    present = sorted(set(labels.tolist()))
    sizes = [int((labels == one).sum()) for one in present]
    ranks = nuisance.generator("ranks").permutation(len(present)).tolist()
    for one, size, rank in zip(present, sizes, ranks, strict=True):
        wanted = max(sizes) * ratio ** (-rank / (len(present) - 1)) if len(present) > 1 else size
        assert int((plan.labels == one).sum()) == kept(wanted, size)
    assert np.array_equal(plan.labels, labels[plan.origin])
    assert (np.diff(plan.origin) > 0).all()
    assert not len(plan.made)


def test_the_published_long_tail_of_cifar():
    """CIFAR-10 and CIFAR-100 at ratio 100 of Cui et al.: 12,406 and 10,847 images of 5,000 and 500 a class."""
    for classes, n, total in ((10, 5000, 12_406), (100, 500, 10_847)):
        counts = LongTail(ratio=100.0).counts(np.full(classes, n))
        assert counts.sum() == total
        assert counts.max() == n
        assert counts.min() == n // 100


def test_long_tails_are_nested_and_of_ratio_1_is_everything():
    labels = np.random.default_rng(0).permutation(np.arange(300) % 10)
    tails = [set(LongTail(ratio=ratio).plan(labels).origin.tolist()) for ratio in (1.0, 3.0, 30.0, 300.0)]
    assert len(tails[0]) == 300
    assert all(small < large for large, small in itertools.pairwise(tails))


@pytest.mark.parametrize("kind", [Duplicates, Noise])
@pytest.mark.parametrize("n", [2, 3, 10, 101])
@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
def test_a_share_is_replaced_and_the_number_stays(kind, n, share):
    labels = np.random.default_rng(n).integers(-1, 3, n)
    plan = kind(share=share).plan(labels)
    assert len(plan.made) == min(max(1, round(Fraction(share).limit_denominator(1000) * n)), n - 1)
    assert len(plan.origin) == len(plan.labels) == n
    stay = np.setdiff1d(np.arange(n), plan.made)
    assert np.array_equal(plan.origin[stay], stay)
    assert np.array_equal(plan.labels[stay], labels[stay])
    if kind is Noise:
        assert (plan.origin[plan.made] == -1).all()
        assert np.array_equal(plan.labels, labels)
    else:
        assert np.isin(plan.origin[plan.made], stay).all()  # copies are of what is still there
        assert np.array_equal(plan.labels, labels[plan.origin])
    assert set(plan.made) <= set(kind(share=0.9995).plan(labels).made)


# What it looks like


def naive_stretch(image: np.ndarray, start: int, length: int) -> np.ndarray:
    """Along the last axis, in exact fractions."""
    side = image.shape[-1]
    out = np.empty_like(image)
    for i in range(side):
        at = start + Fraction(2 * i + 1, 2) * Fraction(length, side) - Fraction(1, 2)
        at = min(max(at, Fraction(start)), Fraction(start + length - 1))
        low = int(at)
        weight = at - low
        high = min(low + 1, start + length - 1)
        for index in np.ndindex(image.shape[:-1]):
            value = int(image[(*index, low)]) * (1 - weight) + int(image[(*index, high)]) * weight
            out[(*index, i)] = int(value + Fraction(1, 2))
    return out


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_a_span_is_stretched_as_exact_fractions_say(side):
    rng = np.random.default_rng(side)
    length = rng.integers(1, side + 1, 12)
    start = rng.integers(0, side - length + 1)
    images = rng.integers(0, 256, (12, 2, side, side), np.uint8)
    images[0] = 255
    along = stretched(images, start, length, 3)
    down = stretched(images, start, length, 2)
    for i in range(12):
        assert np.array_equal(along[i], naive_stretch(images[i], start[i], length[i]))
        turned = naive_stretch(images[i].transpose(0, 2, 1), start[i], length[i]).transpose(0, 2, 1)
        assert np.array_equal(down[i], turned)


def test_copies_are_crops_and_others_are_as_they_were():
    clean, touched = digits(), digits(Duplicates(share=0.3))
    images, labels = touched.train()
    origin = touched.origins()
    made = origin != torch.arange(len(origin))
    assert int(made.sum()) == round(0.3 * 1257)
    assert torch.equal(images[~made], clean.train().images[~made])
    originals = clean.train().images[origin[made]]
    assert not torch.equal(images[made], originals)
    far = (images[made].float() - clean.train().images[made].float()).abs().mean()
    near = (images[made].float() - originals.float()).abs().mean()
    assert near < far / 1.5
    assert torch.equal(labels, clean.train().labels[origin])


def test_exact_and_mirrored_copies():
    plain = digits(Duplicates(share=0.3, crop=1.0))
    assert torch.equal(plain.train().images, digits().train().images[plain.origins()])
    mirrored = digits(Duplicates(share=0.3, crop=1.0, flip=1.0))
    origin = mirrored.origins()
    made = origin != torch.arange(len(origin))
    assert torch.equal(mirrored.train().images[made], digits().train().images[origin[made]].flip(-1))


def test_noise_is_uniform():
    dataset = digits(Noise(share=0.9))
    pixels = dataset.train().images[dataset.origins() < 0].flatten()
    counts = torch.bincount(pixels.int(), minlength=256).double()
    expected = len(pixels) / 256
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 255 - 6 * (2 * 255) ** 0.5 < chi2 < 255 + 6 * (2 * 255) ** 0.5


@pytest.mark.parametrize("name", IDS)
def test_chunks_change_no_crop(monkeypatch, name):
    nuisance = ALL[IDS.index(name)]
    before = digits(nuisance).train()
    if name != "noise":  # whose stream is read by the chunk
        monkeypatch.setattr("ssl_lightning.data.nuisance.AT_ONCE", 64 * 3)
    assert torch.equal(digits(nuisance).train().images, before.images)


# Seeds and digests


@pytest.mark.parametrize("nuisance", ALL, ids=IDS)
def test_a_seed_gives_the_same_images_and_another_others(nuisance):
    one, again, other = (digits(kind) for kind in (nuisance, nuisance, type(nuisance)(seed=1)))
    assert torch.equal(one.train().images, again.train().images)
    assert torch.equal(one.origins(), again.origins())
    assert one.fingerprint() == again.fingerprint()
    assert str(one.fingerprint()).startswith(f"digits/train-{nuisance.name}[{len(one.train().labels)}]:")
    assert not torch.equal(one.origins()[:100], other.origins()[:100])
    assert len({d.fingerprint().digest for d in (one, other, digits())}) == 3
    assert one.fingerprint("test") == digits().fingerprint("test")


def fingerprint(nuisance: Nuisance) -> str:
    return str(digits(nuisance).fingerprint())


@pytest.mark.nightly
def test_other_processes_make_the_same_images():
    with context.Pool(2) as processes:
        assert processes.map(fingerprint, ALL) == [fingerprint(nuisance) for nuisance in ALL]


def test_the_digest_knows_what_was_made():
    of_crops = [digits(Duplicates(crop=crop)).fingerprint().digest for crop in (0.5, 0.75, 1.0)]
    of_flips = [digits(Duplicates(flip=flip)).fingerprint().digest for flip in (0.5, 1.0)]
    assert len({*of_crops, *of_flips}) == 5


# Evaluations


@pytest.mark.parametrize("nuisance", ALL, ids=IDS)
@pytest.mark.parametrize("labelled", [True, False])
def test_evaluations_see_the_clean_dataset_bit_for_bit(nuisance, labelled):
    touched, clean = (splits_of(labelled, digits(kind)) for kind in (nuisance, None))
    assert torch.equal(touched.train.images, clean.train.images)
    assert torch.equal(touched.train.labels, clean.train.labels)
    assert torch.equal(touched.validation, clean.validation)
    if labelled:
        assert torch.equal(touched.test.images, clean.test.images)
        assert torch.equal(touched.test.labels, clean.test.labels)


@pytest.mark.parametrize("nuisance", ALL, ids=IDS)
def test_the_protocol_is_that_of_the_clean_dataset(nuisance):
    assert protocol_of({}, digits(nuisance)) == protocol_of({}, digits())


@pytest.mark.parametrize("nuisance", ALL, ids=IDS)
def test_what_is_made_of_a_held_out_image_is_held_out(nuisance):
    touched, held_out = digits(nuisance), digits().validation()
    origin = touched.origins().tolist()
    assert touched.validation().tolist() == [of >= 0 and bool(held_out[of]) for of in origin]
    assert torch.equal(touched.held_out(), held_out)


def test_clean_images_are_not_written_to():
    """Though a dataset may give the same arrays each time."""
    dataset = in_memory(np.arange(40) % 4)
    before = dataset.images.copy()
    dataset.nuisance = Noise(share=0.5)
    assert not torch.equal(dataset.train().images, torch.from_numpy(before))
    assert np.array_equal(dataset.images, before)
    assert torch.equal(dataset.clean().images, torch.from_numpy(before))


@pytest.mark.parametrize("part", [slice(None), slice(2, None)])
def test_a_private_copy_of_mapped_images_leaves_the_file_and_other_maps_alone(tmp_path, part):
    np.save(tmp_path / "images.npy", np.arange(40, dtype=np.uint8).reshape(5, 2, 2, 2))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")[part]
    mine = private(mapped)
    assert np.array_equal(mine, mapped)
    mine[:] = 0
    assert mapped.any()
    assert np.load(tmp_path / "images.npy").any()


# Folders


@pytest.mark.parametrize("nuisance", ALL, ids=IDS)
def test_decoded_folders(tmp_path: Path, nuisance):
    write_image_folder(tmp_path / "data")
    folder = ImageFolder(root=str(tmp_path / "data"), cache=str(tmp_path / "cache"), nuisance=nuisance)
    clean = ImageFolder(root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    clean.prepare()
    files = {file: file.read_bytes() for file in (tmp_path / "cache").rglob("*.npy")}
    origin = folder.origins()
    same = (origin >= 0) & ((origin == torch.arange(len(origin))) if len(origin) == 40 else True)
    assert torch.equal(folder.train().images[same], clean.train().images[origin[same]])
    assert torch.equal(folder.labelled().images[:], clean.train().images[:])
    assert folder.fingerprint() != clean.fingerprint()
    assert folder.content_digest("train") == clean.content_digest("train")  # the config tells them apart
    assert files
    assert files == {file: file.read_bytes() for file in (tmp_path / "cache").rglob("*.npy")}


def test_streamed_folders_can_have_a_long_tail_and_nothing_that_is_made(tmp_path: Path):
    write_image_folder(tmp_path / "data")

    def folder(nuisance: Nuisance) -> ImageFolder:
        root, cache = str(tmp_path / "data"), str(tmp_path / "cache")
        return ImageFolder(root=root, cache=cache, nuisance=nuisance, storage="streamed")

    tail = folder(LongTail(ratio=4.0))
    assert len(tail.train().labels) < 40
    assert torch.equal(tail.train().images[:], tail.clean().images[tail.origins()])
    assert tail.fingerprint() == folder(LongTail(ratio=4.0)).fingerprint() != folder(LongTail()).fingerprint()
    for nuisance in ALL[1:]:
        with pytest.raises(UserError, match=rf"nuisance={nuisance.name} makes images.*storage=resident"):
            folder(nuisance).train()


# Labels


def test_a_long_tail_needs_all_labels_and_others_none():
    labels = np.array([0, 1, -1, 1, 0, 0])
    for nuisance in ALL:
        dataset = copy.copy(in_memory(labels))
        dataset.nuisance = nuisance
        if nuisance.needs_labels:
            with pytest.raises(UserError, match=r"nuisance=long_tail needs the labels of all images, but 1 of the 6"):
                dataset.train()
        else:
            assert len(dataset.train().labels) == 6


def test_it_is_told_in_one_line():
    assert digits().nuisance_notice() is None
    lines = [digits(nuisance).nuisance_notice() for nuisance in (LongTail(), *ALL[1:])]
    copied = digits(ALL[1]).origins()
    originals = len(copied[copied != torch.arange(1257)].unique())
    assert lines == [
        "digits: nuisance=long_tail: 1,257 → 311 training images, 126 to 1 a class; evaluations see the clean ones.",
        "digits: nuisance=duplicates: 377 of 1,257 training images are replaced by other crops of "
        f"{originals} others; evaluations see the clean ones.",
        "digits: nuisance=noise: 377 of 1,257 training images are replaced by noise, under their labels; "
        "evaluations see the clean ones.",
    ]
