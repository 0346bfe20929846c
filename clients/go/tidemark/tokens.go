package tidemark

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// TokenStore keeps one resume token, so that a watcher goes on there after a restart.
type TokenStore interface {
	// Load returns the token that was saved last; empty if there is none.
	Load(ctx context.Context) (string, error)
	// Save keeps the token instead of the one before. When it returns, the token must survive a crash.
	Save(ctx context.Context, token string) error
}

// MemoryTokens keeps the token as long as the process lives. Its zero value is ready for use.
type MemoryTokens struct {
	mu    sync.Mutex
	token string
}

// Load returns the token that was saved last; empty if there is none.
func (t *MemoryTokens) Load(context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token, nil
}

// Save keeps the token instead of the one before.
func (t *MemoryTokens) Save(_ context.Context, token string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = token
	return nil
}

// FileTokens keeps the token in a file, whose path it is. The file is replaced as a whole, and is on the disk when Save
// returns.
type FileTokens string

// Load returns the token that was saved last; empty if there is none.
func (t FileTokens) Load(context.Context) (string, error) {
	content, err := os.ReadFile(string(t))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(content)), err
}

// Save keeps the token instead of the one before.
func (t FileTokens) Save(_ context.Context, token string) error {
	folder := filepath.Dir(string(t))
	file, err := os.CreateTemp(folder, "."+filepath.Base(string(t))+".*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(token)
	if err == nil {
		err = file.Sync()
	}
	if other := file.Close(); err == nil {
		err = other
	}
	if err == nil {
		err = os.Rename(file.Name(), string(t))
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the first error says more
		return err
	}
	return syncFolder(folder)
}

// syncFolder makes the new name durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}
