"""ssl-theory: the two mechanisms of dimensional collapse, as experiments with linear encoders."""

from pathlib import Path

from omegaconf import DictConfig

from ssl_lightning.commands.ending import run_application, run_command, run_job
from ssl_lightning.config.hydra import application


def main() -> None:
    run_command(lambda: run_application(_app))


@application("theory")
def _app(config: DictConfig) -> None:
    run_job(lambda: theory(config), config.get("debug") is True)


def theory(config: DictConfig) -> Path:
    """Makes the experiments of this config. Returns the folder of their numbers and pictures; of a multirun, each job
    has one within `to`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from ssl_lightning.config.resolve import resolve
    from ssl_lightning.config.schema import TheoryConfig

    plain = resolve(config, TheoryConfig)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        plain["to"] = str(Path(plain["to"]) / str(HydraConfig.get().job.num))
    from ssl_lightning.pipeline.theory import theory

    return theory(plain)


if __name__ == "__main__":
    main()
