/** The services of the contract as objects, made from their descriptions. */

import type {
  DescMessage,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";

import type { CallOptions, Connection, Requests } from "./connection.js";

type Method<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncGenerator<MessageShape<O>, void, undefined>
      : M extends DescMethodBiDiStreaming<infer I, infer O>
        ? (requests: Requests<I>, options?: CallOptions) => AsyncGenerator<MessageShape<O>, void, undefined>
        : never;

/** The methods of a service. A request may be a plain object with the fields of the message. */
export type ServiceClient<Desc extends DescService> = {
  readonly [Name in keyof Desc["method"]]: Method<Desc["method"][Name]>;
};

/** The methods of the service, over the connection. */
export function serviceClient<Desc extends DescService>(connection: Connection, service: Desc): ServiceClient<Desc> {
  const methods: Record<string, unknown> = {};
  for (const method of service.methods) {
    methods[method.localName] = (request: never, options?: CallOptions) => {
      switch (method.methodKind) {
        case "unary":
          return connection.unary(method as DescMethodUnary<DescMessage, DescMessage>, request, options);
        case "server_streaming":
          return connection.serverStream(
            method as DescMethodServerStreaming<DescMessage, DescMessage>,
            request,
            options,
          );
        case "bidi_streaming":
          return connection.bidi(method as DescMethodBiDiStreaming<DescMessage, DescMessage>, request, options);
        default:
          throw new TypeError(`the contract has no method like ${method.name}`);
      }
    };
  }
  return methods as ServiceClient<Desc>;
}
