// A small gateway over HTTP with a guard: `GET /work?tokens=1000&used=400` for the customer in x-customer-id. The work
// takes as many milliseconds as `takes` says; meanwhile the guard extends the reservation.
//
//   TIDEMARK_SERVER=127.0.0.1:50051 PORT=8080 node examples/gateway.js
//
// A real one takes the customer from the credential of its client, and `used` from what the work says.

import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import { Client } from "tidemark-client";

const client = new Client(); // TIDEMARK_SERVER and TIDEMARK_API_KEY
const guard = client.guard({
  failOpen: process.env.FAIL_OPEN === "true",
  decisionMs: Number(process.env.DECISION_MS ?? 1_000),
  tryMs: Number(process.env.TRY_MS ?? 400),
  ttlMs: Number(process.env.TTL_MS ?? 60_000),
  drainMs: 60_000,
});

/**
 * @param {http.IncomingMessage} request
 * @param {http.ServerResponse} response
 */
async function answer(request, response) {
  const { pathname, searchParams } = new URL(String(request.url), "http://gateway");
  const customerId = request.headers["x-customer-id"];
  if (pathname !== "/work" || typeof customerId !== "string") {
    response.writeHead(400).end();
    return;
  }
  const wanted = { customerId, metricId: "tokens", quantity: searchParams.get("tokens") ?? "1" };
  await guard.reserve(wanted, async (hold) => {
    if (!hold.allowed) {
      const { retryAfterMs } = hold;
      const wait = retryAfterMs === undefined ? {} : { "retry-after": String(Math.ceil(retryAfterMs / 1_000)) };
      response.writeHead(hold.decided ? 429 : 503, wait).end(hold.limitId);
      return;
    }
    await sleep(Number(searchParams.get("takes") ?? 0));
    if (searchParams.has("fails")) throw new Error("the work failed");
    hold.settle(searchParams.get("used") ?? hold.quantity);
    response.writeHead(200).end(hold.reservationId);
  });
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error.message);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  const address = server.address();
  console.log(`listening on ${typeof address === "object" && address?.port}`);
});

process.on("SIGTERM", async () => {
  server.close();
  server.closeAllConnections();
  const lost = await guard.close();
  client.close();
  process.exitCode = lost === 0 ? 0 : 1;
});
