package protocoltest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/protocols"
)

var toys = Options{Protocols: map[string]protocols.Protocol{"line": toy{}}}

// What the runner does for a handler, shown by a protocol without a broker.
func TestRunnerPlays(t *testing.T) {
	for name, script := range map[string]string{
		"an answer is what was asked for": `
line a> ECHO hello
a< hello
a<-`,
		"a variable is captured, and from then on the same": `
line a> ECHO one two one
a< $x two $x
a> ECHO $x
a< one`,
		"anything is anything, up to the next space": `
line a> ECHO ts=1795400000000 4
a< ts=$_ 4`,
		"a star is any further options": `
line a> ECHO OK v=1 sess=x last=40
a< OK *
a> ECHO MSG 1 2 q/a n=2 4
a< MSG 1 $seq q/a * 4`,
		"two dollars are one": `
line a> ECHO $$SYS
a< $$SYS`,
		"exact bytes, both ways": `
line a>"ECHO a\tb\n"
a<"a\tb\n"
a<-`,
		"a handler's goodbye comes before the end": `
line a> BYE
a< bye
a<eof`,
		"a fault ends it without a word": `
line a> DIE
a<eof
line a> ECHO new
a< new`,
		"each line waits for its own connection": `
line a> ECHO 1
line b> ECHO 2
a> ECHO 3
b< 2
a< 1
a< 3`,
		"a client that stopped gets it when it goes on": `
line a> ECHO 1
stop a
go a
a< 1`,
		"who was cut is gone": `
line a> ECHO 1
cut a
a<eof
a> ECHO 2
a< 2`,
		"who is told to wait reads on only when it may": `
line a> WAIT
a> ECHO 1
a< ahead ECHO 1
a<-
tick 400ms
a<-
tick 100ms
a< tick
a< 1
a<-`,
		"who wants more is not disturbed before it is there": `
line a> WANT 7
a>"ECHO 1\n"
a< 1
a<-`,
		"what varies is played once per value": `
each N 1 2 "3 4"
each M x y
line a> ECHO $N $M
a< $N $M`,
	} {
		if err := Play(name, []byte(script), toys); err != nil {
			t.Error(err)
		}
		split := toys
		split.Split = true
		if strings.Contains(script, "ahead") {
			continue // each byte is looked at ahead
		}
		if err := Play(name, []byte(script), split); err != nil {
			t.Errorf("one byte at a time: %v", err)
		}
	}
}

// Transcripts that must fail test the runner: the first line says with what.
func TestRunnerFails(t *testing.T) {
	files, _ := filepath.Glob("testdata/fail/*.txt")
	if len(files) < 10 {
		t.Fatalf("%d transcripts that must fail", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(src), "\n")
			want, ok := strings.CutPrefix(first, "# fails: ")
			if !ok {
				t.Fatalf("%s: the first line must be # fails: TEXT", file)
			}
			err = Play(file, src, toys)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s fails with %v, want %q in it", file, err, want)
			}
		})
	}
}

// A failure says where, what came instead, and what else is waiting.
func TestFailureIsClear(t *testing.T) {
	err := Play("x.txt", []byte("# shown\nline a> ECHO OK\nline b> ECHO other\na< ERR $_\n"), toys)
	if _, ok := errors.AsType[*Failure](err); !ok {
		t.Fatalf("no *Failure but %v", err)
	}
	if want := "x.txt:4: a< ERR $_\n   the line differs\n   got: OK\n   also waiting: b< other"; err.Error() != want {
		t.Errorf("the failure reads\n%s\nwant\n%s", err, want)
	}
}

func TestUpdate(t *testing.T) {
	src := "# shown\nline a> ECHO $$1\na< old\na> ECHO 2\na< 2\na< gone\n"
	got, err := rewrite("x.txt", []byte(src), toys)
	if want := "# shown\nline a> ECHO $$1\na< $$1\na> ECHO 2\na< 2\n"; err != nil || string(got) != want {
		t.Errorf("rewritten, it reads\n%s(%v), want\n%s", got, err, want)
	}
}
