"""`foreworld`: one executable; only the chosen verb is imported."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from foreworld import __version__

VERBS = {
    "demo": "play Atari, learn a world model in minutes, and show its dreams beside the truth",
    "collect": "let a policy act in an environment and store the episodes",
    "import": "make a dataset out of files: robomimic, Minari, npz",
    "export": "write a dataset for other tools: robomimic, Minari, npz",
    "check": "say whether a dataset can be trained on: shifted actions, damage, frozen frames, NaN",
    "inspect": "show what a dataset or a run holds",
    "list": "list model families, sizes, planners, environments, and the runs in a folder",
    "train": "train a world model on stored episodes",
    "eval": "measure open-loop error against trivial baselines, write a report",
    "imagine": "write a video of a dream beside the truth",
    "horizon": "say how many steps may be trusted: measured on trajectories, or from an error per step",
    "agent": "train an agent in the dreams of a world model that learns from what it does",
    "act": "let a trained agent act, print its return with an interval, and write a clip",
    "plan": "act by planning with a world model, beside random actions, random shooting and an oracle",
    "bench": "measure how fast training, imagination, sampling and collection run here",
}

MODULES = {"import": "import_"}
"""Verbs whose module has another name, as theirs is a word of Python."""

EXAMPLES = """examples:
  foreworld demo
  foreworld collect --env CartPole-v1 --episodes 50 --out episodes
  foreworld train --preset rssm --size tiny --data episodes --steps 500 --out runs/first
  foreworld eval --run runs/first --data episodes
  foreworld imagine --run runs/first --data episodes --out dream.mp4
  foreworld agent --env CartPole-v1 --out runs/cartpole
  foreworld plan --run runs/cartpole
"""

BAD_INPUT = 2
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a verb.

    Args:
        argv: arguments after the program's name; by default those of the process.

    Returns:
        0 when all went well, 1 when what was checked is at fault, 2 for bad input, 128 + the signal when interrupted
        (130 for Ctrl-C, 143 for SIGTERM).
    """
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:
        # the reader (head, less) has gone; point stdout away so that the interpreter's own flush stays silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"foreworld {__version__}")
        return 0
    # loaded here, as core needs torch and help must not wait for it
    from foreworld.core.errors import ForeworldError
    from foreworld.core.interrupt import Interrupted
    from foreworld.core.registry import unknown

    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        return _fail("", unknown("verb", verb, list(VERBS)))
    try:
        return import_module(f"foreworld.cli.{MODULES.get(verb, verb)}").run(rest) or 0
    except ForeworldError as error:
        return _fail(verb, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(verb, f"{error.filename or 'a file'}: {error.strerror or error}; nothing finished was lost")
    except Interrupted as end:
        print(f"\nforeworld {verb}: {end}", file=sys.stderr)
        return 128 + end.signal
    except KeyboardInterrupt:
        print(f"\nforeworld {verb}: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def usage() -> str:
    """Return the top-level help."""
    width = max(map(len, VERBS))
    table = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        f"foreworld {__version__}: train world models, measure how far to trust them, act with them\n\n"
        f"usage: foreworld VERB [options]     foreworld VERB --help\n\n{table}\n\n{EXAMPLES}"
    )


def _fail(verb: str, message: str) -> int:
    print(f"foreworld {verb}".rstrip() + f": {message}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
