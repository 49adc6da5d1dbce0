"""The entry point: runs a command and turns its errors into messages and exit codes.

0 done; 1 failed (full disk, training that diverged, a network that does not fit); 2 bad use or bad
input; 130 interrupted. Set NASAUG_DEBUG=1 for the traceback behind a message.
"""

from __future__ import annotations

import errno
import os
import sys

import click

from nasaug.cli import cli

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
# What the machine lacks, as opposed to what the user got wrong.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE)

# What torch says when memory runs out, on a CPU and on a GPU.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        # Where a command ends by context.exit(code), click hands that code back.
        code = cli.main(arguments, prog_name="nasaug", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _failure("interrupted; the same command with --resume goes on", INTERRUPTED)
    except OSError as error:
        return _failure(_spoken(error), FAILED if error.errno in NO_ROOM else BAD_INPUT)
    except ValueError as error:
        return _failure(str(error), BAD_INPUT)
    except RuntimeError as error:
        from nasaug.training import TrainingFailed

        if any(words in str(error) for words in NO_MEMORY):
            return _failure(
                f"not enough memory ({str(error).partition(chr(10))[0]}); try a smaller "
                "train.batch_size (with train.accumulate) or train.resolution",
                FAILED,
            )
        if not isinstance(error, TrainingFailed):
            raise
        return _failure(str(error), FAILED)
    return code if isinstance(code, int) else 0


def _failure(message: str, code: int) -> int:
    if os.environ.get("NASAUG_DEBUG"):
        import traceback

        traceback.print_exc()
    click.echo(f"nasaug: {message}", err=True)
    return code


def _spoken(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


if __name__ == "__main__":
    main()
