package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
)

// A backup is one stream: what rests, and the journal after it.
//
//	magic | version octet
//	head | entry, entry, ... | frame, frame, ... | end
//
// each of them a record: kind octet | length u32 | body | crc32c u32 of all
// octets so far but the sums. So a record is believed only when everything
// before it is as it was written, and the whole only when it has an end.
const (
	backupMagic   = "GWBACKUP"
	backupVersion = 1

	recordHead  = 1
	recordEntry = 2 // key length | key | value
	recordFrame = 3 // commit | payload of a group frame
	recordEnd   = 4 // entries | frames

	recordHeader = 5 // octets before the body
)

// backupMost is how long a backup may hold the journal: it grows meanwhile.
const backupMost = 10 * time.Minute

// backupChunk is how much a backup hands to its writer at once.
const backupChunk = 256 << 10

var (
	errBackupSlow   = errors.New("it took more than ten minutes: give it somewhere faster to write to, and copy it on from there")
	errBackupClosed = errors.New("the store is being closed")
)

// A backupHead says of what a backup is.
type backupHead struct {
	format   byte     // of the store
	instance [16]byte // whose it was
	mark     lsm.Mark // what the entries are true for
	last     uint64   // the commit that it ends with
}

// Backup writes the store as it is after one commit: the last that is on the
// disk when it begins, so all that was confirmed before is in it. Commits go on.
// Until it ends no checkpoint is made and the journal grows, so it ends after
// ten minutes at most, also while w blocks; w is not used any more when it
// returns. After an error what w has is no backup, and [Restore] refuses it.
func (s *store) Backup(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timed, stop := context.WithTimeoutCause(ctx, backupMost, errBackupSlow)
	defer stop()
	out := &backupWriter{ctx: timed, chunks: make(chan []byte), free: make(chan []byte, 2), buf: make([]byte, 0, backupChunk)}
	out.free <- make([]byte, 0, backupChunk)
	ended := make(chan error, 1)
	go func() { // so that a writer that blocks does not hold the checkpointer
		defer close(out.chunks)
		ended <- s.backup(timed, cancel, out)
	}()
	var failed error
	for chunk := range out.chunks {
		if failed == nil {
			if _, failed = w.Write(chunk); failed != nil {
				cancel(failed)
			}
		}
		out.free <- chunk[:0]
	}
	err := <-ended
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("backup of %s: %w", s.dir, err)
	}
	return nil
}

// backup writes it with the checkpointer's turn held: the mark, what rests and
// the journal stay one whole.
func (s *store) backup(ctx context.Context, cancel context.CancelCauseFunc, out *backupWriter) error {
	release, err := s.points.hold(ctx, cancel)
	if err != nil {
		return err
	}
	defer release()
	if err := s.poisoned(); err != nil {
		return err
	}
	begun := time.Now()
	err = s.db.View(func(at *lsm.Snapshot) error {
		head := backupHead{format: formatVersion, mark: s.db.Mark(), last: s.journal.State().Commit}
		v, err := at.Get(metaKey("format"))
		if err != nil {
			return err
		}
		copy(head.instance[:], v[1:])
		out.head(&head)
		if err := out.atRest(at, head.mark.Checkpoint); err != nil {
			return err
		}
		from := journal.Position{Segment: head.mark.Segment, Commit: head.mark.Commit}
		return s.journal.Frames(from, head.last, func(f journal.Frame) error {
			out.frames++
			return out.record(recordFrame, binary.AppendUvarint(nil, f.Commit), f.Payload)
		})
	})
	if err := errors.Join(err, s.poisoned()); err != nil {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	s.log.Info("a backup was written", slog.Int64("bytes", out.octets), slog.Duration("took", time.Since(begun)))
	return nil
}

// hold takes the checkpointer's turn, until release. When the store is closed
// cancel is called, and closing waits for release.
func (k *checkpointer) hold(ctx context.Context, cancel context.CancelCauseFunc) (release func(), err error) {
	k.mu.Lock()
	if k.stopped {
		k.mu.Unlock()
		return nil, core.ErrClosed
	}
	k.ended.Add(1)
	k.mu.Unlock()
	go func() {
		select {
		case <-k.end:
			cancel(errBackupClosed)
		case <-ctx.Done():
		}
	}()
	if err := lockWithin(ctx, &k.turn); err != nil {
		k.ended.Done()
		return nil, err
	}
	return func() { k.turn.Unlock(); k.ended.Done() }, nil
}

// lockWithin locks mu, or gives up with ctx.
func lockWithin(ctx context.Context, mu *sync.Mutex) error {
	locked := make(chan struct{})
	go func() {
		mu.Lock()
		select {
		case locked <- struct{}{}:
		case <-ctx.Done():
			mu.Unlock()
		}
	}()
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A backupWriter makes records and hands them on in chunks.
type backupWriter struct {
	ctx    context.Context
	chunks chan []byte
	free   chan []byte
	buf    []byte
	sum    uint32

	entries, frames uint64
	octets          int64
	err             error // of flush; nothing is written any more
}

// head begins the stream.
func (w *backupWriter) head(h *backupHead) {
	w.put(append([]byte(backupMagic), backupVersion))
	_ = w.record(recordHead, h.encode()) // its error comes again
}

func (h *backupHead) encode() []byte {
	b := append([]byte{h.format}, h.instance[:]...)
	for _, n := range []uint64{h.mark.Checkpoint, uint64(h.mark.Segment), h.mark.Commit, h.last} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// end is what makes it whole.
func (w *backupWriter) end() error {
	counts := binary.AppendUvarint(binary.AppendUvarint(nil, w.entries), w.frames)
	if err := w.record(recordEnd, counts); err != nil {
		return err
	}
	w.flush()
	return w.err
}

func (w *backupWriter) entry(key, value []byte) error {
	w.entries++
	return w.record(recordEntry, binary.AppendUvarint(make([]byte, 0, 2+len(key)), uint64(len(key))), key, value)
}

// record writes one record, whose body is parts.
func (w *backupWriter) record(kind byte, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	w.put(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(n)))
	for _, p := range parts {
		w.put(p)
	}
	w.add(binary.LittleEndian.AppendUint32(nil, w.sum))
	return w.err
}

// put adds octets, and adds them up.
func (w *backupWriter) put(b []byte) {
	w.sum = crc32.Update(w.sum, castagnoli, b)
	w.add(b)
}

func (w *backupWriter) add(b []byte) {
	for len(b) > 0 && w.err == nil {
		n := min(len(b), cap(w.buf)-len(w.buf))
		w.buf, b = append(w.buf, b[:n]...), b[n:]
		if len(w.buf) == cap(w.buf) {
			w.flush()
		}
	}
}

// flush hands the chunk on and takes the other one.
func (w *backupWriter) flush() {
	if w.err != nil {
		return
	}
	w.octets += int64(len(w.buf))
	select {
	case w.chunks <- w.buf:
	case <-w.ctx.Done():
		w.err = context.Cause(w.ctx)
		return
	}
	select {
	case w.buf = <-w.free:
	case <-w.ctx.Done():
		w.err = context.Cause(w.ctx)
	}
}

// atRest writes what the snapshot holds of the store: the blocks by their
// index, then what is small. A block of a checkpoint above the mark is what one
// that failed has left; the journal still has what is in it.
func (w *backupWriter) atRest(at *lsm.Snapshot, mark uint64) error {
	err := at.Scan([]byte{kindIndex}, nil, true, func(key, value []byte) error {
		if id := parseBlockID(key); id.checkpoint <= mark {
			return w.block(at, id, key, value)
		}
		return w.err
	})
	if err != nil {
		return err
	}
	return at.Scan(nil, []byte{kindIndex + 1}, true, func(key, value []byte) error {
		if lsm.Reserved(key) || string(key) == string(metaKey("format")) {
			return w.err
		}
		return w.entry(key, value)
	})
}

// block writes a block with its index entry. The database does not notice when
// one is missing or damaged, and nobody should find out when it is restored.
func (w *backupWriter) block(at *lsm.Snapshot, id blockID, key, index []byte) error {
	b, err := decodeIndex(index, id, func(r core.RouteSetID) *route { return &route{id: r} })
	if err != nil {
		return unreadable(id, err)
	}
	if err := w.entry(key, index); err != nil {
		return err
	}
	var whole []byte
	for n := range b.pieces + 1 {
		key := id.key(kindBlock)
		if n > 0 {
			key = id.piece(n)
		}
		value, err := at.Get(key)
		if err != nil {
			return unreadable(id, err)
		}
		if err := w.entry(key, value); err != nil {
			return err
		}
		whole = append(whole, value...)
	}
	if _, err := openBlock(whole); err != nil {
		return unreadable(id, err)
	}
	return nil
}

func unreadable(id blockID, err error) error {
	return &core.CorruptError{Log: id.log, From: id.base, To: id.base + 1, Text: "a block cannot be read (" + err.Error() + "): restore an earlier backup"}
}
