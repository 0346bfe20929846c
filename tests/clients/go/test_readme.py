"""The README of the Go client and its example: the snippets run as they stand there, against a real server."""

import re
from pathlib import Path

from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.clients.golang import FOLDER, Go, output_of
from tests.support.clients.server import server_with_organization
from tests.support.server.running import running

SNIPPETS = re.findall(r"^```go\n(.*?)^```", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)

# Calls the functions of the snippets.
CALLS = """package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"tidemark.dev/api/tidemark"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	check(connect(ctx, os.Getenv("TIDEMARK_SERVER"), os.Getenv("TIDEMARK_API_KEY")))
	client, err := tidemark.Connect(ctx, "")
	check(err)
	watching, stop := context.WithCancel(ctx)
	stopped := make(chan error)
	go func() { stopped <- watch(watching, client, os.Args[1]) }()
	check(count(ctx, client))
	stop()
	if err := <-stopped; err != context.Canceled {
		panic(err)
	}
	guard := client.Guard(tidemark.GuardOptions{DecisionTimeout: time.Minute, TryTimeout: time.Minute})
	text, err := complete(ctx, guard, "hello")
	check(err)
	fmt.Println(text)
	check(guard.Close(ctx))
	handler, err := receiver("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	check(err)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(nil)))
	fmt.Println("status", answer.Code)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
"""


async def test_snippets_and_example_run_as_they_stand_there(go: Go, shared_pool: Database, tmp_path: Path) -> None:
    start, *others = SNIPPETS
    assert len(others) == 5
    programs = {"start": {"main.go": start}, "calls": {"main.go": CALLS}}
    programs["calls"] |= {f"snippet{at}.go": f"package main\n\n{text}" for at, text in enumerate(others)}
    user = go.for_a_user(tmp_path / "user")
    for name, files in programs.items():
        (user.folder / name).mkdir()
        for file, text in files.items():
            (user.folder / name / file).write_text(text)
    user.run("vet", "./...")
    user.run("build", "-o", f"{tmp_path}/", "./...")
    go.run("build", "-o", f"{tmp_path}/", "./examples/...")

    async with running(shared_pool, SystemClock()) as server:

        async def run(name: str, *arguments: str) -> str:
            own = await server_with_organization(server, shared_pool)
            environment = {"TIDEMARK_SERVER": own.address, "TIDEMARK_API_KEY": own.api_key}
            return await output_of(tmp_path / name, *arguments, environment=environment)

        assert await run("start") == "API calls reached 1000\n"
        printed = await run("calls", str(tmp_path / "token"))
        for line in (
            "there is no such alert",
            "ALERT_NOT_FOUND alt_unknown",
            "1001 events are counted",
            "used 5 of 1000",
            "status 401",
        ):
            assert line in printed.splitlines()
        assert (await run("usage")).splitlines() == [
            "reached: API calls of acme 500",
            "reached: API calls of acme 1000",
            "1200 events are counted",
            "notified: 500",
            "notified: 1000",
        ]
