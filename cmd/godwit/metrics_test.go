package main

import (
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

func TestMetricsTellTheWear(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	s := core.StoreStats{
		BytesUser: 1000, BytesJournal: 1200, BytesDatabase: 300, BytesWritten: 1500,
		Since: now.Add(-12 * time.Hour).UnixMilli(), FlashBytes: 30_000, CommitTime: 3e9, JournalUsed: 0.25,
	}
	s.CommitTimes[0], s.CommitTimes[len(s.CommitTimes)-1] = 2, 1
	var b strings.Builder
	writeStore(&b, core.Health{ReadOnly: true, Pressure: core.PressureFull}, s, now)
	for _, want := range []string{
		`godwit_store_bytes_written_total{layer="journal"} 1200`,
		`godwit_store_bytes_written_total{layer="badger"} 300`,
		"godwit_store_write_amplification 1.5\n",
		"godwit_store_bytes_per_day 3000\n",
		"godwit_store_flash_life_days 10\n",
		"godwit_store_read_only 1\n",
		"godwit_store_pressure 2\n",
		"godwit_store_journal_used_ratio 0.25\n",
		`godwit_store_commit_seconds_bucket{le="0.0001"} 2`,
		`godwit_store_commit_seconds_bucket{le="+Inf"} 3`,
		"godwit_store_commit_seconds_sum 3\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
