package badger

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
)

// ErrNotBackup means that a stream is no backup, or not a whole one, or not as
// it was written. Nothing was restored.
var ErrNotBackup = errors.New("this is not a whole backup")

// Restored says what a backup held.
type Restored struct {
	Commit  uint64 // the last commit
	Entries uint64 // what was at rest
	Frames  uint64 // of the journal
	Bytes   int64  // of the backup
}

// Restore makes a store in dir of what Backup has written; dir must not exist,
// or be empty. The store is built beside it, in a directory whose name begins
// with that of dir, and is given the name only when it is whole, on the disk
// and has been opened once: after an error, ErrNotBackup or another, dir is as
// it was. It has an instance id of its own.
func Restore(ctx context.Context, r io.Reader, dir string, o Options) (Restored, error) {
	p, err := o.Profile.resolve()
	if err != nil {
		return Restored{}, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return restore(ctx, r, dir, p, o.Log)
}

func restore(ctx context.Context, r io.Reader, dir string, p profile, log *slog.Logger) (Restored, error) {
	dir, err := mayRestore(filepath.Clean(dir))
	if err != nil {
		return Restored{}, err
	}
	in := newBackupReader(r)
	head, err := in.head()
	if err != nil {
		return Restored{}, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return Restored{}, err
	}
	beside, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".restoring-")
	if err != nil {
		return Restored{}, err
	}
	p.ballast, p.disk = false, nil
	b := rebuilding{ctx: ctx, in: in, head: head, dir: beside, profile: p, log: log}
	err = b.build()
	if err == nil {
		err = b.prove()
	}
	if err == nil {
		err = publish(beside, dir)
	}
	if err != nil {
		return Restored{}, errors.Join(err, os.RemoveAll(beside))
	}
	return Restored{Commit: head.last, Entries: b.entries, Frames: b.frames, Bytes: in.at}, nil
}

// mayRestore refuses a directory that has something in it, or whose name cannot
// be given to another. It is the directory where a link leads to.
func mayRestore(dir string) (real string, err error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return dir, nil
	}
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s is not empty (it has %s): restore into a new directory, and move this one away first if the broker is to use it", dir, names[0].Name())
	}
	if err != nil {
		return dir, err
	}
	if real, err = filepath.EvalSymlinks(dir); err == nil && isMount(real) {
		err = fmt.Errorf("%s is a mount point: restore into a directory below it", dir)
	}
	return real, err
}

// publish makes all of it durable and gives it its name.
func publish(from, to string) error {
	if err := syncTree(from); err != nil {
		return fmt.Errorf("sync what was restored: %w", err)
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) { // it was empty
		return fmt.Errorf("%s cannot be replaced: restore into a directory below it: %w", to, err)
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

// A rebuilding is a restore under way, in a directory of its own.
type rebuilding struct {
	ctx     context.Context
	in      *backupReader
	head    backupHead
	dir     string
	profile profile
	log     *slog.Logger

	db      *lsm.DB
	writer  *lsm.Writer
	journal *journal.Journal
	last    uint64 // commit of the last frame
	looked  int64  // octets of the backup when the free space was looked at

	entries, frames uint64
}

// build makes database and journal of the records, up to the end.
func (b *rebuilding) build() (err error) {
	if err := b.begin(); err != nil {
		return errors.Join(err, b.close())
	}
	for more := true; more && err == nil; {
		if err = errors.Join(b.ctx.Err(), b.room()); err == nil {
			more, err = b.next()
		}
	}
	if err == nil {
		err = b.finish()
	}
	err = errors.Join(err, b.close())
	if errors.Is(err, lsm.ErrTooLarge) || errors.Is(err, journal.ErrTooLarge) {
		err = fmt.Errorf("the backup is of a store with the profile %q: restore it with that one: %w", Server, err)
	}
	return err
}

// begin opens both. The journal goes on behind the mark: its commits keep their
// numbers, which the cursors at rest know.
func (b *rebuilding) begin() (err error) {
	p := &b.profile
	if err := b.enough(); err != nil {
		return err
	}
	names := filepath.Join(b.dir, "journal")
	if err := os.Mkdir(names, 0o700); err != nil {
		return err
	}
	b.db, err = lsm.Open(lsm.Options{Dir: filepath.Join(b.dir, "badger"), Sizes: p.sizes, Log: b.log, Bulk: bulk})
	if err != nil {
		return err
	}
	format := append([]byte{formatVersion}, make([]byte, 16)...)
	if _, err := rand.Read(format[1:]); err != nil {
		return err
	}
	b.writer, b.last = b.db.Writer(b.head.mark.Checkpoint), b.head.mark.Commit
	if err := b.writer.Put(lsm.Entry{Key: metaKey("format"), Value: format}); err != nil {
		return err
	}
	b.journal, err = journal.Open(journal.Options{
		Disk: unsynced{journal.OSDisk(names)}, Instance: [16]byte(format[1:]), Segment: p.segment,
		From: journal.Position{Commit: b.head.mark.Commit}, Log: b.log,
	}, func(journal.Frame) error { return errors.New("bug: a new journal has frames") })
	return err
}

// next does what the next record says. It is false after the end.
func (b *rebuilding) next() (more bool, err error) {
	kind, body, err := b.in.next()
	if err != nil {
		return false, err
	}
	r := reader{b: body}
	switch kind {
	case recordEntry:
		b.entries++
		e := lsm.Entry{Key: r.bytes(), Value: r.b}
		if r.err != nil {
			return false, b.in.damaged(r.err.Error())
		}
		return true, b.writer.Put(e)
	case recordFrame:
		b.frames++
		commit := r.number()
		if r.err != nil || commit != b.last+1 || commit > b.head.last {
			return false, b.in.damaged(fmt.Sprintf("commit %d follows on %d", commit, b.last))
		}
		b.last = commit
		return true, b.frame(r.b)
	case recordEnd:
		entries, frames := r.number(), r.number()
		if r.err != nil || entries != b.entries || frames != b.frames || b.last != b.head.last {
			return false, b.in.damaged(fmt.Sprintf("it should have %d entries and %d frames up to commit %d, and has %d and %d up to %d",
				entries, frames, b.head.last, b.entries, b.frames, b.last))
		}
		return false, b.in.nothing()
	}
	return false, b.in.damaged(fmt.Sprintf("a record of kind %d", kind))
}

func (b *rebuilding) frame(payload []byte) error {
	f, err := b.journal.Write(append(b.journal.Buffer(), payload...))
	if err == nil && f.Commit != b.last {
		err = fmt.Errorf("bug: commit %d became %d", b.last, f.Commit)
	}
	return err
}

// finish writes the mark: the journal begins anew with segment 1.
func (b *rebuilding) finish() error {
	return b.writer.Finish(lsm.Mark{Checkpoint: b.head.mark.Checkpoint, Segment: 1, Commit: b.head.mark.Commit})
}

func (b *rebuilding) close() (err error) {
	if b.journal != nil {
		err = b.journal.Close()
	}
	if b.db != nil {
		err = errors.Join(err, b.db.Close())
	}
	return err
}

// room looks at the free space now and then.
func (b *rebuilding) room() error {
	if b.in.at-b.looked < backupChunk*16 {
		return nil
	}
	b.looked = b.in.at
	return b.enough()
}

// enough says whether there is what database and journal may need: they die of
// a full disk.
func (b *rebuilding) enough() error {
	stat := b.profile.statfs
	if stat == nil {
		stat = func(dir string) (s space.Size, err error) {
			s.Free, err = space.Free(dir)
			return s, err
		}
	}
	now, err := stat(b.dir)
	need := b.profile.sizes.Reserve() + 2*b.profile.segment
	if err == nil && now.Free < need {
		err = fmt.Errorf("restoring needs more space in %s: %d MB are free, and the store wants to keep %d MB: %w", filepath.Dir(b.dir), now.Free>>20, need>>20, errNoRoom)
	}
	return err
}

// prove opens the store once.
func (b *rebuilding) prove() error {
	s, err := open(b.dir, b.profile, b.log)
	if err != nil {
		return fmt.Errorf("what was restored does not open: %w", err)
	}
	last := s.(*store).journal.State().Commit
	if err := s.Close(context.WithoutCancel(b.ctx)); err != nil {
		return err
	}
	if last != b.head.last {
		return fmt.Errorf("bug: the store ends with commit %d, the backup with %d", last, b.head.last)
	}
	return os.Remove(filepath.Join(b.dir, "LOCK"))
}

// A backupReader reads records, and believes none of which the sum is wrong.
type backupReader struct {
	r   *bufio.Reader
	sum uint32
	at  int64 // octets read
}

func newBackupReader(r io.Reader) *backupReader {
	return &backupReader{r: bufio.NewReaderSize(r, backupChunk)}
}

// head reads what a backup begins with, and refuses what this Godwit does not
// know.
func (r *backupReader) head() (h backupHead, err error) {
	begin := make([]byte, len(backupMagic)+1)
	if err := r.full(begin); err != nil {
		return h, err
	}
	if string(begin[:len(backupMagic)]) != backupMagic {
		return h, fmt.Errorf("%w: it begins with %q, and not with %q", ErrNotBackup, begin[:len(backupMagic)], backupMagic)
	}
	if v := begin[len(backupMagic)]; v != backupVersion {
		return h, fmt.Errorf("the backup has version %d, this Godwit reads %d: restore it with the Godwit that wrote it", v, backupVersion)
	}
	r.sum = crc32.Update(0, castagnoli, begin)
	kind, body, err := r.next()
	if err != nil {
		return h, err
	}
	if kind != recordHead || len(body) < 1+len(h.instance) {
		return h, r.damaged("it has no head")
	}
	if h.format = body[0]; h.format != formatVersion {
		return h, fmt.Errorf("the backup is of a store of format %d, this Godwit reads %d: restore it with the Godwit that wrote it", h.format, formatVersion)
	}
	rest := reader{b: body[1+copy(h.instance[:], body[1:]):]}
	h.mark.Checkpoint = rest.number()
	segment := rest.number()
	h.mark.Segment = uint32(segment)
	h.mark.Commit, h.last = rest.number(), rest.number()
	if rest.err != nil || segment > 1<<32-1 {
		return h, r.damaged("its head makes no sense")
	}
	return h, nil
}

// next reads a record; body is the caller's. No more memory is taken for it
// than twice of what has come.
func (r *backupReader) next() (kind byte, body []byte, err error) {
	var header [recordHeader]byte
	if err := r.full(header[:]); err != nil {
		return 0, nil, err
	}
	length := int64(binary.LittleEndian.Uint32(header[1:]))
	if length > mostRecord {
		return 0, nil, r.damaged(fmt.Sprintf("a record of %d octets", length))
	}
	var b bytes.Buffer
	b.Grow(int(min(length, 64<<10)))
	n, err := io.CopyN(&b, r.r, length)
	r.at += n
	if err != nil {
		return 0, nil, r.short(err)
	}
	r.sum = crc32.Update(crc32.Update(r.sum, castagnoli, header[:]), castagnoli, b.Bytes())
	var sum [4]byte
	if err := r.full(sum[:]); err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(sum[:]) != r.sum {
		return 0, nil, r.damaged("a checksum is wrong")
	}
	return header[0], b.Bytes(), nil
}

// mostRecord is the most octets of a record: a frame of the largest segment.
const mostRecord = 1 << 30

// nothing says whether the stream has ended.
func (r *backupReader) nothing() error {
	if _, err := r.r.ReadByte(); err == nil {
		return r.damaged("something follows on its end")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (r *backupReader) full(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.at += int64(n)
	return r.short(err)
}

// short tells a stream that ends too early from one that cannot be read.
func (r *backupReader) short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it was cut short after %d octets; nothing was restored: take another copy", ErrNotBackup, r.at)
	}
	return err
}

func (r *backupReader) damaged(text string) error {
	return fmt.Errorf("%w: it is damaged before octet %d: %s; nothing was restored: take another copy", ErrNotBackup, r.at, text)
}

// unsynced is a disk that waits for nothing: all of it is synced at the end.
type unsynced struct{ journal.Disk }

func (unsynced) Sync() error { return nil }

func (d unsynced) Open(name string) (journal.File, error) {
	f, err := d.Disk.Open(name)
	return unsyncedFile{f}, err
}

func (d unsynced) Create(name string, size int64) (journal.File, error) {
	f, err := d.Disk.Create(name, size)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ journal.File }

func (unsyncedFile) Sync() error { return nil }
