package core

// Routed is how many targets a message has, found as a publish finds them.
func Routed(s *Session, m *Message) (int, error) {
	way, err := s.routes(m)
	if err != nil {
		return 0, err
	}
	return way.targets(), nil
}

// Remembered is how many routes the session holds.
func Remembered(s *Session) (n int) {
	for _, m := range s.memos {
		n += len(m.byKey)
		if m.any != nil {
			n++
			if m.any.choice != nil {
				n += len(m.any.choice.ways)
			}
		}
	}
	return n
}
