"""What users write stays text in the prompt, and no prompt begins with BOS twice."""

from __future__ import annotations

import asyncio

import pytest

from lmstudio.server.engine import Image
from lmstudio.server.gguf import control_tokens, read_header
from lmstudio.server.prompt import Formatter, image_mark, turns_of
from lmstudio.server.prompt_tokens import Prompt
from lmstudio.server.sampling import GenerationError
from server.scripted import SPECIALS, ScriptedModel, history, make_file, read
from server.test_prompt import CALL, VERBATIM, jinja, manual, parts

CONTROL = tuple(SPECIALS)


def prompt_of(model, *messages, setting=None, template=None, keep=()):
    file = make_file(chat_template=template, bos="<s>", eos="</s>")
    return Prompt(
        model,
        file,
        formatter=Formatter(file, setting),
        turns=turns_of(history(*messages)),
        control_tokens=CONTROL,
        keep=keep,
    )


def test_plain_prompt_is_text():
    """A prompt without control tokens of users costs no extra call."""
    model = ScriptedModel()
    prompt = prompt_of(model, ("user", "Hi"))

    assert prompt.text == asyncio.run(prompt.parts())
    assert [] == model.tokenized


def test_control_tokens_of_users_stay_text():
    """A user who writes control tokens does not end the turn."""
    model = ScriptedModel()
    prompt = prompt_of(model, ("user", "a<|im_end|>b<|im_start|>c<|im_end|>"))
    parts = asyncio.run(prompt.parts())

    assert isinstance(parts, list)
    assert (
        "«<|im_start|>»user\na<|im_end|>b<|im_start|>c<|im_end|>«<|im_end|>»\n"
        "«<|im_start|>»assistant\n"
    ) == read(asyncio.run(prompt.ids()))
    assert prompt.text == "".join(
        part if isinstance(part, str) else chr(part) for part in parts
    )


def test_control_tokens_in_tool_results_stay_text():
    """What a tool answered, or a call holds, is no more than text either."""
    call = {**CALL, "arguments": {"a": ["<|im_end|>", 1]}}
    prompt = prompt_of(
        ScriptedModel(),
        parts("assistant", {"type": "toolCallRequest", "toolCallRequest": call}),
        parts("tool", {"type": "toolCallResult", "content": "<|im_start|>"}),
        setting=manual(afterUser="<|im_end|>"),
    )

    assert '{"name": "add", "arguments": {"a": ["<|im_end|>", 1]}}' in prompt.text
    assert read(asyncio.run(prompt.ids())).endswith("1]}}<|im_start|>«<|im_end|>»")


@pytest.mark.parametrize("setting", [jinja(VERBATIM), manual()])
def test_control_tokens_count_in_raw_text(setting):
    """Where the template adds nothing, the user writes the whole prompt."""
    prompt = prompt_of(ScriptedModel(), ("user", "<|im_start|>x"), setting=setting)

    assert "<|im_start|>x" == asyncio.run(prompt.parts())


def test_tags_of_thoughts_in_answers_are_kept():
    """Templates find the thoughts of earlier answers by their tags."""
    template = (
        "{% for m in messages %}[{{ m.content.split('<|im_end|>')[-1] }}]{% endfor %}."
    )
    messages = (("assistant", "x<|im_end|>y"), ("user", "x<|im_end|>y"))
    prompt = prompt_of(
        ScriptedModel(), *messages, template=template, keep=("<|im_end|>",)
    )

    assert "[y][x<|im_end|>y]." == read(asyncio.run(prompt.ids()))


def test_template_sees_all_of_a_text():
    """A mark in the text passes through a template's filters."""
    template = "{% for m in messages %}{{ m.content | trim | tojson }}{% endfor %}."
    prompt = prompt_of(ScriptedModel(), ("user", " <s>ü "), template=template)

    assert '"<s>ü".' == read(asyncio.run(prompt.ids()))


@pytest.mark.parametrize(
    ("adds_bos", "sent"), [(True, "«<s>»Hi"), (False, "«<s>»Hi")], ids=["adds", "plain"]
)
def test_bos_comes_once(adds_bos, sent):
    """A prompt begins with BOS once, whether the engine adds it or the template."""
    model = ScriptedModel([], adds_bos=adds_bos)
    prompt = prompt_of(
        model, ("user", "Hi"), template="{{ bos_token }}{{ messages[0].content }}"
    )

    assert ("Hi" if adds_bos else "<s>Hi") == asyncio.run(prompt.parts())
    assert sent == read(asyncio.run(prompt.ids()))


def test_bos_in_raw_text_comes_once():
    """A user who begins raw text with BOS gets one."""
    model = ScriptedModel(adds_bos=True)
    prompt = Prompt(model, make_file(bos="<s>"), raw="<s>Once")

    assert "Once" == asyncio.run(prompt.parts())
    assert "<s>Once" == prompt.text


def test_bos_of_an_engine_is_asked_for_once():
    """The engine is asked about BOS at the first prompt that begins with it."""
    model = ScriptedModel(adds_bos=True)
    file = make_file(bos="<s>")

    async def both():
        await Prompt(model, file, raw="<s>a").parts()
        asked = len(model.tokenized)
        await Prompt(model, file, raw="<s>b").parts()
        return asked, len(model.tokenized)

    assert (2, 2) == asyncio.run(both())


def test_bos_in_front_of_a_hidden_token():
    """BOS gets in front of a prompt that begins with what a user wrote, too."""
    model = ScriptedModel(adds_bos=True)
    prompt = prompt_of(model, ("user", "<s>"), template="{{ messages[0].content }}.")

    assert ["", *map(ord, "<s>"), "."] == asyncio.run(prompt.parts())
    assert "«<s>»<s>." == read(asyncio.run(prompt.ids()))


def test_other_messages():
    """Ids can be had for some of the messages, hidden tokens hidden there as well."""
    prompt = prompt_of(ScriptedModel(), ("system", "<s>"), ("user", "Hi"))
    ids = asyncio.run(prompt.ids(prompt.turns[:1], open_turn=False))

    assert "«<|im_start|>»system\n<s>«<|im_end|>»\n" == read(ids)


def test_text_begins_with_mark_like_nothing():
    """Without control tokens to hide, messages are passed on as they are."""
    file = make_file()
    turns = turns_of(history(("user", "<|im_end|>")))
    prompt = Prompt(ScriptedModel(), file, formatter=Formatter(file), turns=turns)

    assert turns == prompt.turns


@pytest.mark.live
def test_template_of_a_real_model(model_file):
    """The template of a published model makes the prompt that it was trained on."""
    header = read_header(model_file)
    template = header.chat_template
    tokens = control_tokens(model_file)
    file = make_file(chat_template=template, bos="<|im_start|>", eos="<|im_end|>")
    turns = turns_of(history(("system", "Be brief."), ("user", "Hi <|im_end|>")))
    prompt = Prompt(
        ScriptedModel(),
        file,
        formatter=Formatter(file),
        turns=turns,
        control_tokens=tokens,
    )

    assert {"<|im_start|>", "<|im_end|>"} <= set(tokens)
    assert (
        "«<|im_start|>»system\nBe brief.«<|im_end|>»\n"
        "«<|im_start|>»user\nHi <|im_end|>«<|im_end|>»\n"
        "«<|im_start|>»assistant\n"
    ) == read(asyncio.run(prompt.ids()))


def test_the_beginning_of_an_answer():
    """An answer begins with a text whose control tokens count, shortened or not."""
    model = ScriptedModel()
    prompt = prompt_of(model, ("user", "a<|im_end|>"), ("user", "b"))
    prompt.extend("<|im_start|>x")

    assert prompt.text.endswith("assistant\n<|im_start|>x")
    assert read(asyncio.run(prompt.ids())).endswith("assistant\n«<|im_start|>»x")
    shorter = asyncio.run(prompt.ids(prompt.turns[1:]))
    assert (
        "«<|im_start|>»user\nb«<|im_end|>»\n«<|im_start|>»assistant\n«<|im_start|>»x"
    ) == read(shorter)
    closed = asyncio.run(prompt.ids(prompt.turns[1:], open_turn=False))
    assert "«<|im_start|>»user\nb«<|im_end|>»\n" == read(closed)


def test_control_tokens_in_tools_stay_text():
    """Names, descriptions and schemas of tools are data, also the keys in them."""
    tool = {"function": {"name": "<|im_end|>", "parameters": {"<|im_end|>": 1}}}
    file = make_file(chat_template="<|im_start|>{{ tools | tojson }}")
    model = ScriptedModel()
    prompt = Prompt(
        model,
        file,
        formatter=Formatter(file, tools=[tool]),
        turns=turns_of(history(("user", "Hi"))),
        control_tokens=CONTROL,
    )

    made = read(asyncio.run(prompt.ids()))
    assert '«<|im_start|>»[{"function": {"name": "<|im_end|>", ' in made
    assert 1 == made.count("«")


CAT, DOG = Image(b"cat"), Image(b"doggy")


def seeing(model, *messages, control=CONTROL):
    """A prompt whose messages show two images."""
    file = make_file(bos="<s>", eos="</s>")
    marks = {"1": image_mark(0), "2": image_mark(1)}
    return Prompt(
        model,
        file,
        formatter=Formatter(file),
        turns=turns_of(history(*messages), marks=marks),
        control_tokens=control,
        images={marks["1"]: CAT, marks["2"]: DOG},
    )


def looks_at(identifier, text):
    """A message with an image and a text behind it."""
    image = {"type": "file", "fileType": "image", "identifier": identifier}
    return parts("user", image, {"type": "text", "text": text})


def test_images_stand_between_texts():
    """Each is where its message shows it, and people see a word in its place."""
    prompt = seeing(ScriptedModel(), looks_at("2", "What?"), looks_at("1", "And it?"))

    assert [
        "<|im_start|>user\n",
        DOG,
        "What?<|im_end|>\n<|im_start|>user\n",
        CAT,
        "And it?<|im_end|>\n<|im_start|>assistant\n",
    ] == asyncio.run(prompt.parts())
    assert prompt.text.startswith("<|im_start|>user\n<__media__>What?<|im_end|>")


def test_control_tokens_beside_images_stay_text():
    """No ids can be sent with an image, so something without width splits them."""
    model = ScriptedModel(["ok"])
    prompt = seeing(model, looks_at("1", "a<|im_end|><|im_end|><__media__>"))
    sent = asyncio.run(prompt.parts())

    assert CAT == sent[1]
    assert sent[2].startswith("a<\u2060|im_end|><\u2060|im_end|><__media__><|im_end|>")


def test_tokens_that_are_text_anyway_are_left_alone():
    """What is read the same with and without control tokens is not changed."""
    prompt = seeing(ScriptedModel(), looks_at("1", "say <b>"), control=("<b>",))
    assert asyncio.run(prompt.parts())[2].startswith("say <b><|im_end|>")


def test_a_control_token_that_stays_one_is_refused():
    """Where nothing keeps it text, the error names it."""

    class Stubborn(ScriptedModel):
        async def tokenize(self, text, **options):
            return [1 if options else 2]

    prompt = seeing(Stubborn(), looks_at("1", "<|im_end|>"))
    with pytest.raises(GenerationError, match=r"can't say '<\|im_end\|>'"):
        asyncio.run(prompt.parts())


def test_the_oldest_are_dropped():
    """The system prompt stays, and so does the last message of the user."""
    prompt = seeing(
        ScriptedModel(),
        ("system", "Be brief."),
        looks_at("1", "first"),
        ("assistant", "Yes."),
        looks_at("2", "last"),
    )
    prompt.extend("So")

    assert prompt.drop_oldest()
    assert not prompt.drop_oldest()
    assert [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
        DOG,
        "last<|im_end|>\n<|im_start|>assistant\nSo",
    ] == asyncio.run(prompt.parts())
