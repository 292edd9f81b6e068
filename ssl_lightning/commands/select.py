"""ssl-select: rank the training images of a dataset, once, and show what the ranking prefers."""

from pathlib import Path

from omegaconf import DictConfig

from ssl_lightning.commands.ending import run_command, run_job
from ssl_lightning.commands.looking import look_or_run
from ssl_lightning.config.hydra import application
from ssl_lightning.config.schema import SelectConfig


def main() -> None:
    run_command(lambda: look_or_run(_app, "select", SelectConfig))


@application("select")
def _app(config: DictConfig) -> None:
    run_job(lambda: select(config), config.get("debug") is True)


def select(config: DictConfig) -> Path | None:
    """Makes the ranking of this config unless it is there, and describes it. Returns its file."""
    from ssl_lightning.config.resolve import resolve

    plain = resolve(config, SelectConfig)  # before the heavy imports: wrong input is answered at once
    from ssl_lightning.pipeline.rank import rank

    return rank(plain)


if __name__ == "__main__":  # as jobs of a pool are started
    main()
