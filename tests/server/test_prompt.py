"""Histories become the text that each template makes of them, and nothing else."""

from __future__ import annotations

from datetime import datetime

import pytest

from lmstudio.server.prompt import CHATML, Formatter, image_mark, turns_of
from lmstudio.server.sampling import GenerationError
from server.scripted import history, make_file

#: The form in which clients of today write "the text as it is".
VERBATIM = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
CALL = {"type": "function", "id": "7", "name": "add", "arguments": {"a": 1, "b": "ü"}}


def jinja(template, stops=()):
    return {
        "type": "jinja",
        "jinjaPromptTemplate": {"template": template},
        "stopStrings": list(stops),
    }


def manual(**texts):
    names = (
        "beforeSystem afterSystem beforeUser afterUser beforeAssistant afterAssistant"
    )
    return {
        "type": "manual",
        "manualPromptTemplate": {**dict.fromkeys(names.split(), ""), **texts},
        "stopStrings": [],
    }


def formatted(template, *messages, setting=None, open_turn=True, **options):
    file = make_file(chat_template=template, bos="<s>", eos="</s>")
    formatter = Formatter(file, setting, **options)
    return formatter.format(turns_of(history(*messages)), open_turn=open_turn)


def parts(role, *content):
    return {"role": role, "content": list(content)}


def test_chatml_without_a_template():
    """A file without a template is spoken to in ChatML."""
    formatter = Formatter(make_file())
    turns = turns_of(history(("system", "Be brief."), ("user", "Hi")))

    assert (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    ) == formatter.format(turns)
    assert (True, ("<|im_end|>",)) == (formatter.is_fallback, formatter.stop_strings)


def test_template_of_the_file():
    """The file's own template gets what templates expect."""
    template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}={{ m.content }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )

    assert "<s>user=Hi</s>A:" == formatted(template, ("user", "Hi"))
    assert "<s>user=Hi</s>" == formatted(template, ("user", "Hi"), open_turn=False)
    assert "user=HiA:" == formatted(
        template, ("user", "Hi"), omit_bos=True, omit_eos=True
    )


def test_template_of_the_setting():
    """A template in the settings stands in for that of the file."""
    file = make_file(chat_template="wrong")
    formatter = Formatter(file, jinja("[{{ messages[0].content }}]", ["END", ""]))

    assert "[Hi]" == formatter.format(turns_of(history(("user", "Hi"))))
    assert (False, ("END",)) == (formatter.is_fallback, formatter.stop_strings)


@pytest.mark.parametrize("text", ["Once", " \n a\r\n\n", "<|im_end|>{{ x }}", ""])
def test_verbatim(text):
    """A template that prints the contents gives exactly these."""
    assert text == formatted("wrong", ("user", text), setting=jinja(VERBATIM))
    assert text == formatted("wrong", ("user", text), setting=manual())
    assert "pre" + text == formatted(
        "wrong", ("system", "pre"), ("user", text), setting=jinja(VERBATIM)
    )


def test_blocks_are_trimmed():
    """Lines that hold only a block leave no trace, as templates rely on."""
    template = (
        "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n"
        "{% endfor %}"
    )

    assert "Hi\n" == formatted(template, ("user", "Hi"))


def test_what_templates_may_use():
    """Filters and functions that templates of published models use are there."""
    template = (
        "{{ {'b': 'ü<', 'a': 1} | tojson }}|{{ [1] | tojson(indent=1) }}|"
        "{{ strftime_now('%Y') }}|"
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}"
        "{% endfor %}|{% generation %}g{% endgeneration %}|"
        "{{ tools is none }}|{{ enable_thinking }}"
    )
    year = datetime.now().year

    assert f'{{"b": "ü<", "a": 1}}|[\n 1\n]|{year}|01|g|True|False' == formatted(
        template, enable_thinking=False
    )


def test_tools():
    """Tools reach the template, calls and results in the form that it expects."""
    tool = {"type": "function", "function": {"name": "add"}}
    template = (
        "{{ tools | tojson }}{% for m in messages %}{{ '\n' + m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %} {{ c.id }} {{ c.function.name }}"
        "{{ c.function.arguments | tojson }}{% endfor %}"
        "{% if m.role == 'tool' %} {{ m.tool_call_id }} {{ m.name }}{% endif %}"
        "{% endfor %}"
    )
    messages = (
        parts(
            "assistant",
            {"type": "text", "text": ""},
            {"type": "toolCallRequest", "toolCallRequest": CALL},
        ),
        parts(
            "tool",
            {"type": "toolCallResult", "content": "3", "toolCallId": "7"},
            {
                "type": "toolCallResult",
                "content": "4",
                "toolCallId": "8",
                "name": "sub",
            },
        ),
    )

    assert (
        '[{"type": "function", "function": {"name": "add"}}]\n'
        'assistant: 7 add{"a": 1, "b": "ü"}\n'
        "tool:3 7 add\n"
        "tool:4 8 sub"
    ) == formatted(template, *messages, tools=[tool])


def test_manual_template():
    """A manual template puts its texts around each message and opens the answer."""
    setting = manual(
        beforeSystem="[S]",
        afterSystem="[/S]",
        beforeUser="[U]",
        afterUser="[/U]",
        beforeAssistant="[A]",
        afterAssistant="[/A]",
    )
    messages = (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"))

    assert "[S]s[/S][U]u[/U][A]a[/A][U]v[/U][A]" == formatted(
        None, *messages, setting=setting
    )


def test_manual_template_and_tools():
    """In a manual template a call is JSON, and its result what a user says."""
    call = {"type": "toolCallRequest", "toolCallRequest": CALL}
    result = {"type": "toolCallResult", "content": "3"}

    assert '{"name": "add", "arguments": {"a": 1, "b": "ü"}}U:3 A:' == formatted(
        None,
        parts("assistant", call),
        parts("tool", result),
        setting=manual(beforeUser="U:", afterUser=" A:"),
    )


@pytest.mark.parametrize(
    "template",
    [
        None,
        CHATML,
        "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}",
    ],
)
def test_an_answer_is_continued(template):
    """A history that ends with an answer ends inside it, for the model to go on."""
    text = formatted(template, ("user", "Count"), ("assistant", "1, 2,"))

    assert text.endswith("1, 2,")
    assert "Count" in text


def test_an_answer_that_the_template_hides_is_not_continued():
    """Where the template does not print the last answer, a new one begins."""
    template = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )

    assert "HiA:" == formatted(template, ("user", "Hi"), ("assistant", "Ho"))


def test_system_prompt():
    """The system prompt of the settings stands in for a message that is not there."""
    with_own = history(("user", "Hi"), ("system", "mine"))

    assert ["system", "user"] == [
        turn["role"] for turn in turns_of(history(("user", "Hi")), "preset")
    ]
    assert ["Hi", "mine"] == [turn["content"] for turn in turns_of(with_own, "preset")]


def test_parts_are_joined():
    """The texts of one message are one text."""
    message = parts(
        "user", {"type": "text", "text": "a"}, {"type": "text", "text": "b"}
    )

    assert [{"role": "user", "content": "ab"}] == turns_of(history(message))


FILE = {
    "type": "file",
    "name": "cat.png",
    "identifier": "1",
    "sizeBytes": 8,
    "fileType": "image",
}


@pytest.mark.parametrize(
    ("message", "said", "code"),
    [
        (parts("user", FILE), "takes no images, and the message holds 'cat.png'", 1),
        (parts("user", {**FILE, "fileType": "text/plain"}), "takes no files", 1),
        (parts("tool", FILE), "takes no images", 1),
        (
            parts("robot"),
            "role must be one of 'system', 'user', 'assistant', 'tool'",
            0,
        ),
        (
            parts("user", {"type": "toolCallResult", "content": ""}),
            "'toolCallResult'",
            0,
        ),
        (parts("user", {"type": "toolCallRequest"}), "'toolCallRequest' does not", 0),
        (parts("tool", {"type": "text", "text": ""}), "the type 'text' does not", 0),
    ],
)
def test_messages_that_are_not_taken(message, said, code):
    """What does not belong into a message is refused, with the message's number."""
    with pytest.raises(GenerationError) as caught:
        turns_of(history(("user", "Hi"), message))

    assert caught.value.title.startswith("history.messages[1]: ")
    assert said in caught.value.title
    assert ("invalidHistory", "unsupportedContent")[code] == caught.value.code


def test_a_template_that_refuses():
    """What a template has against the messages is what the error says."""
    template = "{{ raise_exception('System role not supported') }}"

    with pytest.raises(GenerationError) as caught:
        formatted(template, ("system", "Be brief."))

    assert "The prompt template refuses these messages" == caught.value.title
    assert "System role not supported" == caught.value.cause
    assert "promptTemplate" == caught.value.code


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[5].content }}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_fails(template):
    """Whatever goes wrong in a template is a typed error; it gets at nothing else."""
    with pytest.raises(GenerationError) as caught:
        formatted(template, ("user", "Hi"))

    assert "The prompt template failed" == caught.value.title
    assert caught.value.cause


def test_a_template_without_end():
    """A template that goes over a bound is stopped, and the error names the bound."""
    with pytest.raises(GenerationError) as caught:
        formatted("{{ 'a' * 10 ** 10 }}", ("user", "Hi"))

    assert "The prompt template asks for too much" == caught.value.title
    assert "It builds more than 128000000 characters" == caught.value.cause
    assert "promptTemplate" == caught.value.code


def test_a_template_that_is_not_jinja():
    """A template with a mistake is found when it is chosen."""
    with pytest.raises(GenerationError) as caught:
        Formatter(make_file(), jinja("{% for %}"))

    assert "The prompt template is not valid jinja" == caught.value.title


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"type": "jinja"},
        {"type": "jinja", "jinjaPromptTemplate": {"template": 1}},
        {"type": "magic", "jinjaPromptTemplate": {"template": ""}},
        {"type": "manual"},
        {"type": "manual", "manualPromptTemplate": {"beforeUser": ""}},
        {**jinja(""), "stopStrings": "END"},
        {**jinja(""), "stopStrings": [1]},
        {**jinja(""), "stopStrings": 1},
    ],
)
def test_wrong_setting(setting):
    """A setting that makes no template is refused, with its key."""
    with pytest.raises(GenerationError) as caught:
        Formatter(make_file(), setting)

    assert caught.value.title.startswith("llm.prediction.promptTemplate")
    assert "invalidSetting" == caught.value.code


IN_PARTS = (
    "{% for message in messages %}{{ message.role }}:"
    "{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}"
)


def test_templates_that_take_parts_only():
    """A template that makes nothing of texts gets parts, if there are images."""
    mark = image_mark(7)
    turns = [{"role": "user", "content": f"{mark}Hi"}]
    formatter = Formatter(make_file(chat_template=IN_PARTS))
    assert f"user:{mark}Hi;" == formatter.format(turns)


def test_templates_that_leave_out_images():
    """What never comes out is an error, and no answer about nothing."""
    formatter = Formatter(make_file(chat_template="{{ messages | length }}"))
    with pytest.raises(GenerationError, match="leaves out the images"):
        formatter.format([{"role": "user", "content": image_mark(0)}])
    assert "1" == formatter.format([{"role": "user", "content": "Hi"}])
