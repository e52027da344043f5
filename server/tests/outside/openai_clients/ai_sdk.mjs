// `ai` with `@ai-sdk/openai-compatible` (npm).

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, jsonSchema, streamText, tool } from "ai";
import { KEY, Plan, URL, answer, now, spoken } from "./answering.mjs";

const provider = (apiKey) =>
  createOpenAICompatible({
    name: "exile",
    baseURL: URL,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });

const exile = provider(KEY);

const asked = (model, text) => ({ model: exile(model), messages: spoken(text), maxRetries: 0 });

const usage = (of) => ({ input: of.inputTokens, output: of.outputTokens });

/** Reads a stream to its end and throws what it reports as an error. */
async function read(result, pieces) {
  for await (const part of result.stream) {
    if (part.type === "text-delta") pieces.push(part.text);
    if (part.type === "error") throw part.error;
  }
}

// Errors are what `read` throws; the default prints them as well.
const quiet = { onError() {} };

/** OpenAI's description of tools, without code: whoever asked calls them. */
const described = (tools) =>
  Object.fromEntries(tools.map(({ function: { name, description, parameters } }) =>
    [name, tool({ description, inputSchema: jsonSchema(parameters) })]));

await answer({
  async chat({ model, text, key = KEY }) {
    const result = await generateText({
      ...asked(model, text), model: provider(key)(model), temperature: 0.5, maxOutputTokens: 64,
    });
    return { content: result.text, finish: result.finishReason, usage: usage(result.usage) };
  },

  async stream({ pieces, model, text }) {
    const result = streamText({ ...asked(model, text), ...quiet });
    await read(result, pieces);
    return { finish: await result.finishReason, usage: usage(await result.usage) };
  },

  async tools({ pieces, model, text, tools, results, streamed }) {
    const request = { ...asked(model, text), tools: described(tools) };
    const first = streamed ? streamText({ ...request, ...quiet }) : await generateText(request);
    if (streamed) await read(first, pieces);
    const calls = await first.toolCalls;
    const content = calls.map(({ toolCallId, toolName }) => ({
      type: "tool-result", toolCallId, toolName,
      output: { type: "text", value: results[toolName] },
    }));
    const messages = [
      ...request.messages, ...(await first.responseMessages), { role: "tool", content },
    ];
    const second = await generateText({ ...request, messages });
    return {
      calls: calls.map((call) => [call.toolCallId, call.toolName, JSON.stringify(call.input)]),
      finish: (await first.finishReason).replace("-", "_"),
      content: second.text,
    };
  },

  async structured({ model, text }) {
    const output = Output.object({ schema: Plan });
    const result = await generateText({ ...asked(model, text), output });
    return { parsed: result.output };
  },

  async embeddings({ model, texts }) {
    const request = { model: exile.embeddingModel(model), values: texts, maxRetries: 0 };
    return { vectors: (await embedMany(request)).embeddings };
  },

  async leave_stream({ pieces, model, text }) {
    const leaving = new AbortController();
    let left;
    const result = streamText({
      ...asked(model, text), ...quiet, abortSignal: leaving.signal,
    });
    for await (const part of result.stream) {
      if (part.type === "text-delta") pieces.push(part.text);
      if (part.type === "error") throw part.error;
      if (pieces.length >= 2 && !left) {
        left = now();
        leaving.abort();
      }
    }
    return { left };
  },

  async leave({ model, text }) {
    const leaving = new AbortController();
    setTimeout(() => leaving.abort(), 500);
    try {
      await generateText({ ...asked(model, text), abortSignal: leaving.signal });
    } catch (error) {
      if (leaving.signal.aborted) return { left: now() };
      throw error;
    }
  },
});
