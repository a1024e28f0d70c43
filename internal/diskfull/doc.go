// Package diskfull tries the real broker on a small disk that somebody else
// fills: an ext4 of 1 GB, mounted through a loop device. It wants root.
//
//	go test -run TestDiskFull ./internal/diskfull -mount [-disk MB] [-binary bin/godwit]
//
// Publishers of all three protocols go on all the time and note each answer.
// While the disk is full each of them must be refused with the reason, readers
// and their acknowledgements go on, and the broker lives; with space it accepts
// again. The same after kill -9 and a start on the full disk. At the end all
// that was confirmed must have come.
//
//	publishers (publish.go) --> broker on the mount <-- filler
//	                               |
//	readers (read.go) <------------+
package diskfull
