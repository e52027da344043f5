// The other end of `client.py`, for clients in JavaScript.

import readline from "node:readline";
import { z } from "zod";

export const URL = process.env.CLIENT_URL;
export const KEY = process.env.CLIENT_KEY;

/** What the model is to answer. */
export const Plan = z.object({ city: z.string(), days: z.number().int() });

/** Answers every line of the input with what its case returns or throws. */
export async function answer(cases) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { case: name, ...rest } = JSON.parse(line);
    // What arrived before a failure counts as well.
    const pieces = [];
    let seen;
    try {
      seen = await cases[name]({ pieces, ...rest });
    } catch (error) {
      seen = { error: described(error) };
    }
    process.stdout.write(JSON.stringify({ pieces, ...seen }) + "\n");
  }
}

/** What somebody could act upon. */
function described(error) {
  const kinds = [error.name];
  for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) {
    kinds.push(kind.name);
  }
  return {
    kinds,
    status: error.status ?? error.statusCode ?? null,
    code: error.code ?? error.data?.error?.code ?? null,
    message: String(error),
  };
}

/** One message of the user; none for an empty text. */
export const spoken = (text) => (text ? [{ role: "user", content: text }] : []);

/** Now, in the seconds of the judge's clock. */
export const now = () => Date.now() / 1000;
