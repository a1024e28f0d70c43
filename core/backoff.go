package core

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A backoff is how long a delivery that failed waits before the next, from the
// text of QueueSpec.Backoff:
//
//	5s         always so long
//	1s-5m      doubled each time, from 1 s to 5 m
//	1s-5m~0.2  the same, give or take a fifth
type backoff struct {
	first, most time.Duration
	jitter      float64 // 0.2: a fifth to both sides
}

// maxBackoff is the longest wait between two attempts.
const maxBackoff = 366 * 24 * time.Hour

// parseBackoff reads the text; "" is no backoff.
func parseBackoff(text string) (b backoff, err *Error) {
	if text == "" {
		return b, nil
	}
	span, part, jitters := strings.Cut(text, "~")
	first, most, grows := strings.Cut(span, "-")
	ok := parseLapse(first, &b.first)
	if b.most = b.first; grows {
		ok = parseLapse(most, &b.most) && ok
	}
	if jitters {
		n, e := strconv.ParseFloat(part, 64)
		ok = ok && e == nil && n >= 0 && n <= 1
		b.jitter = n
	}
	if !ok || b.most < b.first || b.most > maxBackoff {
		return backoff{}, Errorf(CodeBadValue, "backoff %q: want 5s, or 1s-5m to double it each time, and ~0.2 behind it for a fifth of jitter", text)
	}
	return b, nil
}

// parseLapse reads a number above 0 and one of ms, s, m, h, d.
func parseLapse(s string, to *time.Duration) bool {
	unit := strings.TrimLeft(s, "0123456789")
	n, err := strconv.ParseInt(s[:len(s)-len(unit)], 10, 64)
	scale, known := map[string]time.Duration{
		"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[unit]
	if err != nil || !known || n <= 0 || n > int64(maxBackoff/scale) {
		return false
	}
	*to = time.Duration(n) * scale
	return true
}

// after is the wait after that many attempts; 0: none.
func (b *backoff) after(attempts int, dice *rand.Rand) time.Duration {
	d := b.first
	for i := 1; i < attempts && d < b.most; i++ {
		d *= 2
	}
	d = min(d, b.most)
	if b.jitter > 0 && d > 0 {
		d += time.Duration(b.jitter * (2*dice.Float64() - 1) * float64(d))
	}
	return d
}
