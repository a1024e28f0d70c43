package core

// Routed is how many targets a message has, found as a publish finds them.
func Routed(s *Session, m *Message) (int, error) {
	way, err := s.routes(m)
	if err != nil {
		return 0, err
	}
	return way.targets(), nil
}
