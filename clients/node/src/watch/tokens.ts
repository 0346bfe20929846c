/** Where a watcher keeps its position, so that it goes on there after a restart. */

import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** Keeps one resume token. */
export interface TokenStore {
  /** The token that was saved last; empty if there is none. */
  load(): string | Promise<string>;
  /** Keeps the token instead of the one before. When it is done, the token must survive a crash. */
  save(token: string): void | Promise<void>;
}

/** Keeps the token as long as the process lives. token: where to begin. */
export class MemoryTokens implements TokenStore {
  constructor(public token = "") {}

  load(): string {
    return this.token;
  }

  save(token: string): void {
    this.token = token;
  }
}

/** Keeps the token in a file, which is replaced as a whole and is on the disk when `save` is done. */
export class FileTokens implements TokenStore {
  constructor(private readonly path: string) {}

  /** The token that was saved last; empty if there is none. Throws the errors of the file system. */
  async load(): Promise<string> {
    try {
      return (await readFile(this.path, "ascii")).trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
      throw error;
    }
  }

  /** Keeps the token instead of the one before. Throws the errors of the file system. */
  async save(token: string): Promise<void> {
    const written = join(dirname(this.path), `.${basename(this.path)}.${randomUUID()}`);
    try {
      const file = await open(written, "wx", 0o600);
      try {
        await file.writeFile(token, "ascii");
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(written, this.path);
    } catch (error) {
      await rm(written, { force: true });
      throw error;
    }
  }
}
