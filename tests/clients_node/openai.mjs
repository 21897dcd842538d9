// Print what OpenAI's Node client gets from a server: node openai.mjs ADDRESS MODEL TEXTS (a JSON list).
import OpenAI from "openai";

const [address, model, texts] = process.argv.slice(2);
const input = JSON.parse(texts);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "ignored", maxRetries: 0 });

async function embed(body) {
  const answer = await client.embeddings.create({ model, input, ...body });
  return answer.data.map((item) => item.embedding);
}

async function refusal(body) {
  try {
    await embed(body);
  } catch (error) {
    if (error instanceof OpenAI.APIError) return { kind: error.constructor.name, status: error.status, message: error.message };
    throw error;
  }
  return null;
}

const models = [];
for await (const one of client.models.list()) models.push(one.id);
console.log(
  JSON.stringify({
    floats: await embed({ encoding_format: "float" }),
    // Without a format, the client asks for base64 and decodes it.
    packed: await embed({}),
    base64: await embed({ encoding_format: "base64" }),
    models,
    unknown: await refusal({ model: "other" }),
    ids: await refusal({ input: [1, 2, 3] }),
  }),
);
