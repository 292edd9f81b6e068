"""ssl-train: pretrain an encoder on a subset, evaluate it on the full labelled data, leave one folder."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ssl_lightning.commands.ending import run_command, run_job
from ssl_lightning.commands.looking import look_or_run
from ssl_lightning.config.hydra import application
from ssl_lightning.launchers.answer import answer, asked
from ssl_lightning.launchers.journal import tell_folder

if TYPE_CHECKING:
    from ssl_lightning.pipeline.beforehand import Beforehand
    from ssl_lightning.runs.run import Run


def main() -> None:
    run_command(look_or_train)


def look_or_train() -> list[dict[str, Any]]:
    """Does what the command line says. Returns the configs of the jobs of a dry run."""
    configs: list[dict[str, Any]] = []
    looked: list[Beforehand] = []

    def look(config: dict[str, Any]) -> None:
        from ssl_lightning.pipeline.beforehand import Beforehand

        looked[:] = looked or [Beforehand()]
        looked[0].check(config)
        configs.append(config)

    look_or_run(_app, "train", further=look)
    if looked and (notice := looked[0].notice()):
        print(notice, flush=True)
    return configs


@application("train")
def _app(config: DictConfig) -> object:
    return run_job(lambda: _train_and_answer(config), config.get("debug") is True)


def _train_and_answer(config: DictConfig) -> float | None:
    """What a sweeper is to learn from, where one asks."""
    run = train(config)
    if not asked():
        return None
    from ssl_lightning.runs.results import objective

    value = objective(run.results(), config.objective)
    answer(value)
    return value


def train(config: DictConfig) -> "Run":
    """Does whatever the run of this config still lacks: training, evaluation, results. Returns its folder."""
    from ssl_lightning.config.resolve import resolve

    plain = resolve(config)  # before the heavy imports: wrong input is answered at once
    tell_folder(plain["paths"]["runs"], plain["sweep"])
    from ssl_lightning.pipeline.pretrain import pretrain

    return pretrain(plain)


if __name__ == "__main__":  # as jobs of a pool are started
    main()
