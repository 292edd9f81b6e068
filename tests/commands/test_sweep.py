"""ssl-sweep reports what its jobs leave, wherever that is."""

import pytest
import yaml

from tests.composing import TINY

ODD = "é ( ) ~ # = , [x] {y} it's"
"""What a shell, Hydra, a URL or a Makefile may take for something else."""


@pytest.fixture
def odd(command, tmp_path, monkeypatch):
    """A folder of such a name is the working directory, with a grid over two sweeps."""
    (tmp_path / ODD).mkdir()
    monkeypatch.chdir(tmp_path / ODD)
    monkeypatch.setenv("HOME", str(tmp_path / ODD))
    monkeypatch.setenv("SSL_RUNS", "~/my runs")
    monkeypatch.setenv("SSL_CACHE", "")
    (tmp_path / ODD / "two grids.yaml").write_text(
        "defaults: [/train, _self_]\n"
        "sweep: part-${subset.fraction}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {subset.fraction: '0.1,0.2'}}}\n"
    )
    return tmp_path / ODD


@pytest.mark.nightly
def test_a_grid_over_several_sweeps_in_a_folder_of_any_name(command, odd):
    outcome = command("ssl-sweep", "two grids.yaml", *TINY)
    assert outcome.code == 0, outcome.err
    assert "2 of 2 jobs done" in outcome.out
    report = (odd / "my runs/two grids/report/report.md").read_text(encoding="utf-8")
    cells = [
        [word.strip() for word in line.split("|")]
        for line in report.partition("## Differences")[0].splitlines()
        if line.startswith("|")
    ]
    assert [line[cells[0].index("fraction")] for line in cells[2:]] == ["0.1", "0.2"]
    assert {"part-0.1", "part-0.2", "two grids"} <= {folder.name for folder in (odd / "my runs").iterdir()}
    assert not (odd / "~").exists()

    (odd / "my runs/two grids/report/report.md").unlink()
    again = command("ssl-sweep", str(odd / "two grids.yaml"), *TINY)  # nothing is left to do but the report
    assert again.out.count("is finished") == 2
    assert (odd / "my runs/two grids/report/report.md").read_text(encoding="utf-8") == report


@pytest.mark.parametrize("content", ["", "word", "[1, 2]", "sweep: mine"])
def test_a_file_that_is_no_grid(command, tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    outcome = command("ssl-sweep", "mine.yaml")
    assert outcome.code == 1
    assert outcome.err == (
        f"Error: {tmp_path}/mine.yaml is no grid: it does not build on ssl-train's config. Begin it with the line "
        "defaults: [/train, _self_] (see sweeps/quickstart.yaml).\n"
    )


@pytest.mark.nightly
def test_nothing_to_report_is_said(command, odd):
    outcome = command("ssl-sweep", "two grids.yaml", *TINY, "trainer.fast_dev_run=true")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "There is nothing to report: no job has kept a run."


# To look at the jobs of a grid


@pytest.fixture
def own(tmp_path):
    """A folder of configs of one's own: a method, and a grid of it and another, which finds it by this folder alone."""
    folder = tmp_path / "own"
    for name, text in {
        "method/mine.yaml": "defaults: [directclr]\nd0: 7\n",
        "sweeps/grid.yaml": (
            "defaults: [/train, _self_]\n"
            "sweep: mine\n"
            "hydra: {mode: MULTIRUN, sweeper: {params: {method: 'mine,directclr', seed: '1,2'}}}\n"
        ),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


JOBS = ["method=mine seed=1", "method=mine seed=2", "method=directclr seed=1", "method=directclr seed=2"]

TEMPERATURE = "method.temperature=0.3"


@pytest.mark.one_in(3)
@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=pool", "hydra.launcher.slots=2"), ("hydra/launcher=slurm",)])
def test_a_dry_run_lists_the_jobs_and_leaves_nothing(command, tmp_path, own, launcher):
    before = sorted(tmp_path.rglob("*"))
    outcome = command("ssl-sweep", "grid", *launcher, "--config-dir", "own", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        *(f"#{i} {job}" for i, job in enumerate(JOBS)),
        "4 jobs, none of which was run",
        "How long they take is not known: no finished run is like them.",
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.nightly
def test_a_dry_run_names_jobs_that_would_fail_at_once(command, own):
    outcome = command("ssl-sweep", "--dry-run", "grid", "--config-dir", "own", "method.temperature=0.3,0.0")
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1] == f"#7 {JOBS[-1]} method.temperature=0.0"
    errors = outcome.err.splitlines()
    assert len(errors) == 5
    assert all(
        line.startswith("Error: method.temperature is 0.0 (command line: method.temperature=0.0)")
        for line in errors[:4]
    )
    assert errors[4] == "Error: 4 of 8 jobs would fail at once: #1, #3, #5, #7. Mend their settings."


@pytest.mark.nightly
def test_a_dry_run_looks_at_what_is_there(command, own):
    """A subset that is smaller than a batch, a list of images and weights that are missing, and a method that refuses
    what it is to be made of."""
    grid = ("ssl-sweep", "grid", "-cd", "own", "method=directclr", "--dry-run")
    outcome = command(*grid, "seed=1", "subset.fraction=0.5,0.1", "init=null,nowhere.ckpt")
    assert outcome.code == 1
    errors = outcome.err.splitlines()
    assert "init=nowhere.ckpt: there is no such file or folder." in errors[0]
    assert errors[1].startswith("Error: batch_size is 256, but the subset has only 126 images (random).")
    assert errors[-1] == "Error: 3 of 4 jobs would fail at once: #1, #2, #3. Mend their settings."
    outcome = command(*grid[:-2], "method=gessl", "method.base=reptile", "seed=1", "--dry-run")
    assert outcome.code == 1
    assert "method.base is Reptile" in outcome.err
    outcome = command(*grid, "seed=1", "subset=file", "subset.path=nowhere.npy")
    assert "subset.path: there is no file nowhere.npy" in outcome.err
    outcome = command(*grid, "dataset=cifar10")
    assert outcome.code == 0, outcome.err
    said = "Sizes of subsets and labels were not looked at: what cifar10 holds is not known before it is read"
    assert said in outcome.out.splitlines()


@pytest.mark.nightly
@pytest.mark.parametrize(
    "arguments",
    [
        ("ssl-sweep", "grid", "-cd", "own", TEMPERATURE, "--cfg", "job", "-p", "method"),
        (
            "ssl-train",
            "-cd",
            "own",
            "--cfg=job",
            "-p",
            "method",
            "-m",
            "method=mine,directclr",
            "seed=1,2",
            TEMPERATURE,
        ),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_configs_of_all_jobs_are_printed(command, tmp_path, own, arguments):
    before = sorted(tmp_path.rglob("*"))
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    configs = list(yaml.safe_load_all(outcome.out))
    assert [config["d0"] for config in configs] == [7, 7, None, None]
    assert all(config["temperature"] == 0.3 for config in configs)
    titles = [line for line in outcome.out.splitlines() if line.startswith("#")]
    assert titles == [f"# job {i}: {job} {TEMPERATURE}" for i, job in enumerate(JOBS)]
    assert sorted(tmp_path.rglob("*")) == before


def test_one_config_is_printed_by_hydra(command):
    outcome = command("ssl-train", "--cfg", "job", "-p", "method", "method=directclr")
    assert outcome.out.startswith("# @package method\n")


@pytest.mark.nightly
def test_ones_own_grid_runs_with_ones_own_configs(command, tmp_path, own):
    (own / "sweeps/grid.yaml").write_text(
        "defaults: [/train, _self_]\nsweep: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {method: mine}}}\n"
    )
    outcome = command("ssl-sweep", "grid", *TINY, "--config-dir", "own", TEMPERATURE)
    assert outcome.code == 0, outcome.err
    (file,) = (tmp_path / "runs/mine").glob("*/config.yaml")
    assert yaml.safe_load(file.read_text())["method"]["temperature"] == 0.3


def test_a_grid_that_brings_its_own_folder(command, tmp_path, own):
    grid = tmp_path / "elsewhere.yaml"
    grid.write_text(
        "defaults: [/train, _self_]\n"
        "hydra: {searchpath: [own], mode: MULTIRUN, sweeper: {params: {method: 'mine,simclr'}}}\n"
    )
    outcome = command("ssl-sweep", "elsewhere.yaml", "--dry-run")
    assert outcome.out.splitlines()[:2] == ["#0 method=mine", "#1 method=simclr"], outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gird", "-cd", "own"), "own/sweeps or "),
        (("gird", "-cd", "own"), "did you mean 'grid'?"),
        (("grid", "-cd", "nowhere"), "--config-dir nowhere: there is no such folder."),
    ],
)
def test_a_grid_that_is_not_there(command, own, arguments, said):
    outcome = command("ssl-sweep", *arguments)
    assert outcome.code == 1
    assert said in outcome.err
