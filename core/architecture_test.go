package core

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ladder is core in reading order: each file uses only names from the files
// above it, so whoever reads from the top never meets a stranger.
var ladder = []string{
	"doc.go",
	"message.go",     // what travels
	"errors.go",      // what can go wrong, and why a message ended
	"spec.go",        // what an operator declares
	"settings.go",    // a declaration in everybody's words
	"verbs.go",       // what the verbs of a session take and give
	"guard.go",       // who may do what
	"store.go",       // what must survive
	"record.go",      // what core writes down: tables and keys
	"codec.go",       // how a message looks at rest
	"fate.go",        // how messages ended
	"outbox.go",      // how the broker answers
	"publication.go", // a message under way, and the answer owed
	"backoff.go",     // how long what failed rests
	"policy.go",      // which settings queues have by their names
	"consumer.go",    // a reader's place at a queue
	"level.go",       // one line of messages
	"keyed.go",       // which key is whose
	"queue.go",       // what waits
	"bucket.go",      // what waits for its time
	"repeats.go",     // what was published before
	"letter.go",      // what becomes of what dies
	"serving.go",     // who gets it next
	"retained.go",    // the last value of an address
	"listener.go",    // who gets it now
	"matcher.go",     // how an exchange picks
	"exchange.go",    // who wants it
	"pipeline.go",    // what happens on the way
	"explain.go",     // the same way walked with the recorder on
	"shard.go",       // who owns the queues: the state
	"commit.go",      // how a turn reaches the disk
	"topology.go",    // exchanges and bindings come and go
	"declare.go",     // queues come and go
	"reading.go",     // messages go out
	"lodging.go",     // sessions come, are parked and end
	"placing.go",     // messages go into queues
	"burial.go",      // and out of them, to dead letters or elsewhere
	"due.go",         // what is not due yet
	"once.go",        // what comes twice is kept once
	"intake.go",      // messages come in
	"loop.go",        // the shard's goroutine
	"broker.go",      // the whole
	"starting.go",    // what the store holds comes back
	"inspect.go",     // what there is
	"session.go",     // the door
}

// A word that a file defines for those above it breaks the ladder; message.go
// alone may name errors and identities, which are part of what travels.
var foundation = []string{"message.go", "errors.go", "spec.go", "verbs.go", "guard.go", "store.go"}

func TestLadder(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File
	names, _ := filepath.Glob("*.go")
	for _, name := range names {
		if ok, _ := filepath.Match("*_test.go", name); ok {
			continue
		}
		if !slices.Contains(ladder, name) {
			t.Errorf("%s has no rung on the ladder", name)
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	pkg, err := conf.Check("github.com/godwitmq/godwit/core", fset, files, info)
	if err != nil {
		t.Fatal(err)
	}
	rung := func(p token.Pos) int { return slices.Index(ladder, fset.Position(p).Filename) }
	at := func(p token.Pos) string { return fset.Position(p).Filename }
	for id, obj := range info.Uses {
		if obj.Pkg() != pkg || rung(obj.Pos()) <= rung(id.Pos()) {
			continue
		}
		if slices.Contains(foundation, at(id.Pos())) && slices.Contains(foundation, at(obj.Pos())) {
			continue
		}
		t.Errorf("%s uses %s, which %s declares, further down", fset.Position(id.Pos()), id.Name, at(obj.Pos()))
	}
}

// TestLayers keeps the house in shape: core rests on nothing but the standard
// library, so that it can be read, tested and simulated alone.
func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(dep, "github.com/godwitmq/godwit/core") {
			t.Errorf("core must not depend on %s", dep)
		}
	}
}
