/** Calls a server with TLS, with the right files and without: `tls.js ADDRESS FOLDER`; prints an error of each. */

import { join } from "node:path";

import { connect, Client } from "tidemark-client";

import { LIMIT } from "../support.js";

const [, , address = "", folder = ""] = process.argv;
const tls = {
  authorities: join(folder, "ca.crt"),
  certificate: join(folder, "client.crt"),
  key: join(folder, "client.key"),
};
const known = await connect({ address, tls, timeoutMs: LIMIT });
const stranger = new Client({ address, tls: true, timeoutMs: LIMIT });
for (const client of [known, stranger]) {
  const error = await client.alerts.listAlerts({}).then(
    () => ({}),
    (/** @type {import("tidemark-client").TidemarkError} */ found) => found,
  );
  console.log(JSON.stringify({ ...error, cause: undefined }));
  client.close();
}
