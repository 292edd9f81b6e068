"""ssl-report: compare the runs in some folders."""

import argparse
from pathlib import Path

from ssl_lightning.commands.ending import run_command
from ssl_lightning.pipeline.report import report


def main() -> None:
    parser = argparse.ArgumentParser(prog="ssl-report", description="Compare the runs in some folders.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs or of sweeps")
    parser.add_argument("--output", type=Path, help="where to write the report (default: <first DIR>/report)")
    parser.add_argument(
        "--reference", metavar="WORDS", help="what the others are compared with, such as 'simclr random'"
    )
    arguments = parser.parse_args()
    run_command(lambda: report(arguments.folders, arguments.output, arguments.reference))


if __name__ == "__main__":
    main()
