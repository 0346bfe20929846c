// A small gateway over HTTP with a guard: `GET /work?tokens=1000&used=400` for the customer in x-customer-id. The work
// takes as many milliseconds as `takes` says; meanwhile the guard extends the reservation.
//
// A real one takes the customer from the credential of its client, and `used` from what the work says.

import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import { connect } from "./api.js";
import { Guard } from "./guard.js";

const { TIDEMARK_SERVER = "127.0.0.1:50051", TIDEMARK_KEY, DESCRIPTORS = "tidemark.binpb" } = process.env;
const guard = new Guard(connect(TIDEMARK_SERVER, TIDEMARK_KEY, DESCRIPTORS), {
  failOpen: process.env.FAIL_OPEN === "true",
  decisionMilliseconds: Number(process.env.DECISION_MILLISECONDS ?? 1_000),
  tryMilliseconds: Number(process.env.TRY_MILLISECONDS ?? 400),
  ttlSeconds: Number(process.env.TTL_SECONDS ?? 60),
});

async function answer(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://gateway");
  const customerId = request.headers["x-customer-id"];
  if (pathname !== "/work" || !customerId) {
    response.writeHead(400).end();
    return;
  }
  const wanted = { customerId, metricId: "tokens", quantity: searchParams.get("tokens") ?? "1" };
  await guard.reserve(wanted, async (grant) => {
    if (!grant.allowed) {
      const wait = grant.retryAfter === undefined ? {} : { "retry-after": String(Math.ceil(grant.retryAfter)) };
      response.writeHead(grant.decided ? 429 : 503, wait).end(grant.limitId ?? "");
      return;
    }
    await sleep(Number(searchParams.get("takes") ?? 0));
    if (searchParams.has("fails")) throw new Error("the work failed");
    grant.used = searchParams.get("used") ?? grant.quantity;
    response.writeHead(200).end(grant.reservationId);
  });
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error.message);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));

process.on("SIGTERM", async () => {
  server.close();
  server.closeAllConnections();
  const lost = await guard.drain(60_000);
  process.exit(lost === 0 ? 0 : 1);
});
