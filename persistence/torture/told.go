package torture

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// told is what the children have said in one run. Its methods may be called by
// any goroutine.
type told struct {
	mu        sync.Mutex
	moved     chan struct{} // closed and made anew with each line
	confirmed []uint64      // the highest, by partition
	messages  int64         // confirmed
	verified  int64         // compared, over all lives
	checked   int           // how often a life compared all
	faults    map[string]int64
	findings  []string // the first of them
	mine      []history

	life // of the child that runs
}

// life is what one child has said.
type life struct {
	opened, written bool // it has the store; it has verified and goes on
	recovery        time.Duration
	refused         int64 // appends, because the disk is full
	settled         int64 // acks confirmed while appends were refused
	unsettled       int64
	appended        int64 // appends confirmed by a doFill child
	readOnly        bool
	free, reserve   int64
	failed          string
	refusal         string // the text of the last
}

// mostFindings are printed; all are counted.
const mostFindings = 20

func newTold(seed uint64) *told {
	t := &told{
		moved: make(chan struct{}), confirmed: make([]uint64, partitions), faults: map[string]int64{},
	}
	for i := range partitions {
		t.mine = append(t.mine, history{seed, histPart(i)})
	}
	return t
}

// hear takes one line of a child.
func (t *told) hear(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "c":
		t.confirm(rest)
	case "open":
		ms, _ := strconv.ParseInt(rest, 10, 64)
		t.opened, t.recovery = true, time.Duration(ms)*time.Millisecond
	case "verified":
		n, _ := strconv.ParseInt(rest, 10, 64)
		t.verified += n
		t.checked++
		t.written = true
	case "fault":
		kind, text, _ := strings.Cut(rest, " ")
		t.add(fault{kind, text})
	case "failed":
		t.failed = rest
	case "refused":
		t.refused++
		t.refusal = rest
	case "unsettled":
		t.unsettled++
	case "health":
		if _, err := fmt.Sscan(rest, &t.readOnly, &t.free, &t.reserve); err != nil {
			t.add(fault{died, "the child says " + line})
		}
	default:
		t.add(fault{died, "the child says " + line})
	}
	close(t.moved)
	t.moved = make(chan struct{})
}

// confirm notes "partition number". A fill's partition 1 counts acks.
func (t *told) confirm(rest string) {
	a, b, _ := strings.Cut(rest, " ")
	part, err := strconv.ParseUint(a, 10, 16)
	n, err2 := strconv.ParseUint(b, 10, 64)
	if err != nil || err2 != nil || part >= uint64(len(t.confirmed)) {
		t.add(fault{died, "the child says c " + rest})
		return
	}
	if n <= t.confirmed[part] {
		return
	}
	if t.mine != nil {
		t.messages += t.mine[part].count(t.confirmed[part], n)
	} else if part == 0 {
		t.messages++
		t.appended++
	} else {
		t.settled++
	}
	t.confirmed[part] = n
}

// add counts a fault. The mutex is held.
func (t *told) add(f fault) {
	t.faults[f.kind]++
	if len(t.findings) < mostFindings {
		t.findings = append(t.findings, f.kind+": "+f.text)
	}
}

func (t *told) fault(kind, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(fault{kind, fmt.Sprintf(format, args...)})
}

// look calls f with the mutex held and returns what f says.
func (t *told) look(f func(*told) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f(t)
}

// A process is a child that runs.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	cry   cry           // what it wrote on standard error
	ended chan struct{} // closed when it is gone and all it said was heard
}

// start begins a life. The lines of the child go to t.
func start(self func(job string) *exec.Cmd, j job, t *told) (*process, error) {
	t.mu.Lock()
	t.life = life{}
	j.Confirmed = append([]uint64(nil), t.confirmed...)
	t.mu.Unlock()
	cmd := self(j.String())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	cmd.Stderr = &p.cry
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the writer: %w", err)
	}
	go func() { // kill and wait wait for it
		lines := bufio.NewReaderSize(stdout, 64<<10)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // a line without its end does not count
			}
			t.hear(strings.TrimSuffix(line, "\n"))
		}
		_ = cmd.Wait() // the ProcessState says as much
		close(p.ended)
	}()
	return p, nil
}

// kill is kill -9. It says whether the child was still there to be killed.
func (p *process) kill() bool {
	select {
	case <-p.ended:
		return false
	default:
	}
	_ = p.cmd.Process.Kill() // it may be gone since
	<-p.ended
	return !p.cmd.ProcessState.Exited() || runtime.GOOS == "windows"
}

// stop lets the child end by itself and says whether it ended well.
func (p *process) stop(within time.Duration) bool {
	_ = p.stdin.Close()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.Success()
	case <-time.After(within):
		p.kill()
		return false
	}
}

// A cry keeps the first octets that are written to it: a crash says what it
// is first.
type cry struct{ text []byte }

const cryMost = 1000

func (t *cry) Write(b []byte) (int, error) {
	t.text = append(t.text, b[:min(len(b), cryMost-len(t.text))]...)
	return len(b), nil
}
