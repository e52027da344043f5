"""`openai` (PyPI), the client that does not block."""

import asyncio
import time

import openai
from answering import KEY, URL, Plan, answer, called, spoken, usage

client = openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)


async def chat(pieces, model, text, key=KEY):
    completion = await client.with_options(api_key=key).chat.completions.create(
        model=model, messages=spoken(text), temperature=0.5, max_tokens=64)
    (choice,) = completion.choices
    return {"content": choice.message.content, "finish": choice.finish_reason,
            "usage": usage(completion.usage)}


async def stream(pieces, model, text):
    seen = {}
    chunks = await client.chat.completions.create(
        model=model, messages=spoken(text), stream=True, stream_options={"include_usage": True})
    async for chunk in chunks:
        seen["usage"] = usage(chunk.usage)
        for choice in chunk.choices:
            if choice.delta.content:
                pieces.append(choice.delta.content)
            seen["finish"] = choice.finish_reason or seen.get("finish")
    return seen


async def tools(pieces, model, text, tools, results, streamed):
    messages = spoken(text)
    request = {"model": model, "tools": tools}
    if streamed:
        # The client itself puts the fragments together.
        async with client.chat.completions.stream(messages=messages, **request) as events:
            async for _ in events:
                pass
            completion = await events.get_final_completion()
    else:
        completion = await client.chat.completions.create(messages=messages, **request)
    (choice,) = completion.choices
    calls = choice.message.tool_calls
    messages.append(choice.message)
    for call in calls:
        content = results[call.function.name]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    second = await client.chat.completions.create(messages=messages, **request)
    return {"calls": [called(call) for call in calls], "finish": choice.finish_reason,
            "content": second.choices[0].message.content}


async def structured(pieces, model, text):
    completion = await client.beta.chat.completions.parse(
        model=model, messages=spoken(text), response_format=Plan)
    return {"parsed": completion.choices[0].message.parsed.model_dump()}


async def embeddings(pieces, model, texts):
    answered = await client.embeddings.create(model=model, input=texts)
    return {"vectors": [item.embedding for item in answered.data]}


async def models(pieces):
    return {"ids": [model.id async for model in client.models.list()]}


async def leave_stream(pieces, model, text):
    chunks = await client.chat.completions.create(
        model=model, messages=spoken(text), stream=True)
    async for chunk in chunks:
        pieces += [c.delta.content for c in chunk.choices if c.delta.content]
        if len(pieces) >= 2:
            break
    await chunks.close()
    return {"left": time.time()}


async def leave(pieces, model, text):
    request = client.chat.completions.create(model=model, messages=spoken(text))
    try:
        await asyncio.wait_for(request, 0.5)
    except TimeoutError:
        return {"left": time.time()}


answer({"chat": chat, "stream": stream, "tools": tools, "structured": structured,
        "embeddings": embeddings, "models": models, "leave_stream": leave_stream, "leave": leave})
