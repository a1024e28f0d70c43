package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// What waits is there after kill -9, on the real store: each level of a queue
// with priorities, dead letters, what is due soon and what is due in an hour,
// and what was published before. Twice, as a start writes too.
//
// mission: S31 S34 S35, P7
func TestWhatWaitsSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, dir)
	c := dial(t, p.at["line"])
	c.say("MK q/jobs priorities=3 dead_letter=x/lost\nMK q/other\nMK x/lost kind=headers alternate=q/other\nMK q/rejected\nBIND q/rejected x/lost :dead-reason=rejected\nMK q/soon\nMK q/once")
	for range 7 {
		c.expect("OK")
	}
	c.say("PUB q/jobs id=1 pri=2 3\nbad\nPUB q/jobs id=2 pri=0 3\nlow\nPUB q/jobs id=3 pri=2 4\nhigh\nPUB q/soon id=4 delay=3s 4\nsoon\nPUB q/far id=5 delay=1h 3\nfar\nPUB q/once id=6 dedup=a 5\nfirst")
	for got := ""; got != "CONFIRM 6"; { // one may answer several
		got = c.expect("CONFIRM ")
	}
	c.say("GET q/jobs")
	seq := strings.Fields(c.expect("MSG 0 "))[2]
	c.expect("bad")
	c.expect("END 0")
	c.say("NACK 0 %s dead id=7", seq)
	c.expect("CONFIRM 7")

	for round := range 2 {
		p.kill()
		p = start(t, dir)
		c = dial(t, p.at["line"])
		c.say("PUB q/once id=1 dedup=a 5\nagain")
		c.expect("CONFIRM 1")
		c.say("LS q/* settings")
		for _, want := range []string{": q/jobs dead_letter=x/lost priorities=3", ": q/once", ": q/other", ": q/rejected", ": q/soon"} {
			for got := c.hear(); !strings.HasPrefix(got, want); got = c.hear() {
				if strings.HasPrefix(got, "OK") {
					t.Fatalf("round %d: no %q", round, want)
				}
			}
		}
		c.expect("OK")
	}
	get := func(queue, body string) string {
		t.Helper()
		c.say("GET %s wait=10s ack=auto", queue)
		head := c.expect("MSG 0 ")
		c.expect(body)
		c.expect("END 0")
		return head
	}
	if head := get("q/rejected", "bad"); !strings.Contains(head, ":dead-queue=q/jobs") {
		t.Errorf("the dead letter is %s", head)
	}
	get("q/jobs", "high")
	get("q/jobs", "low")
	get("q/once", "first")
	get("q/soon", "soon")
	c.say("GET q/once")
	c.expect("END 0 0")
	c.say("INFO")
	for got := c.hear(); ; got = c.hear() {
		if strings.HasPrefix(got, ": delayed") {
			if !strings.HasSuffix(got, "value=1") {
				t.Errorf("delayed are %s", got)
			}
			break
		}
		if strings.HasPrefix(got, "OK") {
			t.Fatal("INFO says nothing of delays")
		}
	}
}
