// Package journaltest has a disk in memory that loses power, fails and fills
// up, for tests of what is built on a journal.
//
//	d := journaltest.New(seed)
//	d.StopAfter(17)             // the 18th operation is the last, half done
//	...                         // everything answers ErrStopped from then on
//	d = d.PowerCut()            // what the platters have; or d.Kill(): what the kernel has
//
// What it does is decided by its seed and the order of the calls alone.
package journaltest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/godwitmq/godwit/persistence/journal"
)

// ErrStopped is what every call returns once the machine is off.
var ErrStopped = errors.New("journaltest: the machine is off")

// Sector is what a disk writes whole, in bytes.
const Sector = 512

// A Kind is what an operation does.
type Kind int

const (
	Open Kind = iota
	Create
	Read
	Write
	Sync // of a file
	Rename
	Remove
	SyncDir
)

func (k Kind) String() string {
	return [...]string{"open", "create", "read", "write", "sync", "rename", "remove", "sync the directory"}[k]
}

// An Op is an operation that changed the disk, or was to change it.
type Op struct {
	Kind Kind
	Name string
	To   string // of Rename
	At   int64  // of Write
	Len  int64  // of Write and Create
	Err  error  // nil: it was done
}

// A Disk is a directory on a disk with a volatile cache. After a power cut it
// has what was synced, and of what was not a random part: of the data sector
// by sector, in one of the states each has had; of the names change by change.
type Disk struct {
	mu      sync.Mutex
	random  *rand.Rand
	names   map[string]*inode
	durable map[string]*inode // the names a power cut leaves, but for pending
	pending []naming
	free    int64 // bytes Create may still take; negative: any
	faults  []fault
	left    int // operations until the machine stops; negative: for ever
	stopped bool
	ops     []Op
}

// An inode is a file without its name.
type inode struct {
	data   []byte
	sized  bool             // its size is on the disk
	behind map[int64][]byte // sectors that are written and not synced: what the disk has
	lost   map[int64][]byte // the same, of sectors whose sync has failed: nobody will write them any more
}

// A naming gives a file another name; "" removes it.
type naming struct {
	file *inode
	name string
}

type fault struct {
	kind Kind
	n    int
	err  error
}

var _ journal.Disk = (*Disk)(nil)

// New returns an empty disk.
func New(seed uint64) *Disk {
	return &Disk{
		random: rand.New(rand.NewPCG(seed, 0)),
		names:  map[string]*inode{}, durable: map[string]*inode{},
		free: -1, left: -1,
	}
}

// Fail lets the n-th operation of a kind from now on fail, 1 being the next.
// A failed Write may have written a part; a failed Sync leaves sectors that
// look written and never are.
func (d *Disk) Fail(k Kind, n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, fault{k, n, err})
}

// SetFull lets Create fail with ENOSPC, or not. A Write has its place already;
// a file system where it has not is Fail(Write, n, syscall.ENOSPC).
func (d *Disk) SetFull(full bool) {
	if full {
		d.SetFree(0)
	} else {
		d.SetFree(-1)
	}
}

// SetFree says how many bytes Create may still take. What is removed comes
// back.
func (d *Disk) SetFree(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = n
}

// StopAfter lets n more operations that change the disk be done, and the one
// after be the last, begun and perhaps not finished.
func (d *Disk) StopAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// Stopped says whether the machine is off.
func (d *Disk) Stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped
}

// Ops returns what was done, in order, and forgets it.
func (d *Disk) Ops() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	ops := d.ops
	d.ops = nil
	return ops
}

// Kill turns the process off and returns the disk for the next one. All that
// was written is there, also what the disk itself does not have yet.
func (d *Disk) Kill() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	return &Disk{
		random: d.random, names: d.names, durable: d.durable, pending: d.pending,
		free: d.free, left: -1,
	}
}

// PowerCut turns the machine off and returns what the disk has.
func (d *Disk) PowerCut() *Disk {
	next := d.Kill()
	// Most cuts keep nearly all or nearly nothing: else no frame of more than
	// a few sectors would ever survive.
	chance := []float64{0, 0.5, 0.9, 1, d.random.Float64()}[d.random.IntN(5)]
	kept := func() bool { return d.random.Float64() < chance }
	for _, c := range next.pending {
		if kept() {
			rename(next.durable, c)
		}
	}
	next.pending = nil
	for _, name := range slices.Sorted(maps.Keys(next.durable)) {
		next.durable[name].powerCut(kept)
	}
	next.names = maps.Clone(next.durable)
	return next
}

// rename lets a file have another name. It has one at most.
func rename(names map[string]*inode, c naming) {
	for name, f := range names {
		if f == c.file {
			delete(names, name)
		}
	}
	if c.name != "" {
		names[c.name] = c.file
	}
}

func (f *inode) powerCut(kept func() bool) {
	for _, s := range slices.Sorted(maps.Keys(f.behind)) {
		if !kept() {
			copy(f.data[s*Sector:], f.behind[s])
		}
	}
	for s, old := range f.lost {
		copy(f.data[s*Sector:], old)
	}
	if !f.sized && !kept() {
		f.data = nil
	}
	f.behind, f.lost, f.sized = map[int64][]byte{}, map[int64][]byte{}, true
}

// Clone returns a disk with the same files, all of it synced.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New(d.random.Uint64())
	c.free = d.free
	for name, f := range d.names {
		c.put(name, slices.Clone(f.data))
	}
	return c
}

// Bytes returns a copy of a file, nil if there is none.
func (d *Disk) Bytes(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.names[name]; f != nil {
		return slices.Clone(f.data)
	}
	return nil
}

// Put makes a file of these bytes, or replaces one, on the disk itself.
func (d *Disk) Put(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(name, slices.Clone(data))
}

func (d *Disk) put(name string, data []byte) {
	f := &inode{data: data, sized: true, behind: map[int64][]byte{}, lost: map[int64][]byte{}}
	d.names[name], d.durable[name] = f, f
}

// Flip inverts bits of one byte of a file, on the disk itself.
func (d *Disk) Flip(name string, at int64, mask byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[name]
	f.data[at] ^= mask
	if old := f.behind[at/Sector]; old != nil {
		old[at%Sector] ^= mask
	}
}

// begin counts an operation. If it is the last, half says that it may be done
// in part. d.mu is held.
func (d *Disk) begin(k Kind) (half bool, err error) {
	if d.stopped {
		return false, ErrStopped
	}
	for i := range d.faults {
		f := &d.faults[i]
		if f.kind != k {
			continue
		}
		if f.n--; f.n == 0 {
			err = f.err
			d.faults = slices.Delete(d.faults, i, i+1)
			return true, err
		}
	}
	if k == Open || k == Read || d.left < 0 {
		return false, nil
	}
	if d.left--; d.left < 0 {
		d.stopped = true
		return true, ErrStopped
	}
	return false, nil
}

func (d *Disk) note(op Op) error {
	d.ops = append(d.ops, op)
	return op.Err
}

// Open is a journal.Disk's.
func (d *Disk) Open(name string) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.begin(Open); err != nil {
		return nil, err
	}
	f := d.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{disk: d, inode: f, name: name}, nil
}

// Create is a journal.Disk's.
func (d *Disk) Create(name string, size int64) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := Op{Kind: Create, Name: name, Len: size}
	_, op.Err = d.begin(Create)
	if op.Err == nil && d.names[name] != nil {
		op.Err = &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if op.Err == nil && d.free >= 0 && d.free < size {
		op.Err = &fs.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	if op.Err != nil {
		return nil, d.note(op)
	}
	if d.free >= 0 {
		d.free -= size
	}
	f := &inode{data: make([]byte, size), behind: map[int64][]byte{}, lost: map[int64][]byte{}}
	d.name(f, name)
	return &file{disk: d, inode: f, name: name}, d.note(op)
}

func (d *Disk) name(f *inode, name string) {
	c := naming{f, name}
	rename(d.names, c)
	d.pending = append(d.pending, c)
}

// Rename is a journal.Disk's.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := Op{Kind: Rename, Name: from, To: to}
	half, err := d.begin(Rename)
	f := d.names[from]
	if err == nil && f == nil {
		err = &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if op.Err = err; err == nil || half && f != nil && d.stopped && d.random.IntN(2) == 0 {
		d.name(f, to)
	}
	return d.note(op)
}

// Remove is a journal.Disk's.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := Op{Kind: Remove, Name: name}
	half, err := d.begin(Remove)
	f := d.names[name]
	if err == nil && f == nil {
		err = &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if op.Err = err; err == nil || half && f != nil && d.stopped && d.random.IntN(2) == 0 {
		d.name(f, "")
		if d.free >= 0 {
			d.free += int64(len(f.data))
		}
	}
	return d.note(op)
}

// List is a journal.Disk's.
func (d *Disk) List() ([]journal.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil, ErrStopped
	}
	var list []journal.Entry
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		list = append(list, journal.Entry{Name: name, Size: int64(len(d.names[name].data))})
	}
	return list, nil
}

// Sync is a journal.Disk's.
func (d *Disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := Op{Kind: SyncDir}
	if _, op.Err = d.begin(SyncDir); op.Err == nil {
		d.durable, d.pending = maps.Clone(d.names), nil
	}
	return d.note(op)
}

// A file is an open inode.
type file struct {
	disk   *Disk
	inode  *inode
	name   string
	closed bool
}

// open returns why the file cannot be used. disk.mu is held.
func (f *file) open() error {
	if f.closed {
		return fmt.Errorf("%s: %w", f.name, fs.ErrClosed)
	}
	return nil
}

func (f *file) ReadAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if _, err := f.disk.begin(Read); err != nil {
		return 0, err
	}
	if err := f.open(); err != nil {
		return 0, err
	}
	n := copy(p, f.inode.data[min(at, int64(len(f.inode.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.open(); err != nil {
		return 0, err
	}
	op := Op{Kind: Write, Name: f.name, At: at, Len: int64(len(p))}
	n := len(p)
	half, err := f.disk.begin(Write)
	if op.Err = err; err != nil {
		n = 0
		if half {
			n = f.disk.random.IntN(len(p)/Sector+1) * Sector
		}
	}
	f.inode.write(p[:n], at, f.disk.random)
	return n, f.disk.note(op)
}

// write changes what the kernel has. A sector that was waiting already may
// have been written meanwhile.
func (f *inode) write(p []byte, at int64, random *rand.Rand) {
	if end := at + int64(len(p)); end > int64(len(f.data)) {
		panic(fmt.Sprintf("journaltest: a write from %d to %d of a file of %d bytes: a journal's file never grows", at, end, len(f.data)))
	}
	for s := at / Sector; s*Sector < at+int64(len(p)); s++ {
		old, waits := f.behind[s]
		switch lost, ok := f.lost[s]; {
		case ok:
			f.behind[s] = lost
			delete(f.lost, s)
		case !waits:
			f.behind[s] = slices.Clone(f.sector(s))
		case random.IntN(4) == 0:
			copy(old, f.sector(s))
		}
	}
	copy(f.data[at:], p)
}

func (f *inode) sector(s int64) []byte {
	return f.data[s*Sector : min((s+1)*Sector, int64(len(f.data)))]
}

func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.open(); err != nil {
		return err
	}
	op := Op{Kind: Sync, Name: f.name}
	_, op.Err = f.disk.begin(Sync)
	switch {
	case op.Err == nil:
		f.inode.sized = true
		clear(f.inode.behind)
	case !f.disk.stopped:
		f.inode.failSync(f.disk.random)
	}
	return f.disk.note(op)
}

// failSync lets the kernel believe that all is written. It does not try again.
func (f *inode) failSync(random *rand.Rand) {
	for _, s := range slices.Sorted(maps.Keys(f.behind)) {
		if random.IntN(2) == 0 {
			f.lost[s] = f.behind[s]
		}
	}
	clear(f.behind)
}

func (f *file) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.open(); err != nil {
		return err
	}
	f.closed = true
	return nil
}
