package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// links are the modules inside the binary, each with the reason it is there.
// A new one needs a line here and one in DECISIONS.md.
var links = map[string]string{
	"github.com/mochi-mqtt/server/v2":   "the vocabulary of MQTT's rare packets (its packets package, and the buffers that needs)",
	"github.com/go-stomp/stomp/v3":      "the vocabulary of STOMP (its frame package alone)",
	"github.com/dgraph-io/badger/v4":    "the durable store",
	"github.com/dgraph-io/ristretto/v2": "Badger's cache and buffers",
	"github.com/cespare/xxhash/v2":      "Badger's hashes",
	"github.com/dustin/go-humanize":     "Badger's log texts",
	"github.com/google/flatbuffers":     "Badger's table index",
	"github.com/klauspost/compress":     "Badger's compression",
	"go.opentelemetry.io/auto/sdk":      "of otel",
	"go.opentelemetry.io/otel":          "Badger's spans",
	"go.opentelemetry.io/otel/metric":   "of otel",
	"go.opentelemetry.io/otel/trace":    "of otel",
	"github.com/go-logr/logr":           "of otel",
	"github.com/go-logr/stdr":           "of otel",
	"google.golang.org/protobuf":        "Badger's manifest and records",
	"github.com/goccy/go-yaml":          "the configuration",
	"github.com/spf13/cobra":            "the command line",
	"github.com/spf13/pflag":            "cobra's flags",
	"golang.org/x/sys":                  "sockets and disks, where the standard library does not reach",
}

// inside are the packages of a module that may be linked, where not all may.
var inside = map[string][]string{
	"github.com/mochi-mqtt/server/v2": {"github.com/mochi-mqtt/server/v2/packets", "github.com/mochi-mqtt/server/v2/mempool"},
	"github.com/go-stomp/stomp/v3":    {"github.com/go-stomp/stomp/v3/frame"},
}

func TestDependencies(t *testing.T) {
	modules, packages := linked(t)
	var want []string
	for m, reason := range links {
		want = append(want, m)
		if reason == "" {
			t.Errorf("%s has no reason", m)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, modules); diff != "" {
		t.Errorf("modules that the binary links (-with a reason +linked):\n%s", diff)
	}
	for m, allowed := range inside {
		for _, p := range packages[m] {
			if !slices.Contains(allowed, p) {
				t.Errorf("%s is linked; of %s only %s may be", p, m, strings.Join(allowed, ", "))
			}
		}
	}
}

// linked lists the foreign modules of this package's build, and their packages.
func linked(t *testing.T) (modules []string, packages map[string][]string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Module", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages = map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Module     *struct {
				Path string
				Main bool
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		if packages[p.Module.Path] == nil {
			modules = append(modules, p.Module.Path)
		}
		packages[p.Module.Path] = append(packages[p.Module.Path], p.ImportPath)
	}
	slices.Sort(modules)
	return modules, packages
}
