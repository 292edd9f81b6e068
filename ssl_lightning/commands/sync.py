"""ssl-sync: upload runs to wandb from their folders."""

import argparse
from pathlib import Path

from ssl_lightning.commands.ending import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="ssl-sync",
        description="Build wandb runs anew from metrics, results and figures of runs, made with or without wandb, "
        "finished or not. What has not changed since is skipped.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs or of sweeps")
    parser.add_argument("--project", help="of wandb (default: that of the run's config)")
    parser.add_argument("--entity", help="user or team (default: that of the run's config, or of the login)")
    parser.add_argument(
        "--mode",
        choices=("auto", "online", "offline"),
        default="auto",
        help="offline: build files for `wandb sync`; auto: so where there is no login",
    )
    parser.add_argument("--again", action="store_true", help="also what has not changed")
    run_command(lambda: _sync(parser.parse_args()))


def _sync(arguments: argparse.Namespace) -> None:
    from ssl_lightning.pipeline.sync import sync

    sync(arguments.folders, arguments.project, arguments.entity, arguments.mode, arguments.again)


if __name__ == "__main__":
    main()
