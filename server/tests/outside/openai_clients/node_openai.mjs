// `openai` (npm).

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { KEY, Plan, URL, answer, now, spoken } from "./answering.mjs";

const client = new OpenAI({ baseURL: URL, apiKey: KEY, maxRetries: 0 });

const usage = (of) => of && { input: of.prompt_tokens, output: of.completion_tokens };

await answer({
  async chat({ model, text, key = KEY }) {
    const completion = await client.withOptions({ apiKey: key }).chat.completions.create({
      model, messages: spoken(text), temperature: 0.5, max_tokens: 64,
    });
    const [choice] = completion.choices;
    return {
      content: choice.message.content,
      finish: choice.finish_reason,
      usage: usage(completion.usage),
    };
  },

  async stream({ pieces, model, text }) {
    const seen = {};
    const chunks = await client.chat.completions.create({
      model, messages: spoken(text), stream: true, stream_options: { include_usage: true },
    });
    for await (const chunk of chunks) {
      seen.usage = usage(chunk.usage);
      for (const choice of chunk.choices) {
        if (choice.delta.content) pieces.push(choice.delta.content);
        seen.finish = choice.finish_reason ?? seen.finish;
      }
    }
    return seen;
  },

  async tools({ model, text, tools, results, streamed }) {
    const messages = spoken(text);
    // When it streams, the client itself puts the fragments together.
    const completion = streamed
      ? await client.chat.completions.stream({ model, tools, messages }).finalChatCompletion()
      : await client.chat.completions.create({ model, tools, messages });
    const [{ message, finish_reason: finish }] = completion.choices;
    messages.push(message);
    for (const call of message.tool_calls) {
      const content = results[call.function.name];
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
    const second = await client.chat.completions.create({ model, tools, messages });
    return {
      calls: message.tool_calls.map(({ id, function: f }) => [id, f.name, f.arguments]),
      finish,
      content: second.choices[0].message.content,
    };
  },

  async structured({ model, text }) {
    const completion = await client.chat.completions.parse({
      model, messages: spoken(text), response_format: zodResponseFormat(Plan, "plan"),
    });
    return { parsed: completion.choices[0].message.parsed };
  },

  async embeddings({ model, texts }) {
    const answered = await client.embeddings.create({ model, input: texts });
    return { vectors: answered.data.map((item) => item.embedding) };
  },

  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids };
  },

  async leave_stream({ pieces, model, text }) {
    const chunks = await client.chat.completions.create({
      model, messages: spoken(text), stream: true,
    });
    for await (const chunk of chunks) {
      for (const { delta } of chunk.choices) if (delta.content) pieces.push(delta.content);
      if (pieces.length >= 2) break;
    }
    return { left: now() };
  },

  async leave({ model, text }) {
    const leaving = new AbortController();
    setTimeout(() => leaving.abort(), 500);
    const { signal } = leaving;
    try {
      await client.chat.completions.create({ model, messages: spoken(text) }, { signal });
    } catch (error) {
      if (error instanceof OpenAI.APIUserAbortError) return { left: now() };
      throw error;
    }
  },
});
