/**
 * The options of channels: what keeps them alive through proxies, what is repeated, and how large messages may be.
 */

import type { ChannelOptions } from "@grpc/grpc-js";

import { SERVICE_CONFIG } from "../generated/service_config.js";
import { VERSION } from "../generated/version.js";

/** The largest answer that the contract can be asked for, with its frame. */
const MAX_RECEIVED_BYTES = 64 * 1024 * 1024 + 64 * 1024;
/** Time without traffic after which a connection is tested; proxies forget idle ones. */
const KEEPALIVE_TIME_MS = 60_000;
/** Time for the answer to the test. */
const KEEPALIVE_TIMEOUT_MS = 20_000;
/** Between two tries to connect. With gRPC's own, 1 to 120 s, a client stays away long after the server is back. */
const FIRST_RECONNECT_MS = 250;
const LONGEST_RECONNECT_MS = 2_000;

/** How the client names itself to servers, before what gRPC adds. */
function userAgent(application: string): string {
  const own = `tidemark-client/${VERSION} (node ${process.versions.node})`;
  return application ? `${application} ${own}` : own;
}

/** The options of every channel. application: the name and version of the program, such as `gateway/1.2`. */
export function channelOptions(application: string): ChannelOptions {
  return {
    "grpc.service_config": SERVICE_CONFIG,
    "grpc.max_receive_message_length": MAX_RECEIVED_BYTES,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.initial_reconnect_backoff_ms": FIRST_RECONNECT_MS,
    "grpc.max_reconnect_backoff_ms": LONGEST_RECONNECT_MS,
    "grpc.primary_user_agent": userAgent(application),
  };
}
