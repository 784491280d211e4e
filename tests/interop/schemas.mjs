// Checks messages of a client with the schemas in a bundle of the official SDK.
//
// Argument: the folder of the package. Reads a JSON list of messages from stdin, and
// prints a JSON object: what is wrong with any, and the config fields that are unknown.
//
// The schemas are not exported, so the bundle is run with a line that does. Its objects
// drop what they don't know; here that is an error.

import { readFileSync } from "node:fs";
import { Module } from "node:module";
import { dirname, join } from "node:path";

const INTERFACES = {
  llm: "createLlmBackendInterface",
  embedding: "createEmbeddingBackendInterface",
  system: "createSystemBackendInterface",
  files: "createFilesBackendInterface",
  repository: "createRepositoryBackendInterface",
  diagnostics: "createDiagnosticsBackendInterface",
};

function load(folder) {
  const path = join(folder, "dist", "index.cjs");
  const bundle = new Module(path);
  bundle.filename = path;
  bundle.paths = Module._nodeModulePaths(dirname(path));
  const makers = Object.entries(INTERFACES).map(([key, name]) => `${key}: ${name}()`);
  const wanted = `interfaces: { ${makers.join(", ")} },
    message: clientToServerMessageSchema, config: globalConfigSchematics`;
  bundle._compile(`${readFileSync(path, "utf8")}\nexports.inside = { ${wanted} };`, path);
  return bundle.exports.inside;
}

// The same schema, in which no object has fields that it does not name.
const done = new Map();
function strict(schema) {
  if (!done.has(schema)) done.set(schema, makeStrict(schema));
  return done.get(schema);
}

function makeStrict(schema) {
  const def = schema._def;
  const made = (changes) => new schema.constructor({ ...def, ...changes });
  switch (def.typeName) {
    case "ZodObject": {
      const shape = {};
      for (const [key, field] of Object.entries(def.shape())) shape[key] = strict(field);
      const open = def.unknownKeys === "passthrough";
      const unknownKeys = open ? "passthrough" : "strict";
      return made({ shape: () => shape, unknownKeys });
    }
    case "ZodArray":
      return made({ type: strict(def.type) });
    case "ZodOptional":
    case "ZodNullable":
    case "ZodDefault":
    case "ZodReadonly":
      return made({ innerType: strict(def.innerType) });
    case "ZodEffects":
      return made({ schema: strict(def.schema) });
    case "ZodRecord":
      return made({ valueType: strict(def.valueType) });
    case "ZodTuple":
      return made({ items: def.items.map(strict) });
    case "ZodUnion":
      return made({ options: def.options.map(strict) });
    case "ZodDiscriminatedUnion": {
      const options = [...def.optionsMap].map(([value, option]) => [value, strict(option)]);
      return made({
        options: def.options.map(strict),
        optionsMap: new Map(options),
      });
    }
    case "ZodLazy":
      return made({ getter: () => strict(def.getter()) });
    default:
      return schema;
  }
}

const { interfaces, message: envelope, config } = load(process.argv[2]);
const fields = config.getFullKeyMap();
const problems = [];
const unknown = new Set();

function check(where, schema, value) {
  const result = strict(schema).safeParse(value);
  if (result.success) return;
  const told = JSON.stringify(result.error.issues).slice(0, 600);
  problems.push(`${where}: ${told}; it was ${JSON.stringify(value)?.slice(0, 300)}`);
}

// A stack says of its values only that they are JSON; what each is, its key says.
function checkConfig(where, stack) {
  for (const layer of stack?.layers ?? []) {
    for (const { key, value } of layer.config.fields) {
      const field = fields.get(key);
      if (field === undefined) unknown.add(key);
      else check(`${where} ${key}`, field.schema, value);
    }
  }
}

function checkMessage({ namespace, endpoint, message }) {
  const where = `${namespace} ${endpoint} ${message.type}`;
  check(where, envelope, message);
  const rpc = interfaces[namespace].rpcEndpoints.get(endpoint);
  const channel = interfaces[namespace].channelEndpoints.get(endpoint);
  if (message.type === "rpcCall") {
    if (rpc === undefined) problems.push(`${where}: there is none`);
    else check(where, rpc.parameter, message.parameter);
  } else if (message.type === "channelCreate" || message.type === "channelSend") {
    if (channel === undefined) problems.push(`${where}: there is none`);
    else if (message.type === "channelSend")
      check(where, channel.toServerPacket, message.message);
    else check(where, channel.creationParameter, message.creationParameter);
  }
  const parameter = message.parameter ?? message.creationParameter;
  checkConfig(where, parameter?.loadConfigStack);
  checkConfig(where, parameter?.predictionConfigStack);
}

const messages = JSON.parse(readFileSync(0, "utf8"));
messages.forEach(checkMessage);
console.log(JSON.stringify({ problems, unknown: [...unknown].sort() }));
