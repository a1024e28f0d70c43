package badger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
	"github.com/godwitmq/godwit/persistence/storetest"
)

// backedUp goes on with what a backup of the running store gives back.
func (b *bench) backedUp() core.Store {
	b.t.Helper()
	var to bytes.Buffer
	if err := b.s.Backup(context.Background(), &to); err != nil {
		b.t.Fatal(err)
	}
	_ = b.s.Close(context.Background())
	b.restoreFrom(&to)
	return b.open()
}

// restoreFrom lets the bench be in a new directory with what was restored.
func (b *bench) restoreFrom(r io.Reader) {
	b.t.Helper()
	b.dir = filepath.Join(b.t.TempDir(), "restored")
	if _, err := restore(context.Background(), r, b.dir, b.profile, testLog(b.t)); err != nil {
		b.t.Fatal(err)
	}
}

// A backup, taken while the store works and restored, is the store as it was:
// any history leaves what it leaves in memory.
func TestBackupModel(t *testing.T) {
	storetest.Model(t, func(t *testing.T) storetest.Harness {
		b := &bench{t: t, profile: modelProfile(), dir: t.TempDir()}
		b.open()
		t.Cleanup(func() { _ = b.s.Close(context.Background()) })
		return storetest.Harness{Store: b.s, Crash: b.backedUp, Reopen: func() core.Store {
			b.s.(*store).points.now() // else little is at rest
			return b.backedUp()
		}}
	})
}

// backupProfile is the model's, with segments for some hundred frames.
func backupProfile() profile {
	p := modelProfile()
	p.segment = 1 << 20
	return p
}

// numbered commits message n for cursor 2, and says in a record that it was
// the last. Cursor 3 has it too and settles what is 20 behind.
func (b *bench) numbered(n int) {
	b.t.Helper()
	b.padded(n, 0)
}

// padded does it with larger messages.
func (b *bench) padded(n, octets int) {
	b.t.Helper()
	m := small(strconv.Itoa(n))
	m.Dedup = strings.Repeat("x", octets)
	o := &core.Batch{
		Appends: []core.Append{{Log: 1, Routes: core.Solo(2), Message: m}, {Log: 1, Routes: core.Solo(3), Message: m}},
		Records: []core.Record{{Table: 1, Key: []byte("last"), Value: []byte(strconv.Itoa(n))}},
	}
	if n == 0 {
		o.Cursors = []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}
	}
	if n >= 20 {
		o.Acks = []core.Ack{{Cursor: 3, From: 1, To: core.Offset(2*(n-20) + 3)}}
	}
	b.commit(o)
}

// holdsUpTo checks that the store is as after message n, and no other.
func (b *bench) holdsUpTo(n int) {
	b.t.Helper()
	b.openPart() // a handle knows the cursors as of its Open
	last, err := lastNumber(b.p)
	if err != nil || last != n {
		b.t.Fatalf("the last record says %d, %v; want %d", last, err, n)
	}
	mine := b.numbers(2)
	for i, m := range mine {
		if m != i {
			b.t.Fatalf("message %d of cursor 2 is %d", i, m)
		}
	}
	if its := b.numbers(3); len(mine) != n+1 || len(its) != min(n+1, 20) || its[len(its)-1] != n {
		b.t.Fatalf("cursor 2 owes %d messages, cursor 3 %v; want %d and the last 20", len(mine), its, n+1)
	}
}

// A gate is a writer that stops at some octet until it is opened.
type gate struct {
	bytes.Buffer
	at      int
	reached chan struct{}
	opened  chan struct{}
}

func newGate(at int) *gate {
	return &gate{at: at, reached: make(chan struct{}), opened: make(chan struct{})}
}

func (g *gate) Write(b []byte) (int, error) {
	if g.reached != nil && g.Len()+len(b) >= g.at {
		close(g.reached)
		g.reached = nil
		<-g.opened
	}
	return g.Buffer.Write(b)
}

// mission: S18 S51. Commits go on while a backup is written, however slow its
// writer is, and the backup has what was confirmed before it began and nothing
// later.
func TestBackupWhileWorking(t *testing.T) {
	b := newBench(t, backupProfile())
	n := 0
	for ; n < 300; n++ {
		b.padded(n, 2000)
	}
	b.s.(*store).points.now()
	for ; n < 400; n++ {
		b.padded(n, 2000)
	}
	g := newGate(0)
	reached := g.reached
	said := make(chan error, 1)
	go func() { said <- b.s.Backup(context.Background(), g) }()
	<-reached
	checkpoints := b.s.(*store).counts.checkpoints.Load()
	if checkpoints == 0 || b.s.(*store).db.Mark().Segment < 2 {
		t.Fatal("nothing is at rest, so the test is worth nothing")
	}
	due := make(chan struct{})
	go func() { b.s.(*store).points.now(); close(due) }()
	slowest := time.Duration(0)
	for ; n < 450; n++ { // all of these are confirmed before the writer goes on
		begun := time.Now()
		b.numbered(n)
		slowest = max(slowest, time.Since(begun))
	}
	if b.s.(*store).counts.checkpoints.Load() != checkpoints {
		t.Error("a checkpoint was made while a backup was")
	}
	close(g.opened)
	b.waitFor(said)
	<-due
	t.Logf("the slowest commit meanwhile took %v; the backup has %d octets", slowest, g.Len())
	b.numbered(n)
	b.holdsUpTo(n)

	before := b.s.(*store).instance(t)
	_ = b.s.Close(context.Background())
	b.restoreFrom(&g.Buffer)
	b.open()
	b.openPart()
	b.holdsUpTo(399)
	if b.s.(*store).instance(t) == before {
		t.Error("what was restored has the instance id of the old store")
	}
	for n := 400; n < 500; n++ { // it goes on as any store does
		b.numbered(n)
	}
	b.s.(*store).points.now()
	b.numbered(500)
	b.reopen()
	b.holdsUpTo(500)
}

func (s *store) instance(t *testing.T) string {
	t.Helper()
	v, err := s.db.Get(metaKey("format"))
	if err != nil {
		t.Fatal(err)
	}
	return string(v)
}

// mission: S18. Backups of a busy store: each is the state after one commit, whole, and not
// older than what was confirmed when it began.
func TestBackupUnderLoad(t *testing.T) {
	b := newBench(t, backupProfile())
	b.numbered(0)
	var confirmed atomic.Int64
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; !stop.Load() && !t.Failed(); n++ {
			b.numbered(n)
			confirmed.Store(int64(n))
		}
	}()
	for range 4 {
		for from := confirmed.Load(); confirmed.Load() < from+100 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		sure := int(confirmed.Load())
		var to bytes.Buffer
		if err := b.s.Backup(context.Background(), &to); err != nil {
			t.Error(err)
			break
		}
		r := &bench{t: t, profile: b.profile}
		r.restoreFrom(&to)
		r.open()
		r.openPart()
		last, err := lastNumber(r.p)
		if err != nil || last < sure {
			t.Errorf("%d was confirmed, the backup has %d, %v", sure, last, err)
		}
		r.holdsUpTo(last)
		_ = r.s.Close(context.Background())
	}
	stop.Store(true)
	<-ended
}

// A backup gives up when it is told to, when its writer fails, and when the
// store is closed; the store goes on.
func TestBackupGivesUp(t *testing.T) {
	b := newBench(t, backupProfile())
	for n := range 50 {
		b.numbered(n)
	}
	s := b.s.(*store)
	broken := errors.New("the pipe is broken")
	if err := s.Backup(context.Background(), writerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Errorf("a writer that fails: %v", err)
	}
	s.points.turn.Lock() // a checkpoint that does not end
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	if err := s.Backup(ctx, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("told to end while it waits: %v", err)
	}
	cancel()
	s.points.turn.Unlock()
	b.numbered(50)
	s.points.now() // the turn was given back

	g := newGate(0)
	reached, said := g.reached, make(chan error, 1)
	go func() { said <- s.Backup(context.Background(), g) }()
	<-reached
	go func() { <-s.points.end; close(g.opened) }()
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// It was so small that the writer had all of it; then it is whole.
	if err := <-said; err != nil && !errors.Is(err, errBackupClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	if err := s.Backup(context.Background(), io.Discard); !errors.Is(err, core.ErrClosed) {
		t.Errorf("of a closed store: %v", err)
	}
	b.open()
	b.openPart()
	b.holdsUpTo(50)
}

// Closing does not wait for a writer that is stuck.
func TestCloseWhileBackupIsStuck(t *testing.T) {
	p := edgeProfile
	b := newBench(t, p)
	for n := range 5 { // more than the chunks
		m := small(strconv.Itoa(n))
		m.Body = bytes.Repeat([]byte("x"), 500_000)
		b.commit(&core.Batch{Appends: []core.Append{{Log: 1, Message: m}}})
	}
	g := newGate(0)
	reached, said := g.reached, make(chan error, 1)
	go func() { said <- b.s.Backup(context.Background(), g) }()
	<-reached
	closed := make(chan error, 1)
	go func() { closed <- b.s.Close(context.Background()) }()
	b.waitFor(closed)
	close(g.opened)
	if err := <-said; !errors.Is(err, errBackupClosed) {
		t.Errorf("the backup says %v", err)
	}
}

// A store that has failed may show what is not on the disk.
func TestBackupOfPoisoned(t *testing.T) {
	b := newBench(t, backupProfile())
	_ = b.s.(*store).fail(errors.New("a test broke the disk"))
	if err := b.s.Backup(context.Background(), io.Discard); !errors.Is(err, core.ErrPoisoned) {
		t.Errorf("got %v", err)
	}
}

// What a checkpoint that failed has left is not in a backup, and a block that
// is missing or damaged is no backup at all.
func TestBackupReadsBlocks(t *testing.T) {
	b := newBench(t, backupProfile())
	for n := range 300 {
		b.numbered(n)
	}
	s := b.s.(*store)
	s.points.now()
	s.points.turn.Lock()
	mark := s.db.Mark().Checkpoint
	id := blockID{checkpoint: mark + 1, part: 1, owner: 2, log: 1, base: 1}
	w := s.db.Writer(mark + 1)
	err := errors.Join(w.Put(lsm.Entry{Key: id.key(kindIndex), Value: []byte("?")}, lsm.Entry{Key: id.key(kindBlock), Value: []byte("?")}), w.Flush())
	s.points.turn.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	var to bytes.Buffer
	if err := s.Backup(context.Background(), &to); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(to.Bytes(), id.key(kindIndex)) || bytes.Contains(to.Bytes(), id.key(kindBlock)) {
		t.Error("a backup has what a failed checkpoint left")
	}
	r := &bench{t: t, profile: b.profile}
	r.restoreFrom(&to)
	r.open()
	r.openPart()
	r.holdsUpTo(299)
	_ = r.s.Close(context.Background())

	var block []byte
	_ = s.db.Scan([]byte{kindBlock}, nil, false, func(key, _ []byte) error { block = bytes.Clone(key); return nil })
	for name, value := range map[string][]byte{"damaged": []byte("not a block"), "missing": nil} {
		// The last of them may be what was put above.
		binary.BigEndian.PutUint64(block[1:], mark)
		if err := s.db.Scan([]byte{kindBlock}, nil, false, func(key, _ []byte) error {
			if parseBlockID(key).checkpoint <= mark {
				block = bytes.Clone(key)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Rewrite(mark, lsm.Entry{Key: block, Value: value}); err != nil {
			t.Fatal(err)
		}
		err := s.Backup(context.Background(), io.Discard)
		if c := new(core.CorruptError); !errors.As(err, &c) || c.Log != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// smallBackup is a backup with a bit of everything.
func smallBackup(t testing.TB) []byte {
	t.Helper()
	b := newBench(t, backupProfile())
	for n := range 40 {
		b.numbered(n)
	}
	b.s.(*store).points.now()
	b.numbered(40)
	var to bytes.Buffer
	if err := b.s.Backup(context.Background(), &to); err != nil {
		t.Fatal(err)
	}
	return to.Bytes()
}

// drain reads a backup to its end without restoring it.
func drain(b []byte) error {
	d := rebuilding{in: newBackupReader(bytes.NewReader(b))}
	head, err := d.in.head()
	if err != nil {
		return err
	}
	var entries, frames uint64
	for last := head.mark.Commit; ; {
		kind, body, err := d.in.next()
		if err != nil {
			return err
		}
		switch kind {
		case recordEntry:
			entries++
		case recordFrame:
			frames++
			last++
		case recordEnd:
			r := reader{b: body}
			if r.number() != entries || r.number() != frames || last != head.last {
				return ErrNotBackup
			}
			return d.in.nothing()
		}
	}
}

// mission: S18. Damage to any octet, and any missing end, is noticed, nothing is
// made of it, and the sentence says what to do.
func TestRestoreRefusesDamage(t *testing.T) {
	whole := smallBackup(t)
	if err := drain(whole); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if err := drain(whole[:i]); !errors.Is(err, ErrNotBackup) {
			t.Fatalf("cut short after %d octets: %v", i, err)
		}
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		if err := drain(flipped); err == nil {
			t.Fatalf("octet %d is another: nobody noticed", i)
		}
	}
	flipped := bytes.Clone(whole)
	flipped[len(whole)/2] ^= 4
	twice := append(bytes.Clone(whole), whole...)
	last := len(whole) - recordHeader - 4
	for name, c := range map[string]struct {
		backup []byte
		want   string
	}{
		"an octet is another":  {flipped, "damaged before octet"},
		"the last octet lacks": {whole[:len(whole)-1], "cut short"},
		"the end lacks":        {whole[:last-4], "cut short"},
		"something follows":    {twice, "something follows"},
		"nothing":              {nil, "cut short"},
		"no backup":            {[]byte(strings.Repeat("something else", 100)), "it begins with"},
		"a later version":      {append([]byte(backupMagic), 2), "version 2"},
	} {
		parent := t.TempDir()
		_, err := restore(context.Background(), bytes.NewReader(c.backup), filepath.Join(parent, "new"), backupProfile(), testLog(t))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		empty(t, name, parent)
	}
}

// empty wants nothing in a directory.
func empty(t *testing.T, name, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%s: it left %v, %v", name, left, err)
	}
}

// A directory that has something in it stays as it is; an empty one will do.
func TestRestoreWhere(t *testing.T) {
	whole := smallBackup(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "used")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	unread := bytes.NewReader(whole)
	if _, err := restore(context.Background(), unread, dir, backupProfile(), testLog(t)); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("into a directory in use: %v", err)
	}
	if unread.Len() != len(whole) {
		t.Error("that was found out late")
	}
	if err := os.Remove(filepath.Join(dir, "mine")); err != nil {
		t.Fatal(err)
	}
	got, err := restore(context.Background(), bytes.NewReader(whole), dir+"/", backupProfile(), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if got.Commit == 0 || got.Bytes != int64(len(whole)) || got.Entries == 0 || got.Frames == 0 {
		t.Errorf("restored %+v of %d octets", got, len(whole))
	}
	if names, _ := os.ReadDir(parent); len(names) != 1 {
		t.Errorf("there are %v", names)
	}
	// Where a link leads to is replaced, not the link.
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(context.Background(), bytes.NewReader(whole), link, backupProfile(), testLog(t)); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 2 {
		t.Errorf("there are %v", names)
	}
}

// A full disk, at the beginning or later, leaves nothing behind.
func TestRestoreOnFullDisk(t *testing.T) {
	whole := smallBackup(t)
	for looks := range 2 {
		p := backupProfile()
		p.statfs = func(string) (space.Size, error) {
			if looks--; looks < 0 {
				return space.Size{Total: 1 << 40, Free: 1 << 20}, nil
			}
			return space.Size{Total: 1 << 40, Free: 1 << 39}, nil
		}
		parent := t.TempDir()
		in := io.Reader(bytes.NewReader(whole))
		if looks == 1 { // the backup of a store with much at rest
			in = bytes.NewReader(bigBackup(t))
		}
		_, err := restore(context.Background(), in, filepath.Join(parent, "new"), p, testLog(t))
		if !errors.Is(err, errNoRoom) || !strings.Contains(err.Error(), "more space") {
			t.Errorf("got %v", err)
		}
		empty(t, "full", parent)
	}
}

// bigBackup is of more octets than restore looks at the disk for once.
func bigBackup(t *testing.T) []byte {
	t.Helper()
	out, to := handMade()
	out.head(&backupHead{format: formatVersion, mark: lsm.Mark{Checkpoint: 1, Segment: 1}, last: 0})
	for n := range 1000 {
		_ = out.entry(recordKey(1, 1, []byte(strconv.Itoa(n))), make([]byte, 10_000))
	}
	if err := out.end(); err != nil {
		t.Fatal(err)
	}
	return to()
}

// handMade is a writer of a backup for which tests choose the records.
func handMade() (out *backupWriter, to func() []byte) {
	out = &backupWriter{ctx: context.Background(), chunks: make(chan []byte), free: make(chan []byte, 2), buf: make([]byte, 0, backupChunk)}
	out.free <- make([]byte, 0, backupChunk)
	whole := make(chan []byte, 1)
	go func() {
		var all []byte
		for c := range out.chunks {
			all = append(all, c...)
			out.free <- c[:0]
		}
		whole <- all
	}()
	return out, func() []byte {
		close(out.chunks)
		return <-whole
	}
}

// A backup of which all sums are right has to have what its end counts, commits
// without a gap, and to open.
func TestRestoreCounts(t *testing.T) {
	frame := func(out *backupWriter, commit uint64) {
		out.frames++
		_ = out.record(recordFrame, binary.AppendUvarint(nil, commit), sampleFrame(t))
	}
	for name, make := range map[string]func(*backupWriter){
		"a frame lacks":          func(out *backupWriter) { frame(out, 5); frame(out, 7) },
		"the last frame lacks":   func(out *backupWriter) { frame(out, 5) },
		"a frame is there twice": func(out *backupWriter) { frame(out, 5); frame(out, 5) },
		"a frame too many":       func(out *backupWriter) { frame(out, 5); frame(out, 6); frame(out, 7) },
		"an entry lacks":         func(out *backupWriter) { frame(out, 5); frame(out, 6); out.entries++ },
		"an entry that is the database's": func(out *backupWriter) {
			_ = out.entry([]byte("\xf0Mmark0"), []byte("x"))
			frame(out, 5)
			frame(out, 6)
		},
		"a value that does not open": func(out *backupWriter) {
			_ = out.entry(partKey(kindPartition, 3, 0), []byte("?"))
			frame(out, 5)
			frame(out, 6)
		},
		"a record of another kind": func(out *backupWriter) { _ = out.record(9); frame(out, 5); frame(out, 6) },
	} {
		out, to := handMade()
		out.head(&backupHead{format: formatVersion, mark: lsm.Mark{Checkpoint: 1, Segment: 8, Commit: 4}, last: 6})
		make(out)
		if err := out.end(); err != nil {
			t.Fatal(err)
		}
		parent := t.TempDir()
		_, err := restore(context.Background(), bytes.NewReader(to()), filepath.Join(parent, "new"), backupProfile(), testLog(t))
		damage := name != "a value that does not open" && name != "an entry that is the database's"
		if err == nil || errors.Is(err, ErrNotBackup) != damage {
			t.Errorf("%s: %v", name, err)
		}
		empty(t, name, parent)
	}
}

// The golden file is a backup as it was when version 1 came to be.
func TestGoldenBackup(t *testing.T) {
	out, to := handMade()
	out.head(&backupHead{format: formatVersion, instance: [16]byte{1, 2, 15: 16}, mark: lsm.Mark{Checkpoint: 3, Segment: 9, Commit: 41}, last: 42})
	_ = out.entry(partKey(kindPartition, 3, 0), encodePart(123))
	_ = out.entry(recordKey(3, 9, []byte("kept")), []byte("since version 1"))
	out.frames++
	_ = out.record(recordFrame, binary.AppendUvarint(nil, 42), sampleFrame(t))
	if err := out.end(); err != nil {
		t.Fatal(err)
	}
	now := to()
	golden := readGolden(t, "backup", now)
	if d := cmp.Diff(golden, now); d != "" {
		t.Error("a backup is written differently now", d)
	}
	b := &bench{t: t, profile: edgeProfile}
	b.restoreFrom(bytes.NewReader(golden))
	b.open()
	defer b.s.Close(context.Background())
	p, err := b.s.Open(context.Background(), 3)
	if err != nil {
		t.Fatal(err)
	}
	atRest, err := p.Get(context.Background(), 9, []byte("kept"))
	if err != nil || string(atRest) != "since version 1" {
		t.Errorf("at rest: %q, %v", atRest, err)
	}
	journaled, err := p.Get(context.Background(), 2, []byte("key"))
	if err != nil || string(journaled) != "value" {
		t.Errorf("of the journal: %q, %v", journaled, err)
	}
}

// No octets make the reader panic, or take memory that has not come.
func FuzzBackupReader(f *testing.F) {
	f.Add([]byte(backupMagic + "\x01"))
	f.Add(append([]byte(backupMagic+"\x01\x01"), 0xff, 0xff, 0xff, 0x3f))
	f.Add(smallBackup(f))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = drain(b) })
}
