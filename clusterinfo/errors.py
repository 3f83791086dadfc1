"""The errors of clusterinfo: one root, and the class is what the caller does next.

Lives here: the classes, and what all their messages have in common. Foreign exceptions are translated into them at the
edges (`kubernetes/`, `kafka/`, `postgres/`), keeping the cause. A message names the thing, what was found, what was
expected and what to do, and never quotes a secret.
"""

from collections.abc import Iterator

from clusterinfo.exit_codes import EXIT_STOPPED, EXIT_USAGE
from clusterinfo.userinfo import TEXT, replace_userinfo

MAX_LINE_CHARS = 300
"""Of somebody else's error in a message of ours."""


class ClusterinfoError(Exception):
    """Root of every error clusterinfo raises on purpose."""

    exit_code = EXIT_STOPPED


class TransientError(ClusterinfoError):
    """The same step may succeed later: do it again, after a pause that grows.

    `retry_after_s`: the pause the other side asked for, in seconds; None leaves it to the caller's backoff.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RestartError(ClusterinfoError):
    """The lane cannot go on from here: start it again, from its beginning or from its stored position."""


class LostError(ClusterinfoError):
    """The lane belongs to somebody else now: release it, and leave the stored state alone."""


class RecordError(ClusterinfoError):
    """One record cannot be read or stored: dead-letter it and go on with the rest."""


class ConfigError(ClusterinfoError):
    """A setting or argument is wrong: tell the user which, what was given and what is allowed; exit 2."""

    exit_code = EXIT_USAGE


class FatalError(ClusterinfoError):
    """Nothing the program can do will help: stop with one line; exit 1."""


def without_userinfo(text: str, mark: str = "") -> str:
    """`text` with `mark` in place of the user and password of every URL in it; `userinfo.py` has the rule."""
    return replace_userinfo(text, TEXT, lambda user, secret: mark)


def one_line(error: BaseException | str) -> str:
    """An error, or a text of somebody else's, for a message: one line of at most 300 characters without userinfo.

    The class's name stands for an error without a text.
    """
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"  # asyncio's text repeats the address instead
    # Userinfo is removed before the text is cut: half of one would be taken for none.
    text = without_userinfo(" ".join(str(error).split()))
    if not text and isinstance(error, BaseException):
        return type(error).__name__
    return text if len(text) <= MAX_LINE_CHARS else f"{text[: MAX_LINE_CHARS - 3]}..."


def quoted_path(path: object) -> str:
    """What a variable has where a PEM file is to be named, unless it looks like what belongs into that file."""
    text = str(path)
    is_content = "BEGIN" in text or any(char.isspace() for char in text) or len(text) > MAX_LINE_CHARS
    return "something that is no path and is not shown" if is_content else repr(text)


def first_of(group: BaseExceptionGroup[BaseException], passed_over: type[BaseException] | None = None) -> BaseException:
    """What to raise for all that went wrong at once: an error of ours before a bug, and either before `passed_over`."""
    leaves = list(_leaves(group))
    for kind in (ClusterinfoError, Exception):
        for error in leaves:
            if isinstance(error, kind) and not (passed_over and isinstance(error, passed_over)):
                return error
    return leaves[0]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
