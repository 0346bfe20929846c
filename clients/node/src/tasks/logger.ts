/** Where a client reports what no caller waits for. `console` is one, and so are the loggers of most packages. */
export interface Logger {
  warn(message: string): void;
  error(message: string): void;
}
