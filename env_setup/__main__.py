"""The command line: python -m env_setup check | install | prefetch. Runs on a bare Python 3.11."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from env_setup.disk import Disk
from env_setup.facts import Request
from env_setup.findings import Probes
from env_setup.install import Installer
from env_setup.machine import EnvironmentMissing, describe_environment, describe_machine
from env_setup.report import as_json, is_go, table

__all__ = ["main"]

LOCKS = Path(__file__).resolve().parent / "locks"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 go or done, 1 no-go or failed, 2 not understood."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    more: list[str] = []
    if "--" in given:
        given, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = _parser().parse_args(given)
    request = Request(
        environ=os.environ,
        locks=Path(getattr(options, "locks", LOCKS)).absolute(),
        directory=_absolute(getattr(options, "environment", None)),
        form=getattr(options, "form", None),
        attention=getattr(options, "attention", "auto"),
        for_gpu=getattr(options, "for_gpu", False),
        weights=not getattr(options, "no_weights", False),
    )
    try:
        running = describe_environment(Path(sys.executable))
    except EnvironmentMissing as error:
        print(error, file=sys.stderr)
        return 1
    installer = Installer(request, describe_machine(), running, Probes(Disk()))
    if options.command == "install":
        return installer.install(more)
    if options.command == "prefetch":
        return installer.prefetch(more)
    _, plan, findings = installer.look()
    print(as_json(plan, findings) if options.json else table(plan, findings))
    return 0 if is_go(findings) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m env_setup", description="Prepare a machine or an image for f5.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="print the plan and every finding; exit status 0 means go")
    install = commands.add_parser("install", help="run the plan: environment, flash_attn, weights")
    for command in (check, install):
        command.add_argument("--environment", metavar="DIR", help="build the environment of the f5 replicas there")
        command.add_argument("--locks", metavar="DIR", default=LOCKS, help="holds base.lock and f5.lock")
        command.add_argument("--form", choices=("ray", "prepared", "installed"), help="how f5 gets its packages")
        command.add_argument("--attention", choices=("auto", "sdpa", "flash_attn"), default="auto")
        command.add_argument("--for-gpu", action="store_true", help="prepare for a GPU that is not here (images)")
        command.add_argument("--no-weights", action="store_true", help="leave the weights to the first replica")
    check.add_argument("--json", action="store_true", help="for machines")
    install.epilog = "Arguments after -- go to `python -m serve_app.weights`."
    commands.add_parser("prefetch", help="fetch the weights alone", epilog=install.epilog)
    return parser


def _absolute(directory: str | None) -> Path | None:
    return None if directory is None else Path(directory).absolute()


if __name__ == "__main__":
    sys.exit(main())
