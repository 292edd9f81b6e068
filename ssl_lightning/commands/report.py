"""ssl-report: compare the runs in some folders."""

import argparse
from pathlib import Path

from ssl_lightning.commands.ending import run_command
from ssl_lightning.pipeline.report import report


def main() -> None:
    known = parser()
    arguments = known.parse_intermixed_args()
    if arguments.every is not None and not arguments.watch:
        known.error("--every is an option of --watch: give both")
    run_command(lambda: _report(arguments))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-report", description="Compare the runs in some folders.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs or of sweeps")
    parser.add_argument("--output", type=Path, help="where to write the report (default: <first DIR>/report)")
    parser.add_argument(
        "--reference",
        metavar="WORDS",
        help="what the others are compared with, such as 'simclr random'; 'random': each method with its own",
    )
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="",
        metavar="PROJECT",
        help="save workspaces and a report in wandb too, in the project of the runs, or this one, or entity/project",
    )
    parser.add_argument("--watch", action="store_true", help="write it anew while runs train, until Ctrl-C")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="of --watch, between two looks (default: 30)")
    return parser


def _report(arguments: argparse.Namespace) -> None:
    if arguments.watch:
        from ssl_lightning.pipeline.watching import watch

        every = {} if arguments.every is None else {"every": arguments.every}
        watch(arguments.folders, arguments.output, arguments.reference, **every)
    else:
        report(arguments.folders, arguments.output, arguments.reference)
    if arguments.wandb is not None:
        from ssl_lightning.pipeline.dashboard import dashboard

        dashboard(arguments.folders, arguments.output, arguments.wandb)


if __name__ == "__main__":
    main()
