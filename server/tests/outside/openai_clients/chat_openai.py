"""`langchain-openai` (PyPI): `ChatOpenAI` and `OpenAIEmbeddings`."""

import asyncio
import json
import time

from answering import KEY, URL, Plan, answer
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def chat_model(model: str, key: str = KEY, **settings) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=URL, api_key=key, max_retries=0, **settings)


def spoken(text: str) -> list:
    return [HumanMessage(text)] if text else []


def usage(of) -> dict | None:
    return of and {"input": of["input_tokens"], "output": of["output_tokens"]}


def whole(chunks, pieces: list):
    """The chunks added up, as LangChain adds them."""
    total = None
    for chunk in chunks:
        if chunk.content:
            pieces.append(chunk.content)
        total = chunk if total is None else total + chunk
    return total


def chat(pieces, model, text, key=KEY):
    message = chat_model(model, key, temperature=0.5, max_tokens=64).invoke(spoken(text))
    return {"content": message.content, "finish": message.response_metadata.get("finish_reason"),
            "usage": usage(message.usage_metadata)}


def stream(pieces, model, text):
    message = whole(chat_model(model, stream_usage=True).stream(spoken(text)), pieces)
    return {"finish": message.response_metadata.get("finish_reason"),
            "usage": usage(message.usage_metadata)}


def tools(pieces, model, text, tools, results, streamed):
    bound = chat_model(model).bind_tools(tools)
    messages = spoken(text)
    message = whole(bound.stream(messages), pieces) if streamed else bound.invoke(messages)
    messages.append(message)
    for call in message.tool_calls:
        messages.append(ToolMessage(results[call["name"]], tool_call_id=call["id"]))
    return {"calls": [[c["id"], c["name"], json.dumps(c["args"])] for c in message.tool_calls],
            "finish": message.response_metadata.get("finish_reason"),
            "content": bound.invoke(messages).content}


def structured(pieces, model, text):
    bound = chat_model(model).with_structured_output(Plan, method="json_schema")
    return {"parsed": bound.invoke(spoken(text)).model_dump()}


def embeddings(pieces, model, texts):
    # As its documentation says for other servers than OpenAI's: texts, not tokens.
    made = OpenAIEmbeddings(model=model, base_url=URL, api_key=KEY, max_retries=0,
                            check_embedding_ctx_length=False)
    return {"vectors": made.embed_documents(texts)}


def leave_stream(pieces, model, text):
    chunks = chat_model(model).stream(spoken(text))
    for chunk in chunks:
        if chunk.content:
            pieces.append(chunk.content)
        if len(pieces) >= 2:
            break
    chunks.close()
    return {"left": time.time()}


async def leave(pieces, model, text):
    try:
        await asyncio.wait_for(chat_model(model).ainvoke(spoken(text)), 0.5)
    except TimeoutError:
        return {"left": time.time()}


answer({"chat": chat, "stream": stream, "tools": tools, "structured": structured,
        "embeddings": embeddings, "leave_stream": leave_stream, "leave": leave})
