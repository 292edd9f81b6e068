"""ssl-export: the encoder of a run, as files that other programs load."""

from pathlib import Path

from omegaconf import DictConfig

from ssl_lightning.commands.ending import run_application, run_command, run_job
from ssl_lightning.config.hydra import application


def main() -> None:
    run_command(lambda: run_application(_app))


@application("export")
def _app(config: DictConfig) -> None:
    run_job(lambda: export(config), config.get("debug") is True)


def export(config: DictConfig) -> Path:
    """Writes what this config describes. Returns the folder."""
    from ssl_lightning.config.resolve import resolve
    from ssl_lightning.config.schema import ExportConfig

    plain = resolve(config, ExportConfig)  # before the heavy imports: wrong input is answered at once
    from ssl_lightning.pipeline.export import export

    return export(plain["run"], plain["format"], Path(plain["to"]), plain["trusted"])


if __name__ == "__main__":
    main()
