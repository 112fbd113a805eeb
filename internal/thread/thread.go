// Package thread has work done on threads that are thrown away.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Own runs f on a thread of its own, which is thrown away with f's namespaces:
// it is locked and never unlocked. f must not start goroutines: they would run
// outside.
func Own(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		// The main thread is never thrown away, and /proc/self would show its
		// namespace for as long as the process lives. It has changed nothing
		// yet, so hold it until another thread has done the work.
		done <- Own(f)
		runtime.UnlockOSThread()
	}()
	return <-done
}
