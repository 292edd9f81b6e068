"""ssl-select and the rankings that ssl-train finds or builds: once, by whoever comes first, whole or not at all."""

import itertools
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from ssl_lightning.commands.select import select
from ssl_lightning.runs.run import Run, find_runs
from ssl_lightning.subsets.forgetting import ForgettingEvents, forgetting_score
from ssl_lightning.subsets.latent import purity
from ssl_lightning.subsets.ranking import Ranking, turning_points
from tests.composing import TINY, composed
from tests.conftest import Outcome
from tests.processes import Signal, ssl_select, started, two_processes

Command = Callable[..., Outcome]

QUICK = (*TINY, "batch_size=128", "subset.looks=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs` and `cache` as `ssl-select` leaves them."""
    folder = tmp_path_factory.mktemp("made")
    config = composed(*QUICK, f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}", name="select")
    HydraConfig.instance().cfg = None
    assert select(config) == ranking_file(folder)
    return folder


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("latent@subset.latent=kmeans", "subset.latent.clusters=2000"),
            "2000 clusters are asked for, but there are only",
        ),
        (("subset=prototypes", "subset.clusters=2000"), "2000 clusters are asked for, but there are only 1257 images"),
        (
            ("subset=elfs", "subset.pseudo_labels.latent.clusters=2000"),
            "2000 clusters are asked for, but there are only 1257 images",
        ),
        (("latent@subset.latent=embeddings", "subset.latent.file=short.npy"), "is no .npy file of floats [1257, d]"),
        (("latent@subset.latent=few_labels", "subset.latent.file=short.npy"), "is no .npy file of floats [1257, d]"),
    ],
)
@pytest.mark.parametrize("name", ["ssl-select", "ssl-train"])
def test_latent_classes_that_cannot_be_made_are_refused_before_a_proxy_trains(command, tmp_path, name, arguments, said):
    np.save(tmp_path / "short.npy", np.zeros((3, 2)))
    choices = arguments if arguments[0].startswith("subset=") else ("subset=sas", *arguments)
    done = command(name, *TINY, "batch_size=128", *choices)
    assert done.code == 1
    assert said in done.err
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it in the working directory of the commands."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def ranking_file(folder: Path) -> Path:
    (file,) = folder.glob("cache/rankings/*.npz")
    return file


def ranking_in(folder: Path) -> Ranking:
    return Ranking.load(ranking_file(folder), None)


def proxies(folder: Path) -> list[Run]:
    return find_runs([folder / "runs" / "proxies"])


def times(folder: Path) -> dict[str, int]:
    """When each file was written, locks left out."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".lock"))
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def table(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out[outcome.out.index("ranking of") :]


def message(outcome: Outcome) -> str:
    assert outcome.code != 0
    assert "Traceback" not in outcome.out + outcome.err
    return next(line for line in outcome.err.splitlines() if line.startswith("Error:"))


def test_classifiers_of_groups(command, tmp_path):
    """The embedder is trained, its groups are kept, two classifiers learn them. In another cache, and for another
    quota, none of them is trained again; other groups have classifiers of their own."""
    elfs = (*TINY, "batch_size=128", "subset=elfs", "subset.runs=2", "subset.pseudo_labels.latent.clusters=12")
    done = command("ssl-select", *elfs)
    assert done.code == 0, done.err
    assert "12 latent classes" in done.out
    first = ranking_in(tmp_path)
    (groups,) = tmp_path.glob("cache/pseudo_labels/*.npy")
    levels = np.load(groups)
    np.testing.assert_array_equal(first.latent_class, levels[:, 0])
    methods = {run.id: run.config()["method"] for run in proxies(tmp_path)}
    assert sorted(name.partition("-")[0] for name in methods) == ["simclr", "supervised", "supervised"]
    assert {method["num_classes"] for method in methods.values() if "num_classes" in method} == {12}
    before = {name: time for name, time in times(tmp_path).items() if name.startswith("runs/")}
    (tmp_path / "cache").rename(tmp_path / "former")
    again = command("ssl-select", *elfs)
    assert table(again) == table(done)
    np.testing.assert_array_equal(ranking_in(tmp_path).order, first.order)
    np.testing.assert_array_equal(np.load(groups), levels)
    assert command("ssl-train", *elfs, "subset.quota.cut=0.3", "subset.fraction=0.2").code == 0
    after = {name: time for name, time in times(tmp_path).items() if name.startswith("runs/proxies")}
    assert after == before
    one = next(run for run in proxies(tmp_path) if run.id.startswith("supervised"))
    named = ("subset.runs=1", f"subset.proxy.run={one.folder}")
    assert command("ssl-select", *elfs, *named).code == 0
    assert command("ssl-evaluate", f"run={one.folder}", *TINY[:2], "evaluation=none").code == 0
    other = command("ssl-select", *elfs, *named, "subset.pseudo_labels.latent.clusters=7")
    assert "has not learnt the groups of subset.pseudo_labels" in message(other)
    assert command("ssl-select", *elfs, "subset.pseudo_labels.latent.clusters=7").code == 0
    assert len(proxies(tmp_path)) == 3 + 2
    assert len([*tmp_path.glob("cache/pseudo_labels/*.npy")]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("subset=grand", "+proxy@subset.embedder=simclr"), "subset.embedder is set, but nothing looks through it"),
        (("subset=elfs", "latent@subset.pseudo_labels.latent=one"), "one group of all images, of which a classifier"),
        (
            ("subset=elfs", "subset.quota=hierarchical"),
            "needs groups that form a tree, which subset=el2n lacks here. Choose such groups, "
            "latent@subset.pseudo_labels.latent=hierarchical_kmeans",
        ),
        (
            ("-m", "subset=elfs,el2n", "subset.runs=1"),
            "in a grid over subset=elfs,el2n, a setting that only its options have, and all of them, is written ++",
        ),
    ],
)
def test_choices_of_classifiers_and_groups_that_do_not_fit(command, tmp_path, arguments, said):
    done = command("ssl-select", *TINY, *arguments)
    assert said in message(done)
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_key_that_only_the_options_of_a_grid_have_is_written_with_two_pluses(command):
    done = command("ssl-train", "-m", "subset=elfs,el2n", "subset.proxy.trainer.max_epochs=1")
    assert "can be given: write ++subset.proxy.trainer.max_epochs=" in message(done)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever embeds or ranks fails."""
    monkeypatch.setattr("ssl_lightning.subsets.embedding.embed", None)
    monkeypatch.setattr("ssl_lightning.subsets.sas.graph_cut", None)


@pytest.fixture
def no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever embeds fails."""
    monkeypatch.setattr("ssl_lightning.subsets.embedding.embed", None)


# One ranking for all


def test_a_ranking_is_made_once_described_and_found_by_training(command: Command, tmp_path, monkeypatch):
    first = command("ssl-select", *QUICK)
    text = table(first)
    (proxy,) = proxies(tmp_path)
    assert proxy.done
    assert first.out.count(f"{proxy.id} starts") == 1

    file, ranking = ranking_file(tmp_path), ranking_in(tmp_path)
    pictures = [file.with_suffix(".images.png"), file.with_suffix(".scores.png")]
    assert text.split()[-3:] == [str(path) for path in (file, *pictures)]
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.format == "PNG"
            image.load()
    sizes = np.bincount(ranking.latent_class)
    assert f"ranking of {ranking.fingerprint}" in text
    assert re.search(rf"10 latent classes of {sizes.min()} to {sizes.max()} images .* purity 1\.000", text)
    turning = turning_points(ranking)
    assert f"first negative gain at {turning.min():.2f}, in the median class {np.median(turning):.2f}" in text
    for k, size in enumerate(sizes):
        score = ranking.score[ranking.latent_class == k]
        row = [str(k), str(size), "1.000", f"{score.max():.4g}", f"{score.min():.4g}", f"{turning[k]:.2f}"]
        assert row in [line.split() for line in text.splitlines()]

    before = times(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("ssl_lightning.subsets.embedding.embed", None)
        again = command("ssl-select", *QUICK, "subset.fraction=0.4")
        assert table(again) == text
        assert "starts" not in again.out
        assert times(tmp_path) == before

        for fraction, budget in ((0.4, "exact"), (0.2, "floor")):
            options = ("subset=sas", f"subset.fraction={fraction}", f"subset.budget={budget}")
            trained = command("ssl-train", *QUICK, *options)
            assert trained.code == 0, trained.err
            assert trained.out.count(" starts\n") == 1
            (run,) = (run for run in find_runs([tmp_path / "runs/default"]) if f"-{fraction}-" in run.id)
            mask = ranking.mask(fraction, budget)
            assert run.results()["mask"] == {
                "size": mask.size,
                "digest": mask.digest,
                "rule": "sas",
                "ranking": file.name,
            }
    assert times(tmp_path).items() >= before.items()
    assert proxies(tmp_path) == [proxy]


def test_training_builds_the_same_ranking_by_itself(command: Command, tmp_path, made):
    outcome = command("ssl-train", *QUICK, "subset=sas", "subset.fraction=0.6")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(" starts\n") == 2
    assert re.search(r"subset\.fraction=0\.6 reaches beyond 0\.\d\d, where graph_cut's gains turn", outcome.out)
    assert ranking_file(tmp_path).name == ranking_file(made).name
    np.testing.assert_array_equal(ranking_in(tmp_path).order, ranking_in(made).order)
    (run,) = find_runs([tmp_path / "runs/default"])
    assert run.results()["mask"]["digest"] == ranking_in(made).mask(0.6).digest
    assert [proxy.id for proxy in proxies(tmp_path)] == [proxy.id for proxy in proxies(made)]


def test_another_rule_takes_the_same_proxy_and_features(command: Command, here, no_work):
    labels = ranking_in(here).latent_class
    ranking_file(here).unlink()
    outcome = command("ssl-select", *QUICK, "subset=sas_row_sum", "subset.latent=kmeans")
    assert outcome.code == 0, outcome.err
    assert "starts" not in outcome.out
    assert "first negative" not in outcome.out
    ranking = ranking_in(here)
    assert len(np.unique(ranking.latent_class)) == 10
    found = purity(ranking.latent_class, labels)
    assert found < 1
    assert f"purity {found:.3f}" in " ".join(outcome.out.split())


@pytest.mark.nightly
def test_a_finished_run_can_be_the_proxy(command: Command, here, monkeypatch):
    expected, former = ranking_in(here), ranking_file(here)
    (proxy,) = proxies(here)
    shutil.move(proxy.folder, here / "mine")
    former.unlink()
    shutil.rmtree(here / "runs")
    options = (*QUICK, "subset.proxy.run=mine")
    outcome = command("ssl-select", *options)
    assert outcome.code == 0, outcome.err
    assert not proxies(here)
    first = ranking_file(here)
    assert first.name != former.name
    np.testing.assert_array_equal(ranking_in(here).order, expected.order)
    assert "starts" not in command("ssl-select", *options).out
    assert ranking_file(here) == first

    mine = Run(here / "mine")
    checkpoint = torch.load(mine.checkpoint, weights_only=True)
    torch.manual_seed(0)
    for name, value in checkpoint["state_dict"].items():
        checkpoint["state_dict"][name] = value + 0.1 * torch.rand(value.shape) if value.is_floating_point() else value
    torch.save(checkpoint, mine.checkpoint)
    assert command("ssl-select", *options).code == 0
    (second,) = set(here.glob("cache/rankings/*.npz")) - {first}
    assert not np.array_equal(Ranking.load(second, None).order, expected.order)


@pytest.mark.parametrize("run", ["nowhere", "cache"])
def test_a_proxy_that_is_no_run(command: Command, here, run):
    outcome = command("ssl-select", *QUICK, f"subset.proxy.run={run}")
    assert f"{run} is no run that has trained" in message(outcome)
    assert "Give the folder of one run" in message(outcome)


def test_all_images_are_no_ranking(command: Command, tmp_path):
    found = message(command("ssl-select", *TINY, "subset=full"))
    assert "subset=full takes all images" in found
    assert "subset=sas" in found
    assert not list(tmp_path.rglob("*.npz"))


def test_what_needs_no_proxy_is_kept_compared_and_handed_on(command: Command, tmp_path):
    outcome = command("ssl-select", "-m", *TINY, "subset=random,random_balanced", "seed=3", "export=${subset._target_}")
    assert outcome.code == 0, outcome.err
    assert "starts" not in outcome.out
    files = sorted((tmp_path / "cache" / "rankings").glob("*.npz"))
    assert [file.name.rpartition("-")[0] for file in files] == ["random", "random_balanced"]
    assert "| random_balanced |" in (tmp_path / "runs" / "rankings" / "digits" / "report.md").read_text()

    handed_on = tmp_path / "ssl_lightning.subsets.random.Random"
    cut = (*TINY, "trainer.limit_train_batches=2", "seed=3", "subset.fraction=0.1")
    draw = command("ssl-train", *cut, "subset=random").code
    read = command("ssl-train", *cut, "subset=file", f"subset.path={handed_on}").code
    assert (draw, read) == (0, 0)
    masks = {run.results()["mask"]["digest"] for run in find_runs([tmp_path / "runs"])}
    assert len(masks) == 1


def test_a_ranking_needs_a_place(command: Command, tmp_path):
    assert "subset.cache is null" in message(command("ssl-select", *QUICK, "subset.cache=null"))
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("subset", ["sas", "el2n"])
def test_a_fast_dev_run_keeps_nothing(command: Command, tmp_path, subset):
    outcome = command("ssl-select", *TINY, f"subset={subset}", "trainer.fast_dev_run=true")
    assert outcome.code == 0, outcome.err
    assert "nothing was kept" in outcome.out
    assert times(tmp_path) == {}


def test_jobs_of_a_multirun_share_a_ranking(command: Command, here, no_work):
    outcome = command("ssl-select", "-m", *QUICK, "subset.fraction=0.1,0.2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(f"ranking of {ranking_in(here).fingerprint}") == 2
    assert "Comparison" not in outcome.out  # with itself
    assert "One ranking of digits: there is nothing to compare it with." in outcome.out
    assert not (here / "runs" / "rankings").exists()


@pytest.mark.nightly
def test_processes_inside_a_multirun_are_refused_before_a_proxy_is_trained(command: Command, tmp_path):
    found = message(command("ssl-select", "-m", *QUICK, "trainer=ddp_cpu", "seed=0"))
    assert "trainer.devices asks for 2 processes a job" in found
    assert not list(tmp_path.rglob("config.yaml"))


# Several rankings


FAILING = pytest.param(
    ("subset.proxy.run=null,nowhere",), "2 of 4 jobs done, 2 failed: #1, #3", marks=pytest.mark.nightly
)


@pytest.mark.parametrize(("further", "said"), [((), "2 of 2 jobs done"), FAILING], ids=["well", "failing"])
def test_a_multirun_ends_with_a_comparison_of_its_rankings_and_lists(command, here, no_embedding, further, said):
    np.save(here / "friend.npy", np.random.default_rng(0).permutation(1257)[:200])
    outcome = command("ssl-select", "-m", *QUICK, "subset=sas,sas_row_sum", *further, "lists=[friend.npy]")
    assert outcome.code == bool(further)
    assert said in outcome.out + outcome.err
    assert "3 rankings of digits" in outcome.out
    folder = Path("runs/rankings/digits")
    assert f"Comparison: {folder / 'report.html'}" in outcome.out
    names = {"best_and_worst.png", "disputed.png", "report.html", "report.md"}
    assert {file.name for file in (here / folder).iterdir()} == names
    text = (here / folder / "report.md").read_text()
    for pair in map(" – ".join, itertools.combinations(("sas", "sas_row_sum", "friend.npy"), 2)):
        assert len(re.findall(rf"^\| {re.escape(pair)} ", text, flags=re.M)) == 2
        assert re.search(rf"^{re.escape(pair)} +[+-]\d\.\d\d", outcome.out, flags=re.M)
    assert "| 15.9 % |" in text
    assert "in the embeddings of the rule sas." in text
    assert not find_runs([here / "runs" / "rankings"])


@pytest.mark.parametrize("damage", [lambda file: os.truncate(file, 2000), os.remove], ids=["damaged", "gone"])
def test_a_comparison_goes_without_embeddings_that_are_lost(command: Command, here, no_work, damage):
    np.save(here / "friend.npy", np.arange(100))
    for file in here.glob("cache/features/*.npy"):
        damage(file)
    outcome = command("ssl-select", *QUICK, "subset=sas", "lists=[friend.npy]")
    assert outcome.code == 0, outcome.err
    assert "those of sas are no longer there" in (here / "runs/rankings/digits/report.md").read_text()


@pytest.mark.parametrize(
    ("listed", "said"),
    [("nowhere.npy", "lists: there is no file nowhere.npy"), ("long.npy", "index 1257: 1257 is no position of digits")],
)
def test_wrong_lists_are_refused_before_anything_is_made(command: Command, tmp_path, listed, said):
    np.save(tmp_path / "long.npy", np.arange(2000))
    assert said in message(command("ssl-select", *QUICK, "subset=sas", f"lists=[{listed}]"))
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_ranking_is_handed_on_and_read_back(command: Command, here, no_work):
    outcome = command("ssl-select", *QUICK, "export=given")
    assert outcome.code == 0, outcome.err
    assert "subset=file subset.path=given reads it" in outcome.out
    expected = ranking_in(here)
    back = command("ssl-select", *TINY, "subset=file", "subset.path=given", "lists=[given]")
    assert back.code == 0, back.err
    assert "file ranking of digits" in back.out
    assert re.search(r"file – given +\+1\.00", back.out)
    (kept,) = here.glob("cache/rankings/file-*.npz")
    np.testing.assert_array_equal(Ranking.load(kept, None).order, expected.order)


# Difficulty


@pytest.mark.nightly
def test_forgetting_is_read_from_the_proxies_checkpoints(command: Command, tmp_path):
    two_epochs = ("trainer.max_epochs=2", "subset.proxy.optimizer.lr=0.05")
    outcome = command("ssl-select", *TINY, "batch_size=128", *two_epochs, "subset=forgetting", "subset.runs=2")
    assert outcome.code == 0, outcome.err
    assert "first negative" not in outcome.out
    ranking, scores = ranking_in(tmp_path), []
    assert len(proxies(tmp_path)) == 2
    for run in proxies(tmp_path):
        counts = torch.load(run.checkpoint, weights_only=True)["callbacks"][ForgettingEvents().state_key]
        assert counts["presentations"].sum() == 2 * 9 * 128
        scores.append(forgetting_score(counts["events"], counts["learned"], 2))
    assert scores[0].unique().tolist() == [0, 1, 2]
    assert not torch.equal(scores[0], scores[1])
    np.testing.assert_array_equal(ranking.score, -(scores[0] + scores[1]).numpy() / 2)
    assert ranking.score[ranking.mask(0.1).positions].mean() > ranking.score.mean()


@pytest.mark.nightly
def test_proxies_that_difficulty_cannot_use(command: Command, here):
    (proxy,) = proxies(here)
    run = f"subset.proxy.run={proxy.folder}"
    found = message(command("ssl-select", *TINY, "subset=el2n", "subset.runs=1", run))
    assert "subset=el2n asks a classifier, but subset.proxy is SimCLR. Choose proxy@subset.proxy=supervised" in found
    found = message(command("ssl-select", *TINY, "subset=grand", run))
    assert "subset.proxy.run names one run, but subset.runs asks for several. Set subset.runs=1" in found

    assert command("ssl-train", *TINY, "batch_size=128", "method=supervised", "subset=full").code == 0
    (classifier,) = find_runs([here / "runs/default"])
    run = f"subset.proxy.run={classifier.folder}"
    found = message(command("ssl-train", *TINY, "subset=forgetting", "subset.runs=1", run))
    assert "did not count forgetting events. Train it with +callbacks.forgetting" in found
    before = set(here.glob("cache/rankings/*.npz"))
    assert before == {ranking_file(here)}
    assert command("ssl-select", *TINY, "subset=el2n", "subset.runs=1", run).code == 0


# Damage


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ssl-train", "ssl-select"])
def test_a_damaged_ranking_is_one_message_that_says_what_to_do(command: Command, here, name):
    file = ranking_file(here)
    content = file.read_bytes()
    arguments = (*QUICK, "subset=sas", "subset.fraction=0.4")
    for damaged in (content[: len(content) // 2], b"", b"not a ranking"):
        file.write_bytes(damaged)
        found = message(command(name, *arguments))
        assert f"{file} is no readable ranking" in found
        assert "Delete it and make it again" in found
        assert file.read_bytes() == damaged
    file.unlink()
    assert command(name, *arguments).code == 0


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["ssl-train", "ssl-select"])
def test_the_ranking_of_other_data_is_one_message_that_says_what_to_do(command: Command, here, name):
    file, ranking = ranking_file(here), ranking_in(here)
    other = {**ranking.provenance["fingerprint"], "digest": "0" * 16}
    Ranking(ranking.order, ranking.latent_class, ranking.score, {**ranking.provenance, "fingerprint": other}).save(file)
    found = message(command(name, *QUICK, "subset=sas"))
    assert f"{file} was made for digits/train[1257]:{'0' * 16}, but the dataset is {ranking.fingerprint}" in found
    assert "Make it again" in found


@pytest.mark.nightly
@pytest.mark.parametrize("content", [None, b"", b"half"])
def test_damaged_features_are_one_message_that_says_what_to_do(command: Command, here, content):
    (file,) = here.glob("cache/features/*.npy")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    ranking_file(here).unlink()
    found = message(command("ssl-select", *QUICK))
    assert str(file) in found
    assert "Delete it" in found
    file.unlink()
    assert command("ssl-select", *QUICK).code == 0


# Several processes


def until(text: re.Pattern[str], file: Path, alive: Callable[[], bool]) -> None:
    """Waits for a text in what a process prints."""
    end = time.monotonic() + 120
    while not file.exists() or not text.search(file.read_text()):
        assert alive(), file.read_text()
        assert time.monotonic() < end, file.read_text()
        time.sleep(0.02)


@pytest.mark.nightly
def test_processes_that_start_together_share_one_proxy_and_one_ranking(tmp_path):
    """The first is stopped while it trains the proxy, until the others wait: the second for its ranking, the third,
    which will need its features, and the fourth for its proxy."""
    shared = (*QUICK, f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}", "subset.fraction=0.4")
    sas = (*shared, "subset=sas", "subset.memory_gib=1.0e-6")  # so that whoever ranks says so
    others = {
        "second": ("sas-", (*sas, "seed=2")),
        "third": ("", (*shared, "subset=prototypes", "seed=2")),
        "fourth": ("", (*shared, "subset=prototypes", "seed=2", "subset.looks=1")),
    }
    stop = Signal("ssl_lightning.methods.method.SSLMethod.training_step", 2, number=signal.SIGSTOP)
    with ExitStack() as stack:
        first = stack.enter_context(started(tmp_path / "first", *sas, "seed=1", at=stop))
        waits = {"first": first}
        until(re.compile("-full-1-s0-.* starts"), tmp_path / "first/output.txt", first.process.is_alive)
        for name, (_, arguments) in others.items():
            waits[name] = stack.enter_context(started(tmp_path / name, *arguments))
        for name, (thing, _) in others.items():
            waiting = re.compile(rf"Waiting for another process, which is making .*{thing}")
            until(waiting, tmp_path / name / "output.txt", waits[name].process.is_alive)
        os.kill(first.process.pid, signal.SIGCONT)
        ended = {name: wait() for name, wait in waits.items()}
    for name, end in ended.items():
        assert end.code == 0, (name, end.output)
    printed = "".join(end.output for end in ended.values())
    (proxy,) = proxies(tmp_path)
    assert printed.count(f"{proxy.id} starts") == 1
    assert "resumes" not in printed
    assert printed.count("sas: 10 of 10 latent classes") == 1
    names = [file.name.partition("-")[0] for file in tmp_path.glob("cache/rankings/*.npz")]
    assert sorted(names) == ["prototypes", "prototypes", "sas"]
    assert len(list(tmp_path.glob("cache/features/*.npy"))) == 2
    runs = find_runs([tmp_path / "runs/default"])
    assert [run.status for run in runs] == ["finished"] * 4
    digests = [run.results()["mask"]["digest"] for run in runs if "-sas-" in run.id]
    assert len(digests) == 2
    assert len(set(digests)) == 1
    assert not list(tmp_path.rglob("*.part"))


MOMENTS = {
    "training the proxy": Signal("ssl_lightning.methods.method.SSLMethod.training_step", 4),
    "embedding": Signal("ssl_lightning.subsets.embedding.MeanEmbedding.__call__", 3),
    "ranking": Signal("ssl_lightning.subsets.sas.graph_cut", 4),
    "writing": Signal("numpy.savez_compressed", when="within"),
    "describing": Signal("ssl_lightning.pipeline.rank.contact_sheet"),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "moment",
    [pytest.param(when, marks=() if when in ("embedding", "writing") else pytest.mark.nightly) for when in MOMENTS],
)
def test_a_process_that_is_killed_leaves_nothing_half_done(command: Command, tmp_path, made, moment):
    if moment != "training the proxy":
        shutil.copytree(made / "runs", tmp_path / "runs")
    killed = ssl_select(tmp_path, *QUICK, at=MOMENTS[moment])
    assert killed.code == -signal.SIGKILL, killed.output
    rankings = list(tmp_path.glob("cache/rankings/*.npz"))
    features = list(tmp_path.glob("cache/features/*.npy"))
    left = list(tmp_path.glob("cache/*/.*.part"))
    assert len(rankings) == (moment == "describing")
    assert len(features) == (moment in ("ranking", "writing", "describing"))
    assert len(left) == (moment in ("embedding", "writing"))

    outcome = command("ssl-select", *QUICK)
    assert outcome.code == 0, outcome.err
    assert "Waiting" not in outcome.err
    np.testing.assert_array_equal(ranking_in(tmp_path).order, ranking_in(made).order)
    assert [proxy.status for proxy in proxies(tmp_path)] == ["finished"]
    assert not list(tmp_path.rglob("*.part"))
    assert set(times(tmp_path / "cache")) == set(times(made / "cache"))


@pytest.mark.nightly
@pytest.mark.parametrize(
    "subset", ["density", "alignment", "ssl_loss", "facility_location", "k_center", "herding", "d2"]
)
def test_every_score_ranks_what_the_proxy_of_another_sees(command, here, subset):
    """Features too are those that another rule has left."""
    ranked = set(here.glob("cache/rankings/*.npz"))
    done = command("ssl-select", *QUICK, f"subset={subset}")
    assert done.code == 0, done.err
    assert f"{subset} ranking of digits" in done.out
    assert " starts" not in done.out
    assert len(list(here.glob("cache/features/*.npy"))) == 1
    (file,) = set(here.glob("cache/rankings/*.npz")) - ranked
    ranking = Ranking.load(file, None)
    assert sorted(ranking.order.tolist()) == list(range(1257))
    assert np.isfinite(ranking.score).all()
    for kind in ("images", "scores"):
        with Image.open(file.with_suffix(f".{kind}.png")) as picture:
            assert picture.width > 300


@pytest.mark.nightly
@pytest.mark.parametrize("subset", ["ssl_loss", "facility_location"])
def test_two_processes_score_as_one(tmp_path, made, command, subset):
    for folder in ("runs", "cache/features"):
        shutil.copytree(made / folder, tmp_path / folder)
    first, second = two_processes(tmp_path, *QUICK, f"subset={subset}", "trainer=ddp_cpu", command="ssl-select")
    assert first.code == second.code == 0, first.output + second.output
    file = ranking_file(tmp_path)
    theirs = Ranking.load(file, None)
    file.unlink()
    assert command("ssl-select", *QUICK, f"subset={subset}").code == 0
    ours = ranking_in(tmp_path)
    np.testing.assert_array_equal(theirs.order, ours.order)
    np.testing.assert_array_equal(theirs.score, ours.score)


def test_two_processes_make_the_same_ranking(tmp_path, made):
    """One of them trains the proxy."""
    done, second = two_processes(tmp_path, *QUICK, "trainer=ddp_cpu", command="ssl-select")
    assert done.code == second.code == 0, done.output + second.output
    assert "Traceback" not in done.output
    (proxy,) = proxies(tmp_path)
    assert (done.output + second.output).count(f"{proxy.id} starts") == 1
    ours, theirs = ranking_in(made), ranking_in(tmp_path)
    assert (done.output + second.output).count(f"ranking of {ours.fingerprint}") == 1
    assert ranking_file(tmp_path).name == ranking_file(made).name
    np.testing.assert_array_equal(theirs.order, ours.order)
    np.testing.assert_array_equal(theirs.score, ours.score)
    assert not list(tmp_path.rglob("*.part"))
