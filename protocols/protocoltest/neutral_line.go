package protocoltest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// ask needs no table: neutral steps are the line protocol's own words.
func (w *lineWire) ask(q *sentence) (text, wait string, err error) {
	words := []string{q.verb}
	for _, word := range []string{q.sid, q.seq, q.dest} {
		if word != "" {
			words = append(words, word)
		}
	}
	for _, o := range q.options {
		if o.value == "" {
			words = append(words, o.name)
			continue
		}
		words = append(words, o.name+"="+lineEscape(o.value))
	}
	for _, h := range q.headers {
		words = append(words, ":"+strings.ReplaceAll(lineEscape(h.name), "=", "%3D")+"="+lineEscape(h.value))
	}
	text = strings.Join(words, " ")
	switch q.verb {
	case "PUB":
		text += " " + strconv.Itoa(len(q.body)) + "\n" + q.body
	case "SUB":
		wait = "OK sid=" + q.sid + " *"
	case "UNSUB":
		wait = "END " + q.sid + " $_ why=unsub *"
	}
	return text, wait, nil
}

// frame takes the payload of a MSG with its line.
func (w *lineWire) frame(in []byte) (skip, n int, err error) {
	end := bytes.IndexByte(in, '\n') + 1
	if end == 0 || !bytes.HasPrefix(in, []byte("MSG ")) {
		return 0, end, nil
	}
	line := strings.TrimRight(string(in[:end]), "\r\n")
	length, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
	if err != nil {
		return 0, 0, fmt.Errorf("%s: the last word is no length", line)
	}
	if len(in) <= end+length {
		return 0, 0, nil
	}
	if in[end+length] == '\r' && len(in) > end+length+1 {
		length++
	}
	if in[end+length] != '\n' {
		return 0, 0, fmt.Errorf("%s: its payload does not end there", line)
	}
	return 0, end + length + 1, nil
}

// covers says whether what was confirmed so far covers an id.
func (w *lineWire) covers(v vars, id string) bool {
	id, err := v.fill(id)
	if err != nil {
		return false
	}
	n, err := strconv.ParseInt(id, 10, 64)
	return err == nil && n <= w.confirmed
}

func (w *lineWire) hear(answer []byte) (h *sentence, reply, wait string, err error) {
	line, payload, _ := strings.Cut(string(answer), "\n")
	words := strings.Split(strings.TrimSuffix(line, "\r"), " ")
	h = &sentence{verb: words[0]}
	switch {
	case h.verb == "MSG" && len(words) >= 5:
		err = w.message(h, words, payload)
	case h.verb == "CONFIRM" && len(words) >= 2:
		if w.confirmed, err = strconv.ParseInt(words[1], 10, 64); err == nil {
			h.id = words[1]
		}
	case h.verb == "END" && len(words) >= 3:
		h.sid, h.seq = words[1], words[2]
		h.options = lineOptions(words[3:])
	case h.verb == "ERR" && len(words) >= 3:
		h.code = words[1]
		if len(words) > 3 {
			h.id, _ = strings.CutPrefix(words[3], "id=")
		}
	default:
		err = fmt.Errorf("no neutral step expects %s", h.verb)
	}
	return h, "", "", err
}

// message reads MSG sid seq dest options length.
func (w *lineWire) message(h *sentence, words []string, payload string) error {
	h.sid, h.seq = words[1], words[2]
	a, err := address(words[3])
	if err != nil {
		return err
	}
	h.dest = a.String()
	length, err := strconv.Atoi(words[len(words)-1])
	if err != nil || length > len(payload) {
		return fmt.Errorf("%q is no length", words[len(words)-1])
	}
	h.body = payload[:length]
	for _, o := range lineOptions(words[4 : len(words)-1]) {
		if name, user := strings.CutPrefix(o.name, ":"); user {
			h.headers = append(h.headers, field{lineUnescape(name), o.value})
			continue
		}
		h.options = append(h.options, o)
	}
	return nil
}

func lineOptions(words []string) []field {
	var out []field
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		out = append(out, field{name, lineUnescape(value)})
	}
	return out
}
