// Print what Ollama's Node client gets from a server: node ollama.mjs ADDRESS MODEL TEXTS (a JSON list).
import { Ollama } from "ollama";

const [host, model, texts] = process.argv.slice(2);
const input = JSON.parse(texts);
const client = new Ollama({ host });

async function refusal(body) {
  try {
    await client.embed({ model, input, ...body });
  } catch (error) {
    return { kind: error.name, status: error.status_code, message: error.message };
  }
  return null;
}

const { embeddings } = await client.embed({ model, input, truncate: true, keep_alive: "5m", options: { temperature: 0 } });
console.log(
  JSON.stringify({
    floats: embeddings,
    single: (await client.embeddings({ model, prompt: input[0] })).embedding,
    models: (await client.list()).models.map((one) => one.model),
    loaded: (await client.ps()).models.map((one) => one.model),
    shown: (await client.show({ model })).model_info,
    unknown: await refusal({ model: "other" }),
  }),
);
