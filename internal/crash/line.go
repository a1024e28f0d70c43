package main

import (
	"fmt"
	"strconv"
	"strings"
)

// linePublisher sends PUB with an id and reads CONFIRM. With a producer name
// it sends again what was not confirmed, and the broker keeps it once.
type linePublisher struct {
	dest     string
	producer string
	number   int
	seed     uint64
	body     []byte
}

func (p *linePublisher) hello(l *life) (*wire, func(), uint64, error) {
	w, end, err := l.dial(l.broker.line)
	if err != nil {
		return nil, nil, 0, err
	}
	known, err := p.introduce(w)
	if err != nil {
		end()
		return nil, nil, 0, err
	}
	return w, end, known, nil
}

func (p *linePublisher) introduce(w *wire) (known uint64, err error) {
	hello := "HELLO 1"
	if p.producer != "" {
		hello += " pid=" + p.producer
	}
	if err := w.say([]byte(hello + "\n")); err != nil {
		return 0, err
	}
	answer, err := w.line()
	if err != nil {
		return 0, err
	}
	if !strings.HasPrefix(answer, "OK ") {
		return 0, fmt.Errorf("%s: answered %q", hello, answer)
	}
	if text, ok := option(answer, "last"); ok {
		return strconv.ParseUint(text, 10, 64)
	}
	return 0, nil
}

// line reads one line that is not a heart-beat.
func (w *wire) line() (string, error) {
	for {
		s, err := w.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if s = strings.TrimRight(s, "\r\n"); s != "" {
			return s, nil
		}
	}
}

// option returns the value of key=value in a line.
func option(line, key string) (string, bool) {
	for word := range strings.FieldsSeq(line) {
		if value, ok := strings.CutPrefix(word, key+"="); ok {
			return value, true
		}
	}
	return "", false
}

func (p *linePublisher) publish(out []byte, s step) []byte {
	p.body = appendBody(p.body[:0], p.seed, p.number, s.number)
	out = append(append(out, "PUB "...), p.dest...)
	out = strconv.AppendUint(append(out, " id="...), s.number+1, 10) // ids begin at 1
	out = strconv.AppendInt(append(out, ' '), int64(len(p.body)), 10)
	return append(append(append(out, '\n'), p.body...), '\n')
}

func (p *linePublisher) answer(w *wire, b *book) error {
	line, err := w.line()
	if err != nil {
		return err
	}
	words := strings.Fields(line)
	if words[0] != "CONFIRM" || len(words) < 2 {
		return fmt.Errorf("the broker says %q", line)
	}
	id, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return fmt.Errorf("the broker says %q", line)
	}
	b.confirmUpTo(id)
	return nil
}

// lineConsumer reads a queue. Acknowledged with an id, the broker confirms
// what it has forgotten.
type lineConsumer struct {
	dest  string
	id    uint64
	acks  []lineAck // sent and not confirmed, ids rising
	spare []byte
}

type lineAck struct{ id, entry uint64 }

func (c *lineConsumer) answers() bool { return true }

func (c *lineConsumer) hello(l *life) (*wire, func(), error) {
	c.id, c.acks = 0, c.acks[:0]
	w, end, err := l.dial(l.broker.line)
	if err != nil {
		return nil, nil, err
	}
	if err := w.say([]byte("SUB 1 " + c.dest + "\n")); err != nil {
		end()
		return nil, nil, err
	}
	return w, end, nil
}

// ask types one line and returns the rows before its OK.
func (w *wire) ask(text string) (rows []string, err error) {
	if err := w.say([]byte(text + "\n")); err != nil {
		return nil, err
	}
	for {
		answer, err := w.line()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", text, err)
		case strings.HasPrefix(answer, ": "):
			rows = append(rows, answer[2:])
		case answer == "OK", strings.HasPrefix(answer, "OK "):
			return rows, nil
		default:
			return nil, fmt.Errorf("%s: answered %q", text, answer)
		}
	}
}

func (c *lineConsumer) hear(w *wire, t *target) (delivery, string, error) {
	line, err := w.line()
	if err != nil {
		return delivery{}, "", err
	}
	words := strings.Fields(line)
	switch {
	case words[0] == "MSG" && len(words) >= 5:
		return c.message(w, line, words)
	case words[0] == "CONFIRM" && len(words) >= 2:
		id, err := strconv.ParseUint(words[1], 10, 64)
		for err == nil && len(c.acks) > 0 && c.acks[0].id <= id {
			t.settle(c.acks[0].entry)
			c.acks = c.acks[1:]
		}
		return delivery{}, "", err
	case words[0] == "OK": // of SUB
		return delivery{}, "", nil
	}
	return delivery{}, "", fmt.Errorf("the broker says %q", line)
}

func (c *lineConsumer) message(w *wire, line string, words []string) (d delivery, handle string, err error) {
	if d.entry, err = strconv.ParseUint(words[2], 10, 64); err != nil {
		return d, "", fmt.Errorf("the broker says %q", line)
	}
	n, err := strconv.Atoi(words[len(words)-1])
	if err != nil {
		return d, "", fmt.Errorf("the broker says %q", line)
	}
	if count, ok := option(line, "n"); ok {
		d.again = count != "1"
	}
	c.spare, err = w.body(c.spare, n, '\n')
	d.body = c.spare
	return d, words[2], err
}

// ack gives each its own id, so that a CONFIRM is told message by message; or
// it names all in one line.
func (c *lineConsumer) ack(out []byte, some []held, told bool) []byte {
	if !told {
		out = append(out, "ACK 1 "...)
		for _, h := range some {
			out = append(append(out, h.handle...), ',')
		}
		out[len(out)-1] = '\n'
		return out
	}
	for _, h := range some {
		c.id++
		c.acks = append(c.acks, lineAck{c.id, h.entry})
		out = append(append(out, "ACK 1 "...), h.handle...)
		out = append(strconv.AppendUint(append(out, " id="...), c.id, 10), '\n')
	}
	return out
}
