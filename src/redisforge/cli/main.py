"""The `redisforge` command: its doors, and the one place where an error becomes an exit status."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from redisforge import __version__
from redisforge.cli.doors import modules_for
from redisforge.cli.narrow import narrowed
from redisforge.cli.numbers import number_error
from redisforge.cli.output import outlive_reader_of_stderr
from redisforge.errors import INTERRUPTED_EXIT_STATUS, RedisForgeError


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"redisforge {__version__}")
        raise typer.Exit


def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Production Redis Cluster behind Envoy as one TLS endpoint."""
    del version
    if debug:
        os.environ["REDISFORGE_DEBUG"] = "1"


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """The whole command line; or as much of it as `words` need, which starts sooner."""
    app = typer.Typer(
        name="redisforge",
        help="Production Redis Cluster behind Envoy as one TLS endpoint.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for module in modules_for(words):
        module.register(app)
    return narrowed(app, words)


_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Of Python's garbage collector; its own 700 is a tenth of the time in which a command starts."""
_INTERRUPTED = "interrupted; what runs goes on running, and the same command goes on from here"


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A background job of a script: Ctrl-C stays away from it, but asyncio, and so SIGTERM, needs this handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    outlive_reader_of_stderr()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    status = run()
    gc.freeze()  # what is there now ends with the process: looking through all of it again takes a tenth of a second
    sys.exit(status)


def _stop(_number: int, frame: FrameType | None) -> None:
    """SIGTERM is as Ctrl-C, which not everybody hears: `lock release` asks with it. Within an event loop the handler is
    asyncio's own, which lets the tasks clean up."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if callable(on_interrupt):
        on_interrupt(signal.SIGINT, frame)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Nothing but SystemExit-free returns leaves here."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        result: object = command_line(words)(args=words, standalone_mode=False)
    except RedisForgeError as error:
        _traceback()
        typer.echo(f"error: {error}", err=True)
        return error.exit_status
    except KeyboardInterrupt:
        typer.echo(_INTERRUPTED, err=True)
        return INTERRUPTED_EXIT_STATUS
    except BrokenPipeError as error:
        return _broken_pipe(error)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # of which click makes an exit with status 1
            raise
        return _broken_pipe(end.__context__)
    except Exception as error:
        return _other(error)
    if result == INTERRUPTED_EXIT_STATUS:
        typer.echo(_INTERRUPTED, err=True)
    return result if isinstance(result, int) else 0


def _broken_pipe(error: BrokenPipeError) -> int:
    """Nobody reads the result of a command any more: that is a quiet end. Another pipe than this is a defect."""
    if not _is_unread(sys.stdout.fileno()):
        return _other(error)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _is_unread(descriptor: int) -> bool:
    """Whether nobody can read any more what is written there."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _other(error: Exception) -> int:
    """Typer's own exceptions carry their exit status; anything else is a defect of ours."""
    if wrong := number_error(error):
        _traceback()
        typer.echo(f"error: {wrong}", err=True)
        return wrong.exit_status
    show = getattr(error, "show", None)
    if callable(show):
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        # Who cannot be asked, as in a script, is told how to go on without the question.
        hint = "" if sys.stdin and sys.stdin.isatty() else ": the question got no yes; --yes goes on without asking"
        typer.echo(f"nothing was done{hint}", err=True)
        return INTERRUPTED_EXIT_STATUS
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    _traceback()
    typer.echo(
        f"error: {type(error).__name__}: {error}\n"
        "  why:   this is a defect of redisforge\n"
        "  next:  run the command again with `redisforge --debug …` and report what it prints",
        err=True,
    )
    return 1


def _traceback() -> None:
    if os.environ.get("REDISFORGE_DEBUG"):
        traceback.print_exc()
