"""A cell of a notebook that is a prompt: ``%load_ext lmstudio``, then ``%%lms``."""

from __future__ import annotations

import ast
import shlex
from typing import Any

from .chat import Chat
from .default import llm
from .errors import LMStudioValueError, shown
from .prediction import Prediction

#: What is always text, also when it looks like a number.
_TEXTS = ("model", "system", "out")


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext lmstudio``; makes ``%%lms`` known.

    Args:
        shell: The shell of IPython.
    """

    def lms(line: str, cell: str) -> Prediction[Any]:
        """Answer the text of a cell: %%lms model=KEY system="..." out=NAME ..."""
        options = read_options(line)
        name = options.pop("out", None)
        prediction = answer(cell, options)
        if name is not None:
            shell.user_ns[name] = prediction
        return prediction  # IPython shows it, as it shows every last value

    shell.register_magic_function(lms, "cell", "lms")


def read_options(line: str) -> dict[str, Any]:
    """The options behind ``%%lms``: ``name=value``, separated by blanks.

    Values are written as in Python; what is not Python is text.

    Raises:
        LMStudioValueError: One is not written so, or stands there twice.
    """
    options: dict[str, Any] = {}
    try:
        words = shlex.split(line)
    except ValueError as exc:  # a quotation mark is missing
        raise LMStudioValueError(f"%%lms {line}: {exc}") from exc
    for word in words:
        name, sign, value = word.partition("=")
        if not (sign and name.isidentifier()):
            raise LMStudioValueError(
                f"%%lms takes options such as model=KEY or temperature=0.2, not"
                f" {shown(word)}; values with blanks need quotation marks"
            )
        if name in options:
            raise LMStudioValueError(f"%%lms: {name} is given twice")
        options[name] = value if name in _TEXTS else _value(value)
    if not options.get("out", "x").isidentifier():
        raise LMStudioValueError(
            f"%%lms: out={options['out']} is no name of a variable"
        )
    return options


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def answer(text: str, options: dict[str, Any]) -> Prediction[Any]:
    """Have a model of the default client answer a text.

    Args:
        text: What the user says.
        options: ``model`` is a key, by default any loaded model; ``system`` says how to
            answer; all others are those of `lmstudio.LLM.respond`.

    Raises:
        LMStudioValueError: There is no text, or an option can't be used.
        LMStudioModelNotFoundError: There is no such model, or none is loaded.
    """
    given = dict(options)
    key, system = given.pop("model", None), given.pop("system", None)
    if not text.strip():
        raise LMStudioValueError("%%lms: the cell has no text below its first line")
    chat = Chat(system)
    chat.add_user_message(text.rstrip("\n"))
    return llm(key).respond(chat, **given)
