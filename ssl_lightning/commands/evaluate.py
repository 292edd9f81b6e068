"""ssl-evaluate: what a frozen encoder, of a run or from elsewhere, makes of any labelled dataset."""

from pathlib import Path

from omegaconf import DictConfig

from ssl_lightning.commands.ending import run_command, run_job
from ssl_lightning.commands.looking import look_or_run
from ssl_lightning.config.hydra import application
from ssl_lightning.config.schema import EvaluateConfig


def main() -> None:
    run_command(lambda: look_or_run(_app, "evaluate", EvaluateConfig))


@application("evaluate")
def _app(config: DictConfig) -> None:
    run_job(lambda: evaluate(config), config.get("debug") is True)


def evaluate(config: DictConfig) -> Path:
    """Makes the evaluation of this config unless it is there, and prints it. Returns its file."""
    from ssl_lightning.config.resolve import resolve

    plain = resolve(config, EvaluateConfig)  # before the heavy imports: wrong input is answered at once
    from ssl_lightning.pipeline.evaluate import evaluate

    return evaluate(plain)


if __name__ == "__main__":  # as jobs of a pool are started
    main()
