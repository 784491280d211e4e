"""A conversation with a model on the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import lmstudio

from .choices import agrees, can_ask
from .failures import one_line
from .lines import Lines
from .output import note
from .selection import find_model

#: What a terminal would obey. A model's text is shown and not obeyed.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _PLAIN = "\x1b[2m", "\x1b[22m"
_FIELDS = {
    "stop_reason": "Stopped by",
    "prompt_tokens_count": "Prompt tokens",
    "predicted_tokens_count": "Answer tokens",
    "time_to_first_token_sec": "Seconds to the first token",
    "tokens_per_second": "Tokens per second",
    "used_draft_model_key": "Draft model",
    "accepted_draft_tokens_count": "Draft tokens taken",
}


def find_llm(
    client: lmstudio.LMStudioClient, name: str | None, ttl: float, yes: bool
) -> lmstudio.LLM:
    """The model of that name, loaded if it is not; without a name one that is loaded.

    Raises:
        LMStudioModelNotFoundError: There is none, and it can't be had.
        Failure: Nobody can be asked which of several is meant.
    """
    if name is None:
        loaded = client.llm.list_loaded()
        if loaded:
            return loaded[0]
        name, _ = find_model(client, None, kinds=("llm",), yes=yes)
    try:
        return client.llm.model(name, ttl=ttl)
    except lmstudio.LMStudioModelNotFoundError:
        whole, _ = find_model(client, name, kinds=("llm",), yes=yes)
        if whole == name and not _fetched(name, yes):
            raise
    return client.llm.model(whole, ttl=ttl)


def _fetched(name: str, yes: bool) -> bool:
    """Whether a starter model of that name was wanted and is here now."""
    from lmstudio.server.starters import STARTERS

    if name not in STARTERS or os.environ.get("LMSTUDIO_HOST"):
        return False
    if not yes and not (can_ask() and agrees(f"{name} is not here yet. Fetch it?")):
        return False
    from .main import main

    main(["get", name], prog_name="lms", standalone_mode=False)
    return True


class Talk:
    """A conversation, and what is shown of it.

    Attributes:
        chat: What was said until now.
        thinks: Whether the model is to think first; None leaves it to the model.
    """

    def __init__(
        self,
        client: lmstudio.LMStudioClient,
        model: lmstudio.LLM,
        *,
        ttl: float,
        with_stats: bool = False,
        yes: bool = False,
    ) -> None:
        self.chat = lmstudio.Chat()
        self.thinks: bool | None = None
        self._client = client
        self._model = model
        self._ttl = ttl
        self._with_stats = with_stats
        self._yes = yes
        self._stats: lmstudio.PredictionStats | None = None

    def run(self) -> None:
        """Read and answer until Ctrl-D or ``/exit``."""
        with Lines(sorted(f"/{name}" for name in COMMANDS)) as lines:
            note(f"Talking with {self._model.identifier}; /help for help, Ctrl-D ends")
            while True:
                try:
                    text = lines.read()
                    if text.startswith("/"):
                        self._obey(text)
                    elif text.strip():
                        self._answer_until_stopped(text)
                except EOFError:
                    if sys.stdout.isatty():
                        click.echo()  # what comes next begins a line
                    return
                except KeyboardInterrupt:
                    note("\nCtrl-D or /exit ends the chat")
                except (lmstudio.LMStudioError, click.ClickException, OSError) as exc:
                    said = getattr(exc, "message", None) or str(exc)
                    click.echo(f"lms: {one_line(said)}", err=True)

    def answer_once(self, text: str) -> None:
        """Answer, with Ctrl-C as an end of everything."""
        self._answer(text, None)

    def _answer_until_stopped(self, text: str) -> None:
        stop = lmstudio.Signal()
        with _on_interrupt(stop.set):
            self._answer(text, stop)

    def _answer(self, text: str, stop: lmstudio.Signal | None) -> None:
        before = self.chat.copy()
        self.chat.add_user_message(text)
        try:
            prediction = self._model.respond(
                self.chat, signal=stop, enable_thinking=self.thinks
            )
            with prediction:
                _show(prediction)
            result = prediction.result()
        except BaseException:  # the next question must not follow an open one
            self.chat = before
            raise
        self._stats = result.stats
        answer = result.non_reasoning_content
        if answer:
            self.chat.add_assistant_response(answer)
        else:
            self.chat = before
        if self._with_stats:
            self.show_stats()

    def _obey(self, line: str) -> None:
        word, _, rest = line[1:].strip().partition(" ")
        command = COMMANDS.get(ALIASES.get(word, word))
        if command is None:
            raise click.UsageError(f"there is no command /{word}; /help lists them")
        command[0](self, rest.strip())

    def help(self, _: str) -> None:
        """Say what can be typed."""
        for name, (_do, words, what) in COMMANDS.items():
            click.echo(f"  {f'/{name} {words}':24} {what}")
        click.echo('  \\ at a line\'s end, or """   more lines follow')
        click.echo("  Ctrl-C                   stops the answer")
        click.echo("  Ctrl-D                   ends the chat")

    def exit(self, _: str) -> None:
        """End."""
        raise EOFError

    def clear(self, _: str) -> None:
        """Forget all but the system prompt."""
        self.chat = lmstudio.Chat(self.chat.system_prompt)
        self._stats = None
        note("Forgotten")

    def model(self, name: str) -> None:
        """Go on with another model."""
        key = name or find_model(self._client, None, kinds=("llm",), yes=self._yes)[0]
        self._model = find_llm(self._client, key, self._ttl, self._yes)
        note(f"Talking with {self._model.identifier}")

    def system(self, prompt: str) -> None:
        """Show or set the system prompt."""
        if prompt:
            self.chat.system_prompt = prompt
        note(f"System prompt: {self.chat.system_prompt or '(none)'}")

    def reasoning(self, word: str) -> None:
        """Show or set whether the model thinks first."""
        words = {True: "on", False: "off", None: "as the model likes"}
        if word:
            if word not in ("on", "off"):
                raise click.UsageError(f"/reasoning takes on or off, not {word!r}")
            self.thinks = word == "on"
        note(f"Reasoning: {words[self.thinks]}")

    def download(self, name: str) -> None:
        """Download a model, as `lms get` does."""
        from .get import fetch

        if not name:
            raise click.UsageError("say which model, as in `lms get`")
        fetch(name, self._client, yes=self._yes)

    def show_stats(self, _: str = "") -> None:
        """Show what was measured of the last answer."""
        if self._stats is None:
            note("Nothing was answered yet")
            return
        for name, title in _FIELDS.items():
            value = getattr(self._stats, name)
            if value is not None:
                text = f"{value:.2f}" if isinstance(value, float) else value
                note(f"{title}: {text}")

    def save(self, path: str) -> None:
        """Write the conversation to a file."""
        self.chat.save(_file(path))
        note(f"Saved {len(self.chat)} messages")

    def load(self, path: str) -> None:
        """Go on with the conversation in a file."""
        self.chat = lmstudio.Chat.load(_file(path))
        note(f"Loaded {len(self.chat)} messages")


_Obeys = Callable[[Talk, str], None]
#: Commands of a conversation: what is done, what follows the name, and what it does.
COMMANDS: dict[str, tuple[_Obeys, str, str]] = {
    "help": (Talk.help, "", "this list"),
    "exit": (Talk.exit, "", "ends the chat"),
    "clear": (Talk.clear, "", "forgets what was said, but not the system prompt"),
    "model": (Talk.model, "[KEY]", "goes on with another model"),
    "system-prompt": (Talk.system, "[TEXT]", "shows or sets the system prompt"),
    "stats": (Talk.show_stats, "", "what was measured of the last answer"),
    "reasoning": (Talk.reasoning, "[on|off]", "whether the model thinks first"),
    "download": (Talk.download, "NAME", "fetches a model, as `lms get` does"),
    "save": (Talk.save, "FILE", "writes the conversation to a file"),
    "load": (Talk.load, "FILE", "goes on with the conversation in a file"),
}
ALIASES = {"system": "system-prompt", "quit": "exit", "bye": "exit", "?": "help"}


def _file(path: str) -> Path:
    if not path:
        raise click.UsageError("say which file")
    return Path(path).expanduser()


def _show(prediction: lmstudio.Prediction[str]) -> None:
    """Print an answer as it comes; on a terminal the reasoning too, but dim."""
    out = sys.stdout
    is_terminal = out.isatty()
    is_dim, last = False, "\n"
    try:
        for fragment in prediction:
            is_reasoning = fragment.reasoning_type != "none"
            text = str(fragment)
            if is_terminal:
                text = _CONTROLS.sub("", text)
                if is_reasoning != is_dim:
                    text = (_DIM if is_reasoning else _PLAIN) + text
                    is_dim = is_reasoning
            elif is_reasoning:
                continue
            last = text or last  # first: Ctrl-C may come while it is written
            out.write(text)
            out.flush()
    finally:
        end = (_PLAIN if is_dim else "") + ("" if last.endswith("\n") else "\n")
        out.write(end)
        out.flush()


@contextlib.contextmanager
def _on_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Have the first Ctrl-C call a function, and the second one interrupt."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
