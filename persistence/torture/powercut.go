package torture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// PowerCut says where the list of what was confirmed goes, for it must survive
// the power cut: to a file on another disk, or to a machine that listens.
type PowerCut struct {
	File string
	Addr string // host:port of a Listen
}

// Write writes until ctx ends, or the power does. Verify, given the record,
// says afterwards what was lost. The directory may be that of an earlier
// Write, which then goes on. Seed 0 is the record's, or 1.
func Write(ctx context.Context, o Options, to PowerCut) (Result, error) {
	o.Keep = true
	if err := o.chooseSeed(to.File); err != nil {
		return Result{}, err
	}
	r, err := newRun(o)
	if err != nil {
		return Result{}, err
	}
	sink, err := r.openSink(ctx, to)
	if err != nil {
		return Result{}, err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return Result{}, errors.Join(err, sink.close())
	}
	r.measureFlush()
	p, err := start(r.Self, r.job(doWrite), r.told)
	if err != nil {
		return r.finish(), errors.Join(err, sink.close())
	}
	defer p.kill()
	r.print("writing; pull the plug when you like, then: godwit torture --data %s --verify --record FILE", r.Dir)
	err = r.passOn(ctx, p, sink)
	if err == nil && !p.stop(r.patience) {
		r.endedByItself(p)
	}
	r.result.Rounds = 0
	return r.finish(), errors.Join(err, r.passLines(sink, nil), sink.close(), r.result.stopped)
}

// chooseSeed takes the record's, or 1: a run that goes on has the seed it had.
func (o *Options) chooseSeed(recordFile string) error {
	if o.Seed != 0 {
		return nil
	}
	o.Seed = 1
	if recordFile == "" {
		return nil
	}
	old, there, err := loadRecord(recordFile)
	if err != nil || !there {
		return err
	}
	o.Seed, o.Profile = old.seed, old.profile
	return nil
}

// A sink takes lines of a record.
type sink interface {
	write(lines []byte) error
	close() error
}

func (r *run) openSink(ctx context.Context, to PowerCut) (sink, error) {
	mine := record{seed: r.Seed, profile: r.Profile}
	if to.Addr != "" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.Addr)
		if err != nil {
			return nil, fmt.Errorf("reach the machine that keeps the record: %w; start godwit torture --listen there", err)
		}
		if _, err := io.WriteString(conn, mine.head()); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return connSink{conn}, nil
	}
	if sameDisk(r.Dir, filepath.Dir(to.File)) {
		return nil, fmt.Errorf("%s is on the disk that is tried, which may forget both: name a file on another disk, or a machine with --confirm", to.File)
	}
	old, there, err := loadRecord(to.File)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(r.dir); err == nil && !there {
		return nil, fmt.Errorf("%s is what an earlier run left, and %s is not its record: name its record, or remove it", r.dir, to.File)
	}
	if there {
		r.told.confirmed = old.confirmed
	}
	return appendRecord(to.File, mine)
}

type connSink struct{ conn net.Conn }

func (s connSink) write(lines []byte) error { _, err := s.conn.Write(lines); return err }
func (s connSink) close() error             { return s.conn.Close() }

// passOn passes on what is confirmed, and says each second how it goes.
func (r *run) passOn(ctx context.Context, p *process, to sink) error {
	began, said := time.Now(), time.Now()
	passed := make([]uint64, partitions)
	for {
		var moved <-chan struct{}
		r.told.look(func(t *told) bool { moved = t.moved; return true })
		if err := r.passLines(to, passed); err != nil {
			return fmt.Errorf("the record: %w", err)
		}
		if time.Since(said) >= time.Second {
			said = time.Now()
			n := r.confirmedMessages()
			r.print("%5.0f s  %d messages confirmed, %.0f msg/s", time.Since(began).Seconds(), n, float64(n)/time.Since(began).Seconds())
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil
		case <-p.ended:
			r.endedByItself(p)
			return r.stopped()
		}
	}
}

// passLines writes what is not yet passed; passed nil: all.
func (r *run) passLines(to sink, passed []uint64) error {
	if passed == nil {
		passed = make([]uint64, partitions)
	}
	var lines []byte
	r.told.look(func(t *told) bool {
		for i, n := range t.confirmed {
			if n > passed[i] {
				lines = fmt.Appendf(lines, "c %d %d\n", i, n)
				passed[i] = n
			}
		}
		return true
	})
	if lines == nil {
		return nil
	}
	return to.write(lines)
}

// Verify compares what is there with a record.
func Verify(o Options, recordFile string) (Result, error) {
	rec, there, err := loadRecord(recordFile)
	if err == nil && !there {
		err = fmt.Errorf("%s: no record is there", recordFile)
	}
	if err != nil {
		return Result{}, err
	}
	o.Seed, o.Profile, o.Keep = rec.seed, rec.profile, true
	r, err := newRun(o)
	if err != nil {
		return Result{}, err
	}
	r.told.confirmed = slices.Clone(rec.confirmed)
	for i, n := range rec.confirmed {
		r.told.messages += r.told.mine[i].count(0, n)
	}
	if _, err := os.Stat(r.dir); err != nil {
		r.told.fault(lost, "%s is not there, and %d messages of it were confirmed", r.dir, r.told.messages)
		return r.finish(), nil
	}
	return r.lastLife(doVerify)
}

// Listen keeps the record of a machine that may lose its power, in a file,
// until ctx ends.
func Listen(ctx context.Context, addr, file string, out io.Writer) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	fmt.Fprintf(out, "listening on %s; on the machine that is tried: godwit torture --data DIR --write --confirm HOST:%s\n",
		l.Addr(), portOf(l.Addr()))
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			if err := tcp.SetKeepAliveConfig(noticeSoon); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "%s is connected\n", conn.RemoteAddr())
		end := context.AfterFunc(ctx, func() { conn.Close() })
		err = keep(conn, file, out)
		end()
		conn.Close()
		// A machine that loses its power says no good-bye.
		fmt.Fprintf(out, "%s is gone (%v); the record is in %s\n", conn.RemoteAddr(), err, file)
	}
}

// noticeSoon: a machine without power is given up after some ten seconds.
var noticeSoon = net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3}

func portOf(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return strconv.Itoa(t.Port)
	}
	return "PORT"
}

// keep takes one connection's lines.
func keep(conn net.Conn, file string, out io.Writer) (err error) {
	lines := bufio.NewReaderSize(conn, longestLine)
	r := record{confirmed: make([]uint64, partitions)}
	if err := r.readHead(lines); err != nil {
		return err
	}
	w, err := appendRecord(file, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	said := time.Now()
	for {
		more, err := r.readLine(lines)
		if err != nil || !more {
			return err
		}
		if lines.Buffered() > 0 {
			continue
		}
		var text []byte
		for i, n := range r.confirmed {
			text = fmt.Appendf(text, "c %d %d\n", i, n)
		}
		if err := w.write(text); err != nil {
			return err
		}
		if time.Since(said) >= time.Second {
			said = time.Now()
			fmt.Fprintf(out, "confirmed batches: %v\n", r.confirmed)
		}
	}
}
