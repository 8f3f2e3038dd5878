package lane

import "golang.org/x/sys/unix"

var (
	Check = check
	Open  = open
)

const MaxClosing = maxClosing

// SetClose sets what closes descriptors that are of no memory.
func SetClose(f func(int) error) (restore func()) {
	set := func(f func(int) error) {
		strangers.mu.Lock()
		defer strangers.mu.Unlock()
		strangers.shut = f
	}
	set(f)
	return func() { set(unix.Close) }
}

// Closing returns how many goroutines close descriptors.
func Closing() int {
	strangers.mu.Lock()
	defer strangers.mu.Unlock()
	return strangers.running
}
