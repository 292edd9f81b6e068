"""ssl-runs: runs in any folders, listed, compared by one number, shown, deleted, moved."""

import argparse
import sys
from pathlib import Path

from ssl_lightning.commands.ending import run_command

WHAT = "folders of runs, and filters: method=simclr 'fraction<0.5' status=failed"


def main() -> None:
    arguments = asked(sys.argv[1:])
    run_command(lambda: _command(arguments))


def asked(words: list[str]) -> argparse.Namespace:
    """What a command line says; options may stand anywhere after the verb."""
    parser = argparse.ArgumentParser(
        prog="ssl-runs",
        description="Runs in any folders, each counted once however many folders or links lead to it. Filters compare "
        "what a run is, its status, metrics, costs and settings (batch_size, method.temperature) by = != < <= > >=; = "
        "and != take patterns such as run=simclr-*.",
    )
    verbs = parser.add_subparsers(required=True)
    own_parsers: dict[str, argparse.ArgumentParser] = {}
    for verb, says in {
        "ls": "a row for each run (default: of paths.runs)",
        "best": "runs with the highest values of a metric",
        "show": "all that is known of runs",
        "rm": "delete runs, after asking",
        "mv": "move runs into the folder of another sweep",
    }.items():
        own = own_parsers[verb] = verbs.add_parser(verb, help=says, description=f"{says[0].upper()}{says[1:]}.")
        own.set_defaults(verb=verb)
        own.add_argument("what", nargs="+" if verb in ("rm", "mv") else "*", metavar="WHAT", help=WHAT)
        if verb in ("ls", "best", "show"):
            own.set_defaults(format="text")
            for format in ("json", "csv"):
                own.add_argument(f"--{format}", dest="format", action="store_const", const=format)
        if verb == "best":
            own.add_argument("--by", default="linear/top1", metavar="METRIC", help="default: linear/top1")
            own.add_argument("--number", "-n", type=int, default=10, metavar="N", help="of each protocol (default: 10)")
            own.add_argument("--lowest", action="store_true", help="the lowest values, as of a loss or a cost")
        if verb == "rm":
            own.add_argument("--yes", "-y", action="store_true", help="do not ask")
        if verb == "mv":
            own.add_argument("sweep", type=Path, metavar="SWEEP", help="a folder, such as runs/other; made if missing")
    verb, *rest = words or [""]
    # Subparsers of argparse take no option between two words.
    return own_parsers[verb].parse_intermixed_args(rest) if verb in own_parsers else parser.parse_args(words)


def _command(arguments: argparse.Namespace) -> None:
    from ssl_lightning.pipeline import listing

    if arguments.verb == "ls":
        listing.list_runs(arguments.what, arguments.format)
    elif arguments.verb == "best":
        listing.best_runs(arguments.what, arguments.format, arguments.by, arguments.number, arguments.lowest)
    elif arguments.verb == "show":
        listing.show_runs(arguments.what, arguments.format)
    elif arguments.verb == "rm":
        listing.remove_runs(arguments.what, arguments.yes)
    else:
        listing.move_runs(arguments.what, arguments.sweep)


if __name__ == "__main__":
    main()
