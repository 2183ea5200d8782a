"""``limosa``: finds the command, runs it, and turns errors into messages and exit statuses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import click

from limosa import __version__
from limosa.cli.lazy import LazyGroup
from limosa.cli.statuses import (
    AUTH,
    BAD_FILE,
    BASE_MISMATCH,
    CONFLICT,
    DONE,
    INTERRUPTED,
    NETWORK,
    NOT_FOUND,
    TERMINATED,
    USAGE,
)
from limosa.errors import (
    AuthError,
    BaseMismatchError,
    ConfigError,
    ConflictError,
    LimosaError,
    MissingExtraError,
    NotFoundError,
    TransportError,
)

#: Each is a module of this package with a ``command``. The summaries are here as well as there so
#: that ``limosa --help`` imports none of them, which would take half its time.
COMMANDS: Final = {
    "compress": "Compress a model, or several jointly.",
    "decompress": "Restore what was compressed.",
    "diff": "Write the update that turns BASE into NEW.",
    "apply": "Apply UPDATE to BASE, which gives the new model byte for byte.",
    "inspect": "Show where the bytes of a file went.",
    "verify": "Check every checksum and digest of a file.",
    "optimize": "Make a model smaller before it is sent, by a recipe.",
    "features": "Send what crosses a cut of a model, and compute what is behind it.",
    "push": "Make a model a version on a hub.",
    "pull": "Get a version by the fewest bytes from what is here.",
    "plan": "Show what a pull would fetch.",
    "ls": "List what a hub has.",
    "info": "Show what a version is.",
    "tag": "Move or remove a tag.",
    "rm": "Forget a version.",
    "login": "Remember a hub and a token.",
    "logout": "Forget a token.",
    "whoami": "Say what the token allows.",
    "cache": "What this machine holds, and what interrupted work left.",
    "device": "The receivers that a hub knows by name.",
    "gc": "Let a hub remove what nobody needs.",
    "fsck": "See whether a hub has all that it should.",
    "hub": "Run a hub, and look after it.",
    "demo": "Send three versions of a small model, and check what arrives.",
}

_STATUS: Final[tuple[tuple[type[LimosaError], int], ...]] = (
    (BaseMismatchError, BASE_MISMATCH),
    (ConfigError, USAGE),
    (MissingExtraError, USAGE),
    (ConflictError, CONFLICT),
    (AuthError, AUTH),
    (NotFoundError, NOT_FOUND),
    (TransportError, NETWORK),
)


@click.group(
    cls=LazyGroup,
    package="limosa.cli",
    summaries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 a bad file, 2 usage, 3 another base is needed, 4 some of "
    "several failed, 5 somebody else was faster, 6 not allowed, 7 not found, 8 the network, "
    "130 interrupted.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def group() -> None:
    """Send models, and differences of models, in as few bytes as can be.

    - as a file is standard input or output, where a command reads or writes a file once.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    # Termination then unwinds the stack like Ctrl-C does, which removes temporary files.
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(run(arguments))


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM."""
    raise SystemExit(TERMINATED)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status and lets no error through but SystemExit."""
    try:
        status = group.main(arguments, prog_name="limosa", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return fail("interrupted", INTERRUPTED)
    except LimosaError as error:
        return fail(str(error), status_of(error))
    except BrokenPipeError:
        # The reader of our output has gone. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_FILE
    except OSError as error:
        return fail(f"{error.filename or 'input or output'}: {error.strerror or error}", BAD_FILE)
    except MemoryError:
        return fail("not enough memory; pass a smaller --limit max_total_bytes=N", BAD_FILE)
    return status if isinstance(status, int) else DONE


def status_of(error: LimosaError) -> int:
    """The exit status for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), BAD_FILE)


def fail(message: str, status: int) -> int:
    """Say what went wrong on standard error; returns `status`."""
    # A hub, or the name of a tensor, may say anything; a terminal would obey it.
    safe = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in message)
    click.echo(f"limosa: {safe}", err=True)
    return status


if __name__ == "__main__":
    main()
