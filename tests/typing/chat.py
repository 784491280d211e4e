"""Conversations, as users write them."""

from pathlib import Path
from typing import Any

import lmstudio as lms
from lmstudio.wire.llm import Message, Part

client = lms.LMStudioClient("localhost:1234")
model = client.llm.model("key")

chat = lms.Chat("Be brief.")
chat.add_system_prompt("Be kind.")
said: Message = chat.add_user_message("Hi")
chat.add_user_message(["Look", "here"], images=[Path("cat.png"), b"...", "dog.png"])
handle: lms.FileHandle = client.files.prepare_image("cat.png")
chat.add_user_message("Look", images=[handle], files=[handle])

prediction = model.respond(chat)
chat.append(prediction)
chat.append(prediction.result())
chat.append(("user", "Hi"))
chat.append({"role": "user", "content": "Hi"})
chat.extend([said, ("user", "Hi")])
chat.add_assistant_response("Hello.")
chat.add_assistant_response(prediction)
result = prediction.result()
chat.add_assistant_response(result, result.tool_calls)
chat.add_tool_result("2", "7")
chat.add_tool_result({"sum": 2}, call_id="7")
chat.add_tool_results([{"content": "2", "toolCallId": "7"}])
chat.add_entry("user", "Hi")

model.respond(chat[-3:])
model.respond(chat.with_appended(("user", "Hi")))
tokens: str = model.apply_prompt_template(chat, omit_bos_token=True)
length: int = model.count_tokens(chat, tools=[print])

message: Message = chat[0]
part: lms.Chat = chat[1:]
texts: list[str] = [one.text for one in chat if one.role == "user"]
parts: tuple[Part, ...] = message.content
calls: list[lms.ToolCallRequest] = message.tool_calls
results: list[str | None] = [one.content for one in message.tool_results]
names: list[str | None] = [one.name for one in message.files]
count: int = len(chat)
chat[0] = ("system", "Be long.")
chat[1:2] = [said]
last: Message = chat.pop()
chat.insert(0, last)
chat += [said]
del chat[0]

prompt: str | None = chat.system_prompt
chat.system_prompt = "Be brief."
chat.system_prompt = None

again: lms.Chat = lms.Chat.from_history([("user", "Hi")])
lms.Chat.from_history("Hi")
lms.Chat.from_history(chat)
openai: list[dict[str, Any]] = chat.to_openai()
lms.Chat.from_openai(openai)
fields: dict[str, Any] = chat.to_dict()
text: str = chat.to_json(indent=2)
chat.save("chat.json")
lms.Chat.load(Path("chat.json")).copy().clear()


def add(a: int, b: int) -> int:
    return a + b


model.act(chat, [add], on_message=chat.append)
