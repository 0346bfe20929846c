package tidemark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "tidemark.dev/api/tidemark/v1"
)

// feed is a server of notifications n-1, n-2, …, whose tokens are their numbers. A stream ends after `each` of them.
func feed(t *testing.T, each int, ends error) *scripted {
	t.Helper()
	server := serveScripts(t)
	server.watch = func(request *pb.WatchNotificationsRequest, stream pb.AlertService_WatchNotificationsServer) error {
		at, _ := strconv.Atoi(request.ResumeToken)
		if err := stream.Send(&pb.WatchNotificationsResponse{Heartbeat: true, ResumeToken: fmt.Sprint(at)}); err != nil {
			return err
		}
		for i := 0; i < each; i++ {
			at++
			if err := stream.Send(&pb.WatchNotificationsResponse{
				Notification: &pb.Notification{NotificationId: fmt.Sprintf("n-%d", at)}, ResumeToken: fmt.Sprint(at),
			}); err != nil {
				return err
			}
		}
		return ends
	}
	return server
}

func TestAWatcherGoesOnWhereItWas(t *testing.T) {
	stop := errors.New("stop")
	for _, ends := range []error{nil, status.Error(codes.Unavailable, "away")} {
		server := feed(t, 3, ends)
		tokens := FileTokens(filepath.Join(t.TempDir(), "token"))
		var seen []string
		for run := 0; run < 2; run++ { // the second one is the program after a restart
			client := connected(t, server.address)
			watcher := client.Watcher(WatchOptions{Tokens: tokens, OnInterruption: func(string) {}})
			err := watcher.Run(within(t), func(_ context.Context, one *pb.Notification) error {
				if len(seen) == 4 && run == 0 || len(seen) == 8 {
					return stop // before it is done with the notification
				}
				seen = append(seen, one.NotificationId)
				return nil
			})
			if err != stop {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(seen, []string{"n-1", "n-2", "n-3", "n-4", "n-5", "n-6", "n-7", "n-8"}) {
			t.Fatal(seen)
		}
	}
}

func TestAWatcherEndsWithItsContextItsClientAndErrorsThatStay(t *testing.T) {
	server := feed(t, 1, status.Error(codes.FailedPrecondition, "the token has expired"))
	err := connected(t, server.address).Watcher(WatchOptions{}).Run(
		within(t), func(context.Context, *pb.Notification) error { return nil })
	if !errors.Is(err, &Error{Code: codes.FailedPrecondition}) {
		t.Fatal(err)
	}

	server = feed(t, 1, nil)
	ctx, cancel := context.WithCancel(within(t))
	err = connected(t, server.address).Watcher(WatchOptions{}).Run(ctx, func(context.Context, *pb.Notification) error {
		cancel()
		return nil
	})
	if err != context.Canceled {
		t.Fatal(err)
	}

	client := connected(t, server.address)
	err = client.Watcher(WatchOptions{}).Run(within(t), func(context.Context, *pb.Notification) error {
		return client.Close()
	})
	if !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestARequestBeginsAtTheTimeOnlyWithoutAToken(t *testing.T) {
	watcher := connected(t, "127.0.0.1:1").Watcher(WatchOptions{StartTime: noon, CustomerIDs: []string{"acme"}})
	if one := watcher.request(""); !one.StartTime.AsTime().Equal(noon) || one.CustomerIds[0] != "acme" {
		t.Fatal(one)
	}
	if one := watcher.request("token"); one.StartTime != nil || one.ResumeToken != "token" {
		t.Fatal(one)
	}
	if one := connected(t, "127.0.0.1:1").Watcher(WatchOptions{StartTime: time.Time{}}).request(""); one.StartTime != nil {
		t.Fatal(one)
	}
}

func TestTheFileOfATokenIsReplacedAsAWhole(t *testing.T) {
	folder := t.TempDir()
	tokens := FileTokens(filepath.Join(folder, "token"))
	for _, token := range []string{"", "one", "two"} {
		if token != "" {
			must(t, tokens.Save(within(t), token))
		}
		if found, err := tokens.Load(within(t)); err != nil || found != token {
			t.Fatal(found, err)
		}
	}
	files, err := os.ReadDir(folder)
	must(t, err)
	if len(files) != 1 || files[0].Name() != "token" {
		t.Fatal(files)
	}
	if err := FileTokens(filepath.Join(folder, "missing", "token")).Save(within(t), "t"); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}
