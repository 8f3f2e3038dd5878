package lane

import "golang.org/x/sys/unix"

var (
	Check = check
	Open  = open
)

const MaxClosing = maxClosing

// SetClose sets the function that closes descriptors that are not of memory.
func SetClose(f func(int) error) (restore func()) {
	set := func(f func(int) error) {
		strangers.mu.Lock()
		defer strangers.mu.Unlock()
		strangers.shut = f
	}
	set(f)
	return func() { set(unix.Close) }
}

// Closing returns the number of goroutines that close descriptors.
func Closing() int {
	strangers.mu.Lock()
	defer strangers.mu.Unlock()
	return strangers.running
}
