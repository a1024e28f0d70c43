package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/godwitmq/godwit/core"
)

// writeMetrics serves what the store counts, in Prometheus' text format.
func writeMetrics(w http.ResponseWriter, store core.Store) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	writeStore(w, store.Health(), store.Stats(), time.Now())
}

// A series is one name with one value.
type series struct {
	name, kind, help string
	value            float64
}

func writeStore(w io.Writer, h core.Health, s core.StoreStats, now time.Time) {
	for _, m := range []series{
		{"frames_total", "counter", "Groups of batches that were written together.", float64(s.Frames)},
		{"commits_total", "counter", "Batches that became durable.", float64(s.Commits)},
		{"frame_ops", "counter", "Operations in them.", float64(s.Ops)},
		{"appends_total", "counter", "Messages in them.", float64(s.Appends)},
		{"syncs_total", "counter", "Flushes of files and directories.", float64(s.Syncs)},
		{"fetches_total", "counter", "Reads of stored messages.", float64(s.Fetches)},
		{"staged_bytes", "gauge", "Accepted and not durable yet.", float64(s.Staged)},
		{"journal_used_ratio", "gauge", "Segments that no checkpoint covers, of those the journal likes to have.", s.JournalUsed},
		{"checkpoints_total", "counter", "Moves from the journal to the database.", float64(s.Checkpoints)},
		{"spilled_bytes_total", "counter", "Messages that moved.", float64(s.Spilled)},
		{"rewrites_total", "counter", "Blocks that were brought into another shape.", float64(s.Rewrites)},
		{"reclaims_total", "counter", "Times the database gave space back.", float64(s.Reclaims)},
		{"dead_bytes", "gauge", "In the database, wanted by nobody.", float64(s.Dead)},
		{"free_bytes", "gauge", "On the file system, without the ballast.", float64(h.Free)},
		{"reserve_bytes", "gauge", "What is kept free to settle and delete with.", float64(h.Reserve)},
		{"read_only", "gauge", "1: there is too little space for messages.", flag(h.ReadOnly)},
		{"pressure", "gauge", "0 low, 1 high: publishers wait, 2 full.", float64(h.Pressure)},
		{"failed", "gauge", "1: a write failed and nothing is confirmed any more.", flag(h.Err != nil)},
	} {
		writeSeries(w, m)
	}
	writeWear(w, s, now)
	writeTimes(w, "commit_seconds", "From handing over to durable.", s.CommitTimes[:], s.CommitTime)
	writeTimes(w, "fsync_seconds", "Writing and flushing a frame.", s.SyncTimes[:], s.SyncTime)
}

// writeWear writes what tells how long a flash card will last.
func writeWear(w io.Writer, s core.StoreStats, now time.Time) {
	const name = "godwit_store_bytes_written_total"
	fmt.Fprintf(w, "# HELP %s What clients stored, and what was written for it.\n# TYPE %s counter\n", name, name)
	fmt.Fprintf(w, "%s{layer=\"user\"} %d\n%s{layer=\"journal\"} %d\n%s{layer=\"badger\"} %d\n",
		name, s.BytesUser, name, s.BytesJournal, name, s.BytesDatabase)
	written := float64(s.BytesWritten)
	if s.BytesUser > 0 {
		writeSeries(w, series{"write_amplification", "gauge", "Bytes written for each byte stored.", written / float64(s.BytesUser)})
	}
	days := now.Sub(time.UnixMilli(s.Since)).Hours() / 24
	if days <= 0 || written == 0 {
		return
	}
	writeSeries(w, series{"bytes_per_day", "gauge", "Written a day at the rate since the start.", written / days})
	if s.FlashBytes > 0 {
		writeSeries(w, series{"flash_life_days", "gauge", "How long a new card of that kind lasts at this rate.", float64(s.FlashBytes) * days / written})
	}
}

func writeSeries(w io.Writer, m series) {
	fmt.Fprintf(w, "# HELP godwit_store_%s %s\n# TYPE godwit_store_%s %s\ngodwit_store_%s %v\n", m.name, m.help, m.name, m.kind, m.name, m.value)
}

func writeTimes(w io.Writer, name, help string, classes []int64, sum int64) {
	name = "godwit_store_" + name
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
	total := int64(0)
	for i, n := range classes {
		total += n
		bound := "+Inf"
		if i < len(core.StoreTimes) {
			bound = fmt.Sprint(float64(core.StoreTimes[i]) / 1e6)
		}
		fmt.Fprintf(w, "%s_bucket{le=\"%s\"} %d\n", name, bound, total)
	}
	fmt.Fprintf(w, "%s_sum %v\n%s_count %d\n", name, float64(sum)/1e9, name, total)
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
