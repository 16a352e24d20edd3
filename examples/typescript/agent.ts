// An agent that reads its user's session from a header, streams its answer, and writes a change back at the end.
//
//   cd examples/typescript && npm install && npm start

import { createServer, type IncomingMessage } from "node:http";
import { DisplayString, Token, parseDictionary, serializeDictionary } from "structured-headers";

type Scalar = string | number | boolean;
/** A handle stands for a value that is kept from agents. */
type Handle = { handle: string };
type Value = Scalar | Handle | Scalar[];

/** The fields that this agent may read; empty without a session. */
function sessionContext(request: IncomingMessage): Map<string, Value> {
  const header = request.headers["cloakroom-context"];
  const text = Array.isArray(header) ? header.join(", ") : header;
  const context = new Map<string, Value>();
  if (!text) return context;
  for (const [field, [value]] of parseDictionary(text)) {
    context.set(field, Array.isArray(value) ? value.map(([item]) => scalar(item)) : plain(value));
  }
  return context;
}

function plain(value: unknown): Scalar | Handle {
  return value instanceof Token ? { handle: value.toString() } : scalar(value);
}

function scalar(value: unknown): Scalar {
  return value instanceof DisplayString ? value.toString() : (value as Scalar);
}

const server = createServer(async (request, response) => {
  const context = sessionContext(request);
  const step = Number(context.get("step") ?? 0) + 1;
  response.writeHead(200, { "Content-Type": "text/event-stream", Trailer: "Cloakroom-Set, Cloakroom-If-Match" });
  for (const word of ["project", String(context.get("current_project_id") ?? "none"), "step", String(step)]) {
    response.write(`data: ${word}\n\n`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  // Known only now, so it goes into the trailers. It is committed before the client sees the end of the stream.
  response.addTrailers({
    "Cloakroom-Set": serializeDictionary({ step }),
    "Cloakroom-If-Match": String(request.headers["cloakroom-etag"]),
  });
  response.end();
});

server.listen(9000, "127.0.0.1");
