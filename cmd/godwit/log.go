package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/godwitmq/godwit/config"
)

// newLog makes the log that c asks for: text where a person reads it, JSON
// where a program does.
func newLog(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // Validate has refused it before
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || (c.Format == "auto" && terminal(w)) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
