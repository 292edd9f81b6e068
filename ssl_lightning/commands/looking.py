"""What a command would do, without doing it: `--dry-run` lists the jobs of a multirun, `-m --cfg job` prints the config
of each, and `--help method` what can be set there."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf

from ssl_lightning.commands.ending import report_error, run_application
from ssl_lightning.config.hydra import application, quoted
from ssl_lightning.config.messages import nearest
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.answer import learns

LAUNCHER = "hydra_plugins.ssl_lightning_looking.LookingLauncher"
PLACES = ("--config-path", "--config-name", "--config-dir")
"""Options of Hydra's whose short forms begin as that of --cfg does."""


class _Enough(BaseException):
    """Of the jobs that a sweeper chooses by what others have reached, the first was looked at."""


def parser_of_looking() -> argparse.ArgumentParser:
    """The options that a command takes in order to be looked at."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="list the jobs, and whether their configs are valid")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"), help="print configs, as Hydra does")
    parser.add_argument("--package", "-p", help="of --cfg: the part to print, such as method")
    parser.add_argument("--resolve", action="store_true", help="of --cfg: with interpolations resolved")
    return parser


def look_or_run(
    started: Callable[[], None],
    name: str,
    schema: type = TrainConfig,
    further: Callable[[dict[str, Any]], object] = lambda config: None,
) -> None:
    """Runs a Hydra application of the package's config of this name, or, where the command line asks for that, looks at
    its jobs, or at what can be set.

    Args:
        further: is called with the resolved config of each job of a dry run, and raises what it would fail for.

    Raises:
        UserError: says at the end which jobs have failed, or have settings that `schema` refuses.
    """
    parser = parser_of_looking()
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    for option in PLACES:
        parser.add_argument(option, f"-c{option[len('--config-')]}")
    asked, rest = parser.parse_known_args(sys.argv[1:])
    named = [word for word in rest if not word.startswith("-") and "=" not in word]
    if asked.help and named:
        folders = [CONF, *([Path(asked.config_dir)] if asked.config_dir else [])]
        print("\n".join(_texts(word, folders) for word in named), flush=True)
    elif asked.dry_run or (asked.multirun and asked.cfg == "job"):
        for option in PLACES:
            if (value := getattr(asked, option.lstrip("-").replace("-", "_"))) is not None:
                rest = [option, value, *rest]
        _look(name, schema, rest, asked, further)
    else:
        run_application(started)


def _look(
    name: str,
    schema: type,
    arguments: list[str],
    asked: argparse.Namespace,
    further: Callable[[dict[str, Any]], object],
) -> None:
    """At each job of a multirun with these arguments."""
    jobs: list[int] = []  # their numbers
    wrong: list[int] = []

    def look(config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        number, overrides = hydra.job.num, " ".join(hydra.overrides.task)
        jobs.append(number)
        if asked.cfg:
            print(f"{'---' * (len(jobs) > 1)}\n# job {number}: {overrides}\n{_yaml(config, asked)}".strip(), flush=True)
        else:
            print(f"#{number} {overrides}", flush=True)
            try:
                further(resolve(config, schema))
            except Exception as error:
                report_error(error)
                wrong.append(number)
        if learns(hydra):
            print("hydra/sweeper chooses the others by what jobs have reached.", file=sys.stderr, flush=True)
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:  # of Hydra's own notes
        own = [f"hydra.sweep.dir={quoted(folder)}", f"hydra.launcher._target_={LAUNCHER}"]
        sys.argv = [sys.argv[0], "-m", *arguments, *own]
        with contextlib.suppress(_Enough):
            run_application(application(name)(look))
    if wrong:
        numbers = ", ".join(f"#{number}" for number in wrong)
        raise UserError(f"{len(wrong)} of {len(jobs)} jobs would fail at once: {numbers}. Mend their settings.")
    if not asked.cfg:
        print(f"{len(jobs)} job{'s' * (len(jobs) != 1)}, none of which was run", flush=True)


def _texts(name: str, folders: Sequence[Path]) -> str:
    """The options of a group, or one, `group/option`, as they are written, with their comments.

    Args:
        name: of a group, or a key that takes its options, such as method.projector.
        folders: of configs.
    """
    group, option = name.rpartition(".")[2], "*"
    if "/" in group and not any((folder / group).is_dir() for folder in folders):
        group, _, option = group.rpartition("/")
    files = [file for folder in folders for file in sorted((folder / group).glob(f"{option}.yaml"))]
    if not files:
        known = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
        known = {f"{group}/{file.stem}" for folder in folders for file in (folder / group).glob("*.yaml")} or known
        raise UserError(f"--help {name}: there is nothing of this name; {nearest(name, known)}")
    texts = [f"== {group}={file.stem} ({file}) ==\n{file.read_text(encoding='utf-8').strip()}\n" for file in files]
    return "\n".join(texts)


def _yaml(config: DictConfig, asked: argparse.Namespace) -> str:
    """Of a config, or of the part that is asked for."""
    part = OmegaConf.select(config, asked.package) if asked.package not in (None, "_global_") else config
    if not isinstance(part, Container):
        return str(part)
    return OmegaConf.to_yaml(part, resolve=asked.resolve)
